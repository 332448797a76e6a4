# SPDX-License-Identifier: Apache-2.0
"""Runs the candidates one after the other and prints the table: ``python -m benchmarks idle`` starts this."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.idle import QUEUE_SECONDS
from benchmarks.idle.candidates import ALL, DECORATOR, OURS, PYTHON, Candidate, connections
from benchmarks.idle.experiment import HTTP_POLL_SECONDS, JOB_SECONDS, JOBS, LANES, LATENCY
from benchmarks.idle.metrics import paid_idle, slot_seconds
from benchmarks.idle.processes import Memory, Watch
from testing.airflow_standalone import Airflow, running_airflow
from testing.subprocesses import ROOT, Server, serving
from testing.tables import table, target

HOME = ROOT / ".bench" / "idle"
DAGS = Path(__file__).parent / "dags"
MAX_IDLE, MAX_SHARE = 0.1, 1 / 10
_SLACK_SECONDS = 300


@dataclass
class Figures:
    """The measurements of one candidate."""

    candidate: Candidate
    idle: float
    slot: float
    memory: Memory
    requests: int
    wall: float


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--queue", type=float, default=QUEUE_SECONDS, help="seconds that jobs are queued")
    names = [each.dag_id for each in ALL]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="candidates")
    options = parser.parse_args()
    chosen = [each for each in ALL if each.dag_id in options.only]
    explain(options.queue)
    show(measure(chosen, options.queue))


def measure(candidates: Sequence[Candidate], queue: float) -> list[Figures]:
    """Start a service for each, one Airflow for all, and let them run one after the other."""
    shutil.rmtree(HOME, ignore_errors=True)
    with ExitStack() as stack:
        servers = {
            each: stack.enter_context(serving("benchmarks.idle.service", str(queue))) for each in candidates
        }
        environment = {"PYTHONPATH": str(ROOT)}
        for candidate, server in servers.items():
            environment |= connections(candidate, server.about)
        airflow = stack.enter_context(running_airflow(HOME, DAGS, environment))
        airflow.wait_for_dags({each.dag_id for each in candidates})
        return [run_one(airflow, each, server, queue) for each, server in servers.items()]


def run_one(airflow: Airflow, candidate: Candidate, server: Server, queue: float) -> Figures:
    """Run one candidate's Dag, and read what it cost."""
    with Watch(airflow.process.pid).watching() as watch:
        run_id = airflow.trigger(candidate.dag_id, {})
        state = airflow.wait_for_run(candidate.dag_id, run_id, queue + _SLACK_SECONDS)
    recorded = server.stop()
    (HOME / f"{candidate.dag_id}.json").write_text(json.dumps(recorded), encoding="utf-8")
    check(candidate, state, recorded)
    run = airflow.get(f"/dags/{candidate.dag_id}/dagRuns/{run_id}")
    events = airflow.get("/eventLogs", dag_id=candidate.dag_id, run_id=run_id, limit=1000)["event_logs"]
    return Figures(
        candidate,
        idle=paid_idle(recorded),
        slot=slot_seconds(events),
        memory=waiting_memory(airflow, candidate, run_id, watch),
        requests=sum(recorded["requests"].values()),
        wall=run["duration"],
    )


def check(candidate: Candidate, state: str, recorded: dict[str, Any]) -> None:
    """Raise an error unless everything went well: else the figures mean nothing."""
    jobs = recorded["jobs"]
    if state != "success" or jobs != {"Completed": JOBS} or recorded["sessions"] != {"closed": 1}:
        raise RuntimeError(
            f"{candidate.dag_id}: {state}, {jobs}, {recorded['sessions']}; see .bench/{HOME.name}"
        )


def waiting_memory(airflow: Airflow, candidate: Candidate, run_id: str, watch: Watch) -> Memory:
    """Return the memory of the process that waited."""
    if candidate.waits is None:
        return watch.triggerer
    waited = airflow.tasks(candidate.dag_id, run_id)[candidate.waits]
    return watch.tasks.get(waited["id"], Memory())


def explain(queue: float) -> None:
    """Print what is measured, and how."""
    print(
        f"Airflow {version('apache-airflow')}, HTTP provider {version('apache-airflow-providers-http')}, "
        f"qiskit-ibm-runtime {version('qiskit-ibm-runtime')}.\n"
        f"{JOBS} independent jobs of {JOB_SECONDS:g} s, {LANES} at a time, after {queue:g} s in the queue. "
        f"Time is real; each response takes {LATENCY:g} s.\n"
    )


def show(figures: Sequence[Figures]) -> None:
    """Print the table and the targets."""
    table(
        ("", "paid idle s", "worker-slot s", "peak RSS, MB", "of it its own", "requests", "whole run, s"),
        [
            (
                each.candidate.label,
                f"{each.idle:.2f}",
                each.slot,
                _mb(each.memory.resident),
                _mb(each.memory.own),
                each.requests,
                each.wall,
            )
            for each in figures
        ],
    )
    print(_NOTES)
    targets({each.candidate: each for each in figures})


def _mb(size: float) -> str:
    return f"{size:.0f}" if size else "not seen"


def targets(figures: dict[Candidate, Figures]) -> None:
    """Print the targets of the run-jobs operator and of the decorator."""
    for candidate in (OURS, DECORATOR):
        if not {candidate, PYTHON} <= set(figures):
            continue
        ours, label = figures[candidate], candidate.label
        share = ours.slot / figures[PYTHON].slot
        target(
            f"{label}: at most {MAX_IDLE:g} paid idle seconds", f"{ours.idle:.3f}", met=ours.idle <= MAX_IDLE
        )
        target(
            f"{label}: at most {MAX_SHARE:g} of the PythonOperator's worker-slot seconds",
            f"{share:.3f}",
            met=share <= MAX_SHARE,
        )


_NOTES = f"""
Paid idle: what the service billed, less the time in which a job ran, by the service's own clock.
Worker slot: from each "running" in Airflow's event log to the end or deferral after it, all tasks and tries.
Memory: of the process that waits, looked at 4 times a second. The first three wait in the triggerer, which
all triggers share and which is there anyway; the others in a task's own process. Its own: shared with none.
Requests: all that the service received, for tokens as well. Those with several tasks read no results.
Polls: Qiskit's every 0.1 s, ours every 10 s, HttpSensor's here every {HTTP_POLL_SECONDS} s (its default: 60).
Its idle time is up to one interval, as chance has it, and the start of one more task.
"""


if __name__ == "__main__":
    main()
