# SPDX-License-Identifier: Apache-2.0
"""Runs cells, each against a fake IBM of its own, with all delays cut to fractions of a second."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, IBMQuantumClient, RetryPolicy
from airflow_provider_ibm_sessions.client._http import transport
from airflow_provider_ibm_sessions.emulator.service.settings import UNUSED_SECONDS
from airflow_provider_ibm_sessions.triggers import base
from testing.connections import connection_to
from testing.fake_ibm import FakeIBM, Fault

from . import airflow_stub, network_faults
from .cells import Cell
from .checks import CellResult, Existing, Observation, check_cell, snapshot
from .expectations import is_denied
from .network_faults import NetworkFault
from .scenarios import SCENARIOS, ScenarioRun, Waiting, orphan, sweep

CONN_ID = "ibm_quantum_default"
SHORT_TIMEOUT, TIMEOUT = 0.4, 5.0
"""The connection's timeout in seconds where a request is to run into it, and where it is not."""
MAX_ELAPSED_ONCE, MAX_ELAPSED_LASTING = 1.5, 0.1
INITIAL_BACKOFF, MAX_BACKOFF = 0.01, 0.05
JOB_SECONDS, JOB_SECONDS_UNTIL_POLL = 0.1, 0.6
"""How long a job runs, and how long where the fault is to meet a poll after the first."""
NEVER = 1e9
SETTLE_SECONDS = 10.0
"""Seconds of the service's clock after which a drained session has closed itself."""

_max_elapsed = [MAX_ELAPSED_ONCE]
"""The running cell's."""


class CapturedOutput:
    """Standard output and standard error of this process, to which everything is logged."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115
        sys.stdout.flush()
        os.dup2(self._file.fileno(), 1)
        os.dup2(self._file.fileno(), 2)

    def clear(self) -> None:
        """Forget what was written."""
        sys.stdout.flush()
        self._file.seek(0)
        self._file.truncate()

    def read(self) -> str:
        """Return what was written."""
        sys.stdout.flush()
        self._file.seek(0)
        return self._file.read().decode(errors="replace")


@cache
def prepare() -> CapturedOutput:
    """Prepare this process once: short delays, network faults, no proxies, captured output."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ.pop(name, None)
        os.environ.pop(name.lower(), None)
    for client in (IBMQuantumClient, AsyncIBMQuantumClient):
        _shorten_retries(client)
    _shorten_delays()
    _unmask()
    network_faults.install()
    airflow_stub.install()
    logging.basicConfig(level=logging.INFO, force=True)
    return CapturedOutput()


def _unmask() -> None:
    """Airflow's masker must not hide what we let slip; and each new key would make it slower."""
    with contextlib.suppress(ImportError):
        from airflow.sdk._shared.secrets_masker import SecretsMasker

        SecretsMasker.add_mask = lambda *_: None


def _shorten_retries(client: Any) -> None:
    """Give every client a short retry policy, whichever it is made with."""
    make = client.__init__

    def make_with_short_retries(
        self: Any, credentials: Any, retry: RetryPolicy | None = None, **kwargs: Any
    ) -> None:
        retry = retry or RetryPolicy()
        short = replace(
            retry,
            max_elapsed=min(retry.max_elapsed, _max_elapsed[0]),
            initial_backoff=INITIAL_BACKOFF,
            max_backoff=MAX_BACKOFF,
            list_lag=INITIAL_BACKOFF,
        )
        make(self, credentials, short, **kwargs)

    client.__init__ = make_with_short_retries


