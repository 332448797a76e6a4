# SPDX-License-Identifier: Apache-2.0
"""
Run Qiskit experiments through a whole Airflow, on an emulated QPU, and report what happened.

``python -m scripts.demo`` leaves nothing running. With ``--ui`` it runs every example Dag, opens the page of
IBM Quantum in Airflow's UI, and leaves Airflow and the emulator up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_ibm_sessions.cli.histogram import histogram
from airflow_provider_ibm_sessions.emulator.emulator import DEFAULT_PORT, Emulator, connection
from testing.airflow_standalone import FINAL_STATES, Airflow, running_airflow, until

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.emulator.service.records import JobRecord, SessionRecord

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".demo"
SWEEP = "ibm_quantum_qiskit_sweep"
LOOP = "ibm_quantum_variational_loop"
MONTH = "ibm_quantum_results_of_last_month"
"""Shows the results of another Dag, so it comes last."""
ON_QPU = "ibm_quantum_on_qpu_ready"
ON_JOB = "ibm_quantum_on_job_final"
EVENT_ASSETS = {ON_QPU: "ibm_fez_ready", ON_JOB: "nightly_job_final"}
"""The Dags that an event starts, and the assets whose watchers send it."""
EVENT_QPU = "ibm_fez"
CONNECTION = "ibm_quantum_default"
USD_PER_SECOND = 1.60  # Pay-As-You-Go: 96 USD a minute
ENDED = {*FINAL_STATES, "skipped", "upstream_failed", "closed", "Completed", "Failed", "Cancelled"}
RUN_SECONDS = 600.0
SILENCE_SECONDS = 7.0
STEPS_TO_SEE = 1000
"""Steps of the loop whose session stays open to be looked at: more than its max_ttl of 20 minutes allows."""


class Console:
    """Standard output that is never silent for long: it repeats what is being waited for."""

    def __init__(self) -> None:
        self._doing = ""
        self._since = self._last = time.monotonic()
        threading.Thread(target=self._tick, daemon=True).start()

    def say(self, text: str) -> None:
        """Print at once, also into a pipe."""
        self._last = time.monotonic()
        print(text, flush=True)

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Say again and again what is being waited for, while nothing else is printed."""
        outer = self._doing
        self._doing = what
        self._since = self._last = time.monotonic()
        try:
            yield
        finally:
            self._doing = outer
            self._since = self._last = time.monotonic()

    def _tick(self) -> None:
        while True:
            time.sleep(0.5)
            now = time.monotonic()
            if self._doing and now - self._last > SILENCE_SECONDS:
                self.say(f"  ... {self._doing} ({now - self._since:.0f} s)")


console = Console()
say = console.say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if the Dags succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ui", action="store_true", help="run all examples; leave Airflow up until Ctrl-C")
    options = parser.parse_args(arguments)
    say("Starting an emulator of IBM Quantum, and an Airflow with the example Dags ...")
    try:
        with Emulator(port=DEFAULT_PORT if options.ui and is_free(DEFAULT_PORT) else 0) as emulator:
            say(f"  The emulator is up: {emulator.iam_url}")
            states = run_all(emulator, ui=options.ui)
    except KeyboardInterrupt:
        say("\nStopped.")
        return 0 if options.ui else 130
    return 0 if set(states.values()) == {"success"} else 1


