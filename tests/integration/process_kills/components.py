# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow whose processes are found, killed as machines die, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Lock
from typing import Any

import httpx
import psutil

from testing.airflow_standalone import START_SECONDS, Airflow, free_ports, running_airflow, until

ROOT = Path(__file__).resolve().parents[3]
DAGS = Path(__file__).parent / "dags"
CONNECT_ARGS = "tests.integration.process_kills.database.CONNECT_ARGS"
TASK, EXECUTOR = "airflow worker -- ", "airflow worker -- LocalExecutor"
"""Airflow's titles of the process that runs a task (its id follows), and of its supervisor."""

WORKERS = "workers"
SETTINGS = {
    # After so many seconds without a heartbeat a worker is taken for lost. The default is 300.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # Not less: a scheduler that sqlite keeps waiting for longer takes itself for dead, its tasks for lost.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    # Less than a triggerer takes to start, so that it takes over what the killed one has left.
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "4",
    "AIRFLOW__CORE__PARALLELISM": "24",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "600",
    # On sqlite, a process that waits for a connection to spare may hold the lock that all others wait for.
    "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "50",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": CONNECT_ARGS,
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": CONNECT_ARGS,
    "PYTHONPATH": str(ROOT),
}


EXECUTION = ("api-server", "--apps", "execution", "--host", "127.0.0.1", "--port")
"""
Workers have an API server of their own, as in large installations.

On sqlite, Airflow 3.3.2's API server blocks itself when a user's request and a worker's meet: to log the
user's, it waits for the database in its event loop; the worker's has the database, and waits for the loop.
All of Airflow then waits until the database's time limit, and a scheduler that has waited that long ends.
"""


class Turns:
    """Lets callers go on one after the other, some seconds apart."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._last = 0.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn."""
        with self._lock:
            time.sleep(max(0.0, self._last + self._seconds - time.monotonic()))
            yield
            self._last = time.monotonic()


class Stopped(BaseException):
    """This Airflow is being stopped early, so there is nothing more to wait for."""


class Components:
    """The processes of a running Airflow."""

    def __init__(self, airflow: Airflow) -> None:
        self.airflow = airflow
        self.starts = Turns(2.0)
        """Of runs, which spreads the load."""
        self.losses = Turns(3.0)
        """Of workers: on sqlite, Airflow 3.3.2's scheduler locks itself out when it finds two at once."""
        self._writing = Lock()
        """One user at a time, see :data:`EXECUTION`."""
        self._started: list[subprocess.Popen[bytes]] = []
        self._stopped = Event()

    def pause(self, seconds: float) -> None:
        """
        Wait.

        :raises Stopped: If this Airflow is stopped meanwhile.
        """
        if self._stopped.wait(seconds):
            raise Stopped

    def kill_worker(self, ti_id: str) -> None:
        """Kill the task's process and its supervisor, as when their machine dies."""
        process = self._running(ti_id)
        watching = process.parent()
        assert watching is not None
        assert _title(watching).startswith(EXECUTOR)
        watching.kill()
        process.kill()

    def kill_task(self, ti_id: str) -> None:
        """Kill the task's process alone, as when the memory runs out."""
        self._running(ti_id).kill()

    def kill(self, *names: str) -> None:
        """Kill components: ``scheduler`` (its tasks go on), ``triggerer``, ``workers`` with their tasks."""
        doomed = [process for name in names for process in self._part(name)]
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def start(self, name: str, *arguments: str) -> None:
        """Start a component, in a session of its own, with a log of its own."""
        with (self.airflow.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", name, *arguments],
                env=self.airflow.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)

    def _part(self, name: str) -> list[psutil.Process]:
        if name == WORKERS:
            return [process for process in self._all() if _title(process).startswith(TASK)]
        found = [process for process in self._all() if _is_component(process, name)]
        if not found:
            raise LookupError(f"there is no {name}")
        return found + [child for each in found if name == "triggerer" for child in each.children()]

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run; returns its id."""
        run_id = f"kill-{conf['connection']}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        self._send("POST", f"/dags/{dag_id}/dagRuns", **body)
        return run_id

    def unpause(self, dag_ids: Iterable[str]) -> None:
        """Let these Dags run."""
        for dag_id in dag_ids:
            self._send("PATCH", f"/dags/{dag_id}", is_paused=False)

    def mark_failed(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Mark a task failed, as a user does by a click."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self._send("PATCH", path, new_state="failed")

    def mark_run_failed(self, dag_id: str, run_id: str) -> None:
        """Mark a run failed, as a user does by a click."""
        self._send("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", state="failed")

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task, as a user does by a click."""
        wanted = {"dag_run_id": run_id, "task_ids": [task_id], "dry_run": False, "only_failed": False}
        self._send("POST", f"/dags/{dag_id}/clearTaskInstances", **wanted)

    def stop(self) -> None:
        """Stop the processes that were started here, and all waiting for them."""
        self._stopped.set()
        for process in self._started:
            process.send_signal(signal.SIGINT)
        for process in self._started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)

    def end_the_rest(self) -> None:
        """Kill what is left: the executor's workers outlive a scheduler that was killed."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self._started:
            process.wait()

    def _send(self, method: str, path: str, **body: Any) -> None:
        """Send a request; repeat it if the database was locked, which undoes what was done."""
        url = f"{self.airflow.url}/api/v2{path}"
        for delay in (1, 3, None):
            with self._writing:
                response = self.airflow.http.request(method, url, json=body)
            if delay is None or not response.is_server_error:
                break
            time.sleep(delay)
        response.raise_for_status()

    def _running(self, ti_id: str) -> psutil.Process:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for process in self._all():
                if _title(process) == TASK + ti_id:
                    return process
            time.sleep(0.2)
        raise LookupError(f"no process runs {ti_id}")

    def _all(self) -> Iterator[psutil.Process]:
        """Yield all processes of this Airflow, also orphans: each that was started here leads a session."""
        leaders = {self.airflow.process.pid, *(process.pid for process in self._started)}
        for process in psutil.process_iter():
            with suppress(ProcessLookupError):
                if os.getsid(process.pid) in leaders:
                    yield process


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def _is_component(process: psutil.Process, name: str) -> bool:
    title = _title(process)
    if not (title.endswith(f" {name}") or title.startswith(f"airflow {name}")):
        return False
    parent = process.parent()
    return parent is None or not _is_component(parent, name)


@contextmanager
def whole_airflow(home: Path) -> Iterator[Components]:
    """Run an Airflow that detects within seconds that a process has died."""
    [port] = free_ports(1)
    url = f"http://localhost:{port}/execution/"
    environment = {**SETTINGS, "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url}
    with ExitStack() as stack, running_airflow(home, DAGS, environment) as airflow:
        components = Components(airflow)
        stack.callback(components.end_the_rest)  # after all else has ended
        try:
            components.start(*EXECUTION, str(port))
            until(lambda: _answers(url), START_SECONDS)
            yield components
        finally:
            components.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}health").is_success
    except httpx.HTTPError:
        return False
