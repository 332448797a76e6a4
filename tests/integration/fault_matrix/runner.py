# SPDX-License-Identifier: Apache-2.0
"""Runs cells, each against a fake IBM of its own, with all waiting cut to fractions of a second."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any

from airflow_provider_ibm_sessions.client import client as client_module
from airflow_provider_ibm_sessions.client._http import transport
from airflow_provider_ibm_sessions.client.retries import RetryPolicy
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX, Owner
from testing.connections import connection_to
from testing.fake_ibm import FakeIBM, Fault
from testing.fake_ibm.settings import UNUSED_SECONDS

from . import airflow_stub, network_faults
from .cells import Cell
from .checks import After, Planted, Verdict, as_they_are, judge
from .expectations import is_denied
from .network_faults import Detour
from .scenarios import STORIES, Played, Setting, sweep

CONN_ID = "ibm_quantum_default"
SHORT, LONG = 0.4, 5.0
"""Seconds that a request may take where it is to run into a timeout, and where it is not."""
WINDOW_ONCE, WINDOW_LASTING = 1.5, 0.1
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.05
JOB_SECONDS = 0.1
FOR_EVER = 1e9
UNTIL_SETTLED = 10.0
"""Seconds of the service's clock after which a drained session has closed itself."""

_window = [WINDOW_ONCE]
"""The running cell's."""


class Written:
    """All that this process writes: standard output and standard error, to which everything is logged."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115
        sys.stdout.flush()
        os.dup2(self._file.fileno(), 1)
        os.dup2(self._file.fileno(), 2)

    def clear(self) -> None:
        sys.stdout.flush()
        self._file.seek(0)
        self._file.truncate()

    def read(self) -> str:
        sys.stdout.flush()
        self._file.seek(0)
        return self._file.read().decode(errors="replace")


@cache
def prepare() -> Written:
    """Once in a process: short pauses, detours, no proxies, and an ear for what is logged."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ.pop(name, None)
        os.environ.pop(name.lower(), None)
    _shorten_waiting()
    _unmask()
    network_faults.install()
    airflow_stub.install()
    logging.basicConfig(level=logging.INFO, force=True)
    return Written()


def _unmask() -> None:
    """Airflow's masker must not hide what we let slip; and each new key would make it slower."""
    with contextlib.suppress(ImportError):
        from airflow.sdk._shared.secrets_masker import SecretsMasker

        SecretsMasker.add_mask = lambda *_: None


def _shorten_waiting() -> None:
    """Every client gets a short policy, whatever it was made with; no pause of a worker is long."""
    make, sleep = client_module._BaseClient.__init__, time.sleep

    def make_quick(self: Any, credentials: Any, retry: RetryPolicy | None = None) -> None:
        retry = retry or RetryPolicy()
        short = RetryPolicy(min(retry.window, _window[0]), FIRST_PAUSE, LONGEST_PAUSE, FIRST_PAUSE)
        make(self, credentials, short)

    client_module._BaseClient.__init__ = make_quick
    time.sleep = lambda seconds: sleep(min(seconds, LONGEST_PAUSE))
    transport.LARGE_PAYLOAD_TIMEOUT_FACTOR = 1


def run_cell(cell: Cell) -> Verdict:
    """One Dag run with one fault, and what is to be said of it."""
    written = prepare()
    written.clear()
    airflow_stub.start_anew()
    story = STORIES[cell.operation.story]
    waits = {} if story.completes else {"queue_seconds": FOR_EVER}
    _window[:] = [WINDOW_LASTING if cell.lasting else WINDOW_ONCE]
    with FakeIBM(job_seconds=JOB_SECONDS, **waits) as ibm:
        planted = _plant(ibm)
        os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = connection_to(ibm, timeout=_timeout(cell))
        earlier = Played(story, Setting(CONN_ID, cell.deferred, LONG), "earlier") if cell.later else None
        if earlier:
            earlier.begin()
        after = _afflicted(cell, ibm, planted)
        if earlier:
            earlier.finish()
        after.conclude(ibm, earlier, UNTIL_SETTLED)
        if after.get_if_accepting_jobs:
            _sweep_up(ibm, after)
        after.log = written.read()
        return judge(cell, after)


def _plant(ibm: FakeIBM) -> Planted:
    """What there is already: others' sessions, and one that a run of this Airflow has left behind."""
    orphan = ibm.plant_session(age=700).id
    owner = Owner(CONN_ID, "faults", "gone", "create", dag_run_scoped=True)
    airflow_stub.variables[PREFIX + orphan] = json.dumps(asdict(owner))
    return Planted([ibm.plant_session(age=age).id for age in (100, 900)], orphan)


def _sweep_up(ibm: FakeIBM, after: After) -> None:
    """When all is well again: what does the next sweep close, and IBM, of what gets no job?"""
    sweep(CONN_ID)
    after.swept = as_they_are(ibm.sessions)
    ibm.clock.advance(UNUSED_SECONDS)
    after.half_an_hour_later = as_they_are(ibm.sessions)


def _afflicted(cell: Cell, ibm: FakeIBM, planted: Planted) -> After:
    """The run that meets the fault."""
    known = {*ibm.sessions}
    setting = Setting(CONN_ID, cell.deferred, patience=1.0 if cell.lasting else 4.0)
    arm = _arming(cell, ibm)
    at = cell.operation.later_at if cell.later else None
    played = Played(STORIES[cell.operation.story], setting, "run", lambda task: arm() if task == at else None)
    began = time.monotonic()
    if cell.operation.create_is_lost:
        ibm.script(Fault("POST", "/v1/sessions", drop=True, phase="after"))
    if at is None:
        arm()
    played.begin()
    played.finish()
    seconds = time.monotonic() - began
    struck = _struck(cell, ibm)
    ibm.clear_faults()
    network_faults.clear()
    own = {name: session for name, session in ibm.sessions.items() if name not in known}
    orphan_then = ibm.sessions[planted.orphan].state
    return After(played, own, planted, seconds, struck, orphan_then, is_denied(cell))


def _arming(cell: Cell, ibm: FakeIBM) -> Callable[[], None]:
    operation = cell.operation
    skip = operation.later_skip if cell.later else 0
    facts = {"times": None if cell.lasting else 1, "skip": skip}
    if cell.fault.detour:
        where = Detour(cell.fault.detour, operation.method, operation.path, **facts)
        return lambda: network_faults.arm(where)
    fault = Fault(operation.method, operation.path, **facts, **cell.fault.script)
    return lambda: ibm.script(fault)


def _struck(cell: Cell, ibm: FakeIBM) -> int:
    if cell.fault.detour:
        return sum(each.struck for each in network_faults.armed())
    found = ibm.requests(cell.operation.method, cell.operation.path)
    return sum(entry.fault is not None for entry in found)


def _timeout(cell: Cell) -> float:
    return SHORT if cell.fault.stalls else LONG