def _shorten_delays() -> None:
    """Let no delay of a worker or a triggerer be long, and no large response have more time than others."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, MAX_BACKOFF))
    assert transport.LARGE_PAYLOAD_TIMEOUT_FACTOR
    transport.LARGE_PAYLOAD_TIMEOUT_FACTOR = 1
    assert base.MIN_DEFERRAL
    base.MIN_DEFERRAL = 0.0


def run_cell(cell: Cell) -> CellResult:
    """Run a Dag with one fault, and check what came of it."""
    output = prepare()
    output.clear()
    airflow_stub.reset()
    scenario = SCENARIOS[cell.operation.scenario]
    queue = {} if scenario.completes else {"queue_seconds": NEVER}
    _max_elapsed[:] = [MAX_ELAPSED_LASTING if cell.lasting else MAX_ELAPSED_ONCE]
    job_seconds = JOB_SECONDS_UNTIL_POLL if cell.later and cell.operation.path == "/v1/jobs" else JOB_SECONDS
    with FakeIBM(job_seconds=job_seconds, **queue) as ibm:
        timeout = SHORT_TIMEOUT if cell.fault.stalls else TIMEOUT
        os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = connection_to(ibm, timeout=timeout)
        existing = _existing(ibm)
        earlier = ScenarioRun(scenario, Waiting(CONN_ID, cell.deferred, TIMEOUT), "earlier")
        if cell.later:
            earlier.start()
        seen = _run_with_fault(cell, ibm, existing)
        if cell.later:
            earlier.finish()
        seen.conclude(ibm, earlier if cell.later else None, SETTLE_SECONDS)
        if seen.accepting:
            _sweep_up(ibm, seen)
        seen.log = output.read()
        return check_cell(cell, seen)


def _existing(ibm: FakeIBM) -> Existing:
    """Open the sessions that exist before: others', and one that a run of this Airflow has left open."""
    session_id = orphan(CONN_ID)
    ibm.sessions[session_id].created -= 700
    return Existing([ibm.add_session(age=age).id for age in (100, 900)], session_id)


def _sweep_up(ibm: FakeIBM, seen: Observation) -> None:
    """After the fault: note what the next sweep closes, and IBM, of what gets no job."""
    sweep(CONN_ID)
    seen.swept = snapshot(ibm.sessions)
    ibm.clock.advance(UNUSED_SECONDS)
    seen.half_an_hour_later = snapshot(ibm.sessions)


def _run_with_fault(cell: Cell, ibm: FakeIBM, existing: Existing) -> Observation:
    before = {*ibm.sessions}
    waiting = Waiting(CONN_ID, cell.deferred, timeout=1.0 if cell.lasting else 4.0)
    arm = _arming(cell, ibm)
    armed_at = cell.operation.later_at if cell.later else None
    run = ScenarioRun(
        SCENARIOS[cell.operation.scenario], waiting, "run", lambda task: arm() if task == armed_at else None
    )
    started = time.monotonic()
    if cell.operation.create_response_lost:
        ibm.script(Fault("POST", "/v1/sessions", drop=True, phase="after"))
    if armed_at is None:
        arm()
    run.start()
    run.finish()
    seconds = time.monotonic() - started
    hits = _hits(cell, ibm)
    ibm.clear_faults()
    network_faults.clear()
    own = {name: session for name, session in ibm.sessions.items() if name not in before}
    orphan_state = ibm.sessions[existing.orphan].state
    return Observation(run, own, existing, seconds, hits, orphan_state, is_denied(cell))


def _arming(cell: Cell, ibm: FakeIBM) -> Callable[[], None]:
    operation = cell.operation
    skip = operation.later_skip if cell.later else 0
    when = {"times": None if cell.lasting else 1, "skip": skip}
    if cell.fault.network_fault:
        network_fault = NetworkFault(cell.fault.network_fault, operation.method, operation.path, **when)
        return lambda: network_faults.arm(network_fault)
    fault = Fault(operation.method, operation.path, **when, **cell.fault.script)
    return lambda: ibm.script(fault)


def _hits(cell: Cell, ibm: FakeIBM) -> int:
    if cell.fault.network_fault:
        return network_faults.hits()
    found = ibm.requests(cell.operation.method, cell.operation.path)
    return sum(entry.fault is not None for entry in found)
