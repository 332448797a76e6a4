# SPDX-License-Identifier: Apache-2.0
"""A strict fake of IBM Quantum's REST service and of IAM, over a real socket, on a clock that tests move.

    with FakeIBM(frozen=True) as ibm:
        ...                                   # talk to ibm.url and ibm.iam_url with ibm.api_key and ibm.crn
        ibm.clock.advance(61)                 # an idle session goes inactive
        ibm.script(Fault("PATCH", "/v1/sessions/*", status=503, phase="after"))
        assert ibm.books()["accepting"] == []

It follows IBM's API reference and what has been seen of the live service, not any client. Where IBM documents
nothing, it does what is hardest on a client or what a setting says; the docstrings tell which is which.
"""

from __future__ import annotations

from .clock import Clock
from .fake import FakeIBM
from .faults import Fault
from .settings import Outcome

__all__ = ["Clock", "FakeIBM", "Fault", "Outcome"]
