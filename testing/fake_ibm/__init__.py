# SPDX-License-Identifier: Apache-2.0
"""
The emulator's IBM Quantum as tests want it: with faults, a clock that they move, and a journal.

    with FakeIBM(frozen=True) as ibm:
        ...                                   # talk to ibm.url and ibm.iam_url with ibm.api_key and ibm.crn
        ibm.clock.advance(61)                 # an idle session goes inactive
        ibm.script(Fault("PATCH", "/v1/sessions/*", status=503, phase="after"))
        assert ibm.state()["accepting"] == []

Jobs are not computed: their outcomes are planned, their results random. It is strict: a request that lacks a
header or shows the API key is recorded.
"""

from __future__ import annotations

from airflow_provider_ibm_sessions.emulator.service.clock import Clock
from airflow_provider_ibm_sessions.emulator.service.records import Outcome

from .fake import FakeIBM
from .faults import Fault

__all__ = ["Clock", "FakeIBM", "Fault", "Outcome"]
