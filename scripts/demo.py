# SPDX-License-Identifier: Apache-2.0
"""
Run two Qiskit examples through a whole Airflow, on an emulated QPU, and report what happened.

``python -m scripts.demo`` leaves nothing running; with ``--ui`` Airflow stays up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx

from testing.airflow_standalone import Airflow, running_airflow
from testing.localqpu import LocalQPU, running_localqpu

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".demo"
SWEEP = "ibm_quantum_qiskit_sweep"
LOOP = "ibm_quantum_variational_loop"
CONNECTION = "ibm_quantum_default"
USD_PER_SECOND = 1.60  # Pay-As-You-Go: 96 USD a minute


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if the Dags succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ui", action="store_true", help="leave Airflow running until Ctrl-C")
    options = parser.parse_args(arguments)
    say("Starting localqpu (an emulated QPU) and Airflow; this takes about half a minute ...")
    try:
        with running_localqpu() as qpu, running_airflow(HOME, ROOT / "example_dags", {}) as airflow:
            connect(airflow, qpu)
            airflow.wait_for_dags({SWEEP, LOOP})
            states = {run_sweep(airflow, qpu), run_loop(airflow, qpu)}
            if options.ui:
                stay(airflow)
    except KeyboardInterrupt:
        say("\nStopped.")
        return 0 if options.ui else 130
    return 0 if states == {"success"} else 1


def connect(airflow: Airflow, qpu: LocalQPU) -> None:
    """Store the connection in Airflow, as a person does in its UI."""
    fields = json.loads(qpu.connection)
    airflow.put_connection(
        {"connection_id": CONNECTION, **fields, "extra": json.dumps(fields["extra"])},
    )


def run_sweep(airflow: Airflow, qpu: LocalQPU) -> str:
    """Run a parameter sweep in a session of four tasks."""
    run_id, state = run_dag(airflow, SWEEP, qpu)
    if state == "success":
        report(airflow.xcom(SWEEP, run_id, "close_session"), airflow.xcom(SWEEP, run_id, "run_sweep"), qpu)
    return state


def run_loop(airflow: Airflow, qpu: LocalQPU) -> str:
    """Run a variational loop in one task: each job depends on the previous one."""
    run_id, state = run_dag(airflow, LOOP, qpu)
    if state == "success":
        found = airflow.xcom(LOOP, run_id, "minimise")
        for step in found["path"]:
            say(f"  angle {step['angle']:6.3f}   energy {step['energy']:7.4f}")
        say(f"  best: {found['best']['energy']:.4f}; the lowest there is: {-(5**0.5) / 2:.4f}")
    return state


def run_dag(airflow: Airflow, dag: str, qpu: LocalQPU) -> tuple[str, str]:
    """Trigger a Dag, wait for it, and print its tasks; return the run's id and state."""
    say(f"\nRunning the Dag {dag} ...")
    run_id = airflow.trigger(dag, {"backend": qpu.backend})
    state = airflow.wait_for_run(dag, run_id, seconds=300)
    say(f"Dag run {run_id}: {state}")
    for task_id, task in sorted(
        airflow.tasks(dag, run_id).items(), key=lambda item: item[1]["start_date"] or ""
    ):
        say(f"  {task_id:16} {task['state']:10} {task['duration'] or 0:6.1f} s")
    return run_id, state


def report(session: dict[str, Any], points: list[dict[str, Any]], qpu: LocalQPU) -> None:
    """Print the session, its states, its jobs and what they would have cost."""
    ends = [finished(qpu, point["job_id"]) for point in points]
    states = [("open", "started_at"), ("active", "activated_at"), ("closed", "closed_at")]
    say(f"\nSession {session['id']} ({session['mode']}, on {session['backend_name']})")
    for state, field in states:
        say(f"  {state:8} {when(session[field]):%H:%M:%S.%f}"[:-3])
    say(f"  max_ttl  {session['max_ttl']} s from the first job's start: the limit of the bill")
    say(f"\n{'angle':>7}  {'P(1)':>6}  {'expected':>8}  {'job':24} counts")
    for point in points:
        angle, job, counts = point["angle"], point["job_id"], point["counts"]
        ones = counts.get("1", 0) / sum(counts.values())
        say(f"{angle:7.3f}  {ones:6.3f}  {expected(angle):8.3f}  {job:24} {counts}")
    billed = (max(*ends, when(session["closed_at"])) - when(session["activated_at"])).total_seconds()
    say(f"\nActive for {billed:.2f} s: {billed * USD_PER_SECOND:.2f} USD on the Pay-As-You-Go plan of IBM.")


def expected(angle: float) -> float:
    """Return the probability of reading 1 after turning a qubit by ``angle``."""
    from math import sin

    return sin(angle / 2) ** 2


def finished(qpu: LocalQPU, job_id: str) -> datetime:
    """Return the time when a job ended, by the emulator's own record."""
    metrics = httpx.get(f"{qpu.root}/api/v1/jobs/{job_id}/metrics").raise_for_status().json()
    return when(metrics["timestamps"]["finished"])


def when(text: str) -> datetime:
    """Parse a time as IBM writes it."""
    return datetime.fromisoformat(text)


def stay(airflow: Airflow) -> NoReturn:
    """Leave everything up for a person with a browser."""
    say(f"\nAirflow's UI: {airflow.url}   user: admin   password: {airflow.password}")
    say("The connection is under Admin > Connections; the Dags are ready to run. Ctrl-C stops everything.")
    while True:
        time.sleep(1)


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
