# SPDX-License-Identifier: Apache-2.0
"""Worker processes that are stopped, die or take too long."""

from __future__ import annotations

import random
import threading
import time

import pytest

from airflow_provider_ibm_sessions.emulator.service.records import JobRecord
from airflow_provider_ibm_sessions.emulator.simulation.simulator import Simulator

from .conftest import BELL

pytest.importorskip("qiskit_aer")


def endless():
    """A circuit whose simulation takes hours: 60 entangled qubits, 40 layers."""
    from airflow_provider_ibm_sessions.emulator.service import snapshots

    dice = random.Random(1)
    pairs = [pair for pair in snapshots.configuration("ibm_fez")["coupling_map"] if max(pair) < 60]
    lines = ['OPENQASM 3.0; include "stdgates.inc"; bit[1] c;']
    for _ in range(40):
        for left, right in dice.sample(pairs, 60):
            lines.append(f"sx ${left}; rz({dice.random():.4f}) ${left}; cz ${left}, ${right};")
            lines.append(f"sx ${right}; rz({dice.random():.4f}) ${right};")
    return " ".join([*lines, "c[0] = measure $0;"])


def job(circuit):
    return JobRecord("id", "ibm_fez", "sampler", {"pubs": [[circuit, None, 5]]}, "me", created=0.0)


@pytest.fixture
def simulate():
    """Start a simulator; returns it, and a function that waits for a job's outcome."""
    simulators, outcomes, told = [], {}, threading.Condition()

    def keep(finished, outcome):
        with told:
            outcomes[id(finished)] = outcome
            told.notify_all()

    def wait(wanted):
        with told:
            told.wait_for(lambda: id(wanted) in outcomes)
            return outcomes[id(wanted)]

    def make(**options):
        simulators.append(Simulator(**options))
        simulators[-1].on_outcome = keep
        return simulators[-1], wait

    yield make
    for each in simulators:
        each.close()


def test_a_cancelled_job_makes_room_for_the_next(simulate):
    simulator, wait = simulate()
    long, short = job(endless()), job(BELL)
    simulator.start(long)
    while simulator._workers[0].job is not long:
        time.sleep(0.01)
    long.status = "Cancelled"
    simulator.cancel(long)
    simulator.start(short)
    assert wait(short).status == "Completed"


def test_a_job_that_takes_too_long_fails_and_the_next_runs(simulate):
    simulator, wait = simulate(max_seconds=0.01)
    first = job(BELL)
    simulator.start(first)
    outcome = wait(first)
    assert (outcome.status, outcome.reason_code) == ("Failed", 9999)
    assert "took too long" in outcome.reason
    simulator._max_seconds = 600
    second = job(BELL)
    simulator.start(second)
    assert wait(second).status == "Completed"


def test_a_worker_that_dies_is_replaced(simulate):
    simulator, wait = simulate()
    simulator._workers[0]._process.kill()
    first, second = job(BELL), job(BELL)
    simulator.start(first)
    simulator.start(second)
    assert wait(first).reason_code == 9999
    assert wait(second).status == "Completed"


def test_the_same_seed_gives_the_same_results(simulate):
    simulator, wait = simulate(seed=3)
    first, second = job(BELL), job(BELL)
    simulator.start(first)
    simulator.start(second)
    assert wait(first).results == wait(second).results


def test_what_is_used_of_qiskit_is_there_and_its_absence_is_named():
    from airflow_provider_ibm_sessions.emulator.simulation import qiskit_internals

    assert "v2.0" in qiskit_internals.EXECUTOR_DECODERS
    with pytest.raises(ImportError, match=r"qiskit-ibm-runtime \d.* has no .*gone"):
        qiskit_internals._load("qiskit_ibm_runtime.utils.validations", "gone")