def is_free(port: int) -> bool:
    """Return True if nothing listens on this port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def run_all(emulator: Emulator, *, ui: bool) -> dict[str, str]:
    """Run the Dags in an Airflow of its own; return their states."""
    if ui:
        # Before a watcher looks, which Airflow may have kept from an earlier demo.
        emulator.settings.backends[EVENT_QPU].status = "paused"
    with console.waiting_for("Airflow is stopping"), ExitStack() as stack:
        with console.waiting_for("Airflow is starting"):
            airflow = stack.enter_context(running_airflow(HOME, ROOT / "example_dags", {}))
        say(f"  Airflow is up: {airflow.url}")
        fields = connection(emulator.port)
        extra = json.dumps({**fields.pop("extra"), "price_per_second": USD_PER_SECOND})
        airflow.put_connection({"connection_id": CONNECTION, **fields, "extra": extra})
        say(f"  The connection {CONNECTION} leads to the emulator")
        with console.waiting_for("Airflow is reading the example Dags"):
            airflow.wait_for_dags({SWEEP, LOOP, *EVENT_ASSETS})
        earlier = start_watchers(airflow, emulator) if ui else {}
        states = {SWEEP: run_sweep(airflow, emulator), LOOP: run_loop(airflow, emulator)}
        if ui:
            others = {dag["dag_id"] for dag in airflow.get("/dags")["dags"]} - {*states, *EVENT_ASSETS}
            for dag in sorted(others, key=lambda name: (name == MONTH, name)):
                states[dag] = run_dag(airflow, emulator, dag)[1]
            for dag, runs in earlier.items():
                states[dag] = follow_event_runs(airflow, emulator, dag, runs)
            stay(airflow, emulator, states)
        return states


def start_watchers(airflow: Airflow, emulator: Emulator) -> dict[str, set[str]]:
    """
    Unpause the Dags that events start, and make the first event: a paused QPU comes back online.

    :returns: The runs that each of these Dags has from an earlier demo.
    """
    earlier = {dag: runs_of(airflow, dag) for dag in EVENT_ASSETS}
    say(f"\nStarting the watchers of two Dags that events start; {EVENT_QPU} is paused until one has seen it")
    for dag in EVENT_ASSETS:
        airflow.unpause(dag)
        airflow.parse_again(dag)
    with console.waiting_for("the watchers are starting"):
        # What they store with their asset says what they have seen.
        until(lambda: {"ready": False} in airflow.asset_state(EVENT_ASSETS[ON_QPU]), RUN_SECONDS)
        until(lambda: airflow.asset_state(EVENT_ASSETS[ON_JOB]), RUN_SECONDS)
    emulator.settings.backends[EVENT_QPU].status = "online"
    say(f"  {EVENT_QPU} is back online: the watcher sees it within a minute or two, while other Dags run")
    return earlier


def runs_of(airflow: Airflow, dag: str) -> set[str]:
    """Return the ids of a Dag's last runs."""
    runs = airflow.get(f"/dags/{dag}/dagRuns", order_by="-run_after")["dag_runs"]
    return {run["dag_run_id"] for run in runs}


def follow_event_runs(airflow: Airflow, emulator: Emulator, dag: str, earlier: set[str]) -> str:
    """Follow the runs of a Dag that events have started, until they have ended; return their state."""
    say(f"\nAn event starts the Dag {dag} ...")
    with console.waiting_for("the watcher polls once a minute"), suppress(TimeoutError):
        until(lambda: runs_of(airflow, dag) - earlier, RUN_SECONDS)
    runs = runs_of(airflow, dag) - earlier
    states = {follow(airflow, emulator, dag, run_id) for run_id in sorted(runs)}
    return ", ".join(sorted(states)) or f"no event within {RUN_SECONDS:.0f} s"


def run_sweep(airflow: Airflow, emulator: Emulator) -> str:
    """Turn a qubit by growing angles, in a session of four tasks; show a histogram of each job."""
    run_id, state = run_dag(airflow, emulator, SWEEP)
    if state == "success":
        for point in airflow.xcom(SWEEP, run_id, "run_sweep"):
            ones = point["counts"].get("1", 0) / sum(point["counts"].values())
            say(f"\n  angle {point['angle']:.3f}: P(1) = {ones:.3f}, expected {expected(point['angle']):.3f}")
            for line in histogram(point["counts"]):
                say(f"    {line}")
        report_session(emulator, airflow.xcom(SWEEP, run_id, "create_session"))
    return state


def run_loop(airflow: Airflow, emulator: Emulator) -> str:
    """Look for the lowest energy in one task: each job depends on the one before."""
    run_id, state = run_dag(airflow, emulator, LOOP)
    if state == "success":
        found = airflow.xcom(LOOP, run_id, "minimise")
        say("")
        for step in found["path"]:
            say(f"  angle {step['angle']:6.3f}   energy {step['energy']:7.4f} +- {step['std']:.4f}")
        best = found["best"]
        say(
            f"  Lowest measured: {best['energy']:.3f} +- {best['std']:.3f}, which is the noise of a finite "
            f"number of shots; exactly: {-(5**0.5) / 2:.3f}"
        )
        report_session(emulator, airflow.xcom(LOOP, run_id, "minimise", "session")["id"])
    return state


def run_dag(airflow: Airflow, emulator: Emulator, dag: str) -> tuple[str, str]:
    """Trigger a Dag and follow its run."""
    say(f"\nRunning the Dag {dag} ...")
    run_id = airflow.trigger(dag, {})
    return run_id, follow(airflow, emulator, dag, run_id)


def follow(airflow: Airflow, emulator: Emulator, dag: str, run_id: str) -> str:
    """Print what happens in Airflow and in the emulator until a Dag run has ended; return its state."""
    news = News(emulator)
    began = time.monotonic()
    with console.waiting_for(f"{dag} is running"):
        while time.monotonic() - began < RUN_SECONDS:
            state = str(airflow.get(f"/dags/{dag}/dagRuns/{run_id}")["state"])
            tasks = airflow.get(f"/dags/{dag}/dagRuns/{run_id}/taskInstances")["task_instances"]
            for line in news.read(tasks):
                say(f"  {time.monotonic() - began:5.1f} s  {line}")
            if state in FINAL_STATES:
                say(f"  {time.monotonic() - began:5.1f} s  Dag run {run_id}: {state}")
                return state
            time.sleep(0.5)
    say(f"  The Dag run {run_id} has not ended after {RUN_SECONDS:.0f} s")
    return "running"


class News:
    """Report each change of a task, a session or a job once."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._seen: set[tuple[str, str]] = set()
        self.read([])

    def read(self, tasks: list[dict[str, Any]]) -> list[str]:
        """Return a line for each change since the last call; a task begins before its jobs and ends after."""
        service = self._emulator.service
        service.catch_up()
        with service.lock:
            sessions, jobs = list(service.scheduler.sessions.values()), list(service.scheduler.jobs.values())
        kinds = [
            [line for task in tasks if (line := self._task(task))],
            [line for session in sessions if (line := self._session(session))],
            [line for job in jobs if (line := self._job(job))],
        ]
        begun = [line for kind in kinds for line in kind if not has_ended(line)]
        return begun + [line for kind in reversed(kinds) for line in kind if has_ended(line)]

    def _task(self, task: dict[str, Any]) -> str | None:
        index = f" [{task['map_index']}]" if task["map_index"] >= 0 else ""
        wanted = task["state"] in {"running", "deferred", "up_for_retry", *FINAL_STATES, "upstream_failed"}
        return self._once(f"task {task['task_id']}{index}", task["state"]) if wanted else None

    def _session(self, session: SessionRecord) -> str | None:
        return self._once(
            f"    {'batch' if session.mode == 'batch' else 'session'} {session.id}", session.state
        )

    def _job(self, job: JobRecord) -> str | None:
        ran = "" if job.finished is None else f" after {job.ran(job.finished):.2f} s on the QPU"
        return self._once(f"    job {job.id}", f"{job.status}{ran}")

    def _once(self, what: str, state: str) -> str | None:
        if (what, state) in self._seen:
            return None
        self._seen.add((what, state))
        return f"{what}: {state}"


def has_ended(line: str) -> bool:
    """Return True if a line tells of the end of a task, a session or a job."""
    return line.rpartition(": ")[2].partition(" ")[0] in ENDED


def report_session(emulator: Emulator, session_id: str) -> None:
    """Print a session's states and bill, both by the emulator's record."""
    emulator.service.catch_up()
    session = emulator.service.scheduler.sessions[session_id]
    say(f"\n  Session {session.id} ({session.mode}, on {session.backend})")
    for state, since in session.transitions:
        say(f"    {state:8} {datetime.fromtimestamp(since, UTC):%H:%M:%S.%f}"[:-3])
    cost, limit = session.billed_seconds * USD_PER_SECOND, session.max_ttl * USD_PER_SECOND
    say(f"    billed   {session.billed_seconds:.2f} s, from the first job's start to the end of the last")
    say(f"    On the Pay-As-You-Go plan it would have cost {cost:.2f} USD; max_ttl allows {limit:,.0f} USD.")


def has_display() -> bool:
    """Return True if a browser can be opened: not over SSH, and not in a container."""
    on_x = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return on_x or (sys.platform in ("darwin", "win32") and "SSH_CONNECTION" not in os.environ)


def expected(angle: float) -> float:
    """Return the probability of reading 1 after turning a qubit by ``angle``."""
    from math import sin

    return float(sin(angle / 2) ** 2)


def stay(airflow: Airflow, emulator: Emulator, states: dict[str, str]) -> NoReturn:
    """Leave everything up for a person with a browser."""
    say("\nThe example Dags:")
    for dag, state in states.items():
        say(f"  {dag:36} {state}")
    airflow.trigger(LOOP, {"steps": STEPS_TO_SEE})
    page = f"{airflow.url}/plugin/ibm-quantum"
    say(f"\nPage:     {page}   (open and past sessions, and what they cost)")
    say(f"Airflow:  {airflow.url}   user: admin   password: {airflow.password}")
    say(f"Emulator: {emulator.iam_url}   (its sessions, jobs and results)")
    say(f"{LOOP} runs on for up to 20 minutes: see on the page what its session costs, and end it there.")
    say("Trigger what you like. Ctrl-C stops everything.")
    if has_display():
        webbrowser.open(page)
    with console.waiting_for(""):
        while True:
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
