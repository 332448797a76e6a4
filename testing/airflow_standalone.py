# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow on loopback (scheduler, Dag processor, triggerer, API server), for demo and tests."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

FINAL_STATES = {"success", "failed"}
START_SECONDS = 180.0
STOP_SECONDS = 30.0
PASSWORD_FILE = "simple_auth_manager_passwords.json.generated"


@dataclass
class Airflow:
    """A running ``airflow standalone``, and its public REST API."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=120))
    environment: Mapping[str, str] = field(default_factory=dict)
    """The environment of its processes, for further ones."""
    triggerer: subprocess.Popen[bytes] | None = None
    """The one that has replaced standalone's own."""

    @property
    def password(self) -> str:
        """Return the generated password of the user ``admin``."""
        return json.loads((self.home / PASSWORD_FILE).read_text())["admin"]

    def get(self, path: str, **params: Any) -> Any:
        """Send a GET request to the REST API."""
        return self._json("GET", path, params=params)

    def put_connection(self, connection: Mapping[str, Any]) -> None:
        """Store a connection, and replace one with the same id."""
        self.http.delete(f"{self.url}/api/v2/connections/{connection['connection_id']}")
        self._json("POST", "/connections", json=dict(connection))

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Unpause a Dag and start a run of it; return the run's id."""
        self.unpause(dag_id)
        run = self._json("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": dict(conf)})
        return run["dag_run_id"]

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler start runs of a Dag."""
        self._json("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def parse_again(self, dag_id: str) -> None:
        """Let the Dag processor read a Dag's file at once, and not only when its turn comes."""
        token = self.get(f"/dags/{dag_id}")["file_token"]
        response = self.http.put(f"{self.url}/api/v2/parseDagFile/{token}")
        if response.status_code != 409:  # it was asked for already
            response.raise_for_status()

    def asset_state(self, name: str) -> list[Any]:
        """Return what the watchers of an asset have stored with it."""
        [asset] = self.get("/assets", name_pattern=name)["assets"]
        return [each["value"] for each in self.get(f"/assets/{asset['id']}/state-store")["asset_state_store"]]

    @contextmanager
    def without_triggerer(self) -> Iterator[None]:
        """Stop the triggerer as on an upgrade, and start another one when the block has ended."""
        [running] = [
            child
            for child in psutil.Process(self.process.pid).children()
            if child.cmdline()[-1:] == ["triggerer"] or "airflow triggerer" in " ".join(child.cmdline())
        ]
        running.terminate()
        until(lambda: has_ended(running), START_SECONDS)
        yield
        with (self.home / "triggerer.log").open("wb") as log:
            self.triggerer = subprocess.Popen(
                [sys.executable, "-m", "airflow", "triggerer"],
                env=dict(self.environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for_dags(self, dag_ids: set[str], seconds: float = 120.0) -> None:
        """Wait until the Dag processor has written these Dags."""
        until(lambda: dag_ids <= {dag["dag_id"] for dag in self.get("/dags")["dags"]}, seconds)

    def wait_for_run(self, dag_id: str, run_id: str, seconds: float) -> str:
        """Wait for the end of a run; return its state."""
        state = until(
            lambda: (s := self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"]) in FINAL_STATES and s,
            seconds,
        )
        return str(state)

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a run, by task id."""
        found = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in found}

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom, decoded."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.get(path, deserialize=False)["value"]

    def log_in(self) -> None:
        """Get a token for Airflow's API."""
        credentials = {"username": "admin", "password": self.password}
        token = self.http.post(f"{self.url}/auth/token", json=credentials).raise_for_status().json()
        self.http.headers["Authorization"] = f"Bearer {token['access_token']}"

    def _json(self, method: str, path: str, **kwargs: Any) -> Any:
        return self.http.request(method, f"{self.url}/api/v2{path}", **kwargs).raise_for_status().json()


@contextmanager
def running_airflow(home: Path, dags: Path, environment: Mapping[str, str]) -> Iterator[Airflow]:
    """
    Start ``airflow standalone`` on free ports and stop it, with all its processes, at the end.

    :param home: ``AIRFLOW_HOME``; made if it does not exist. The log is ``standalone.log`` in it.
    :param dags: Folder of the Dags.
    :param environment: More environment variables, such as the connection.
    """
    home.mkdir(parents=True, exist_ok=True)
    handle_signals_alike()
    port, *log_ports = free_ports(3)
    env = {**os.environ, **settings(home, dags, port, log_ports), **environment}
    # standalone starts `airflow` by name.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    with (home / "standalone.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        airflow = Airflow(f"http://localhost:{port}", home, process, environment=env)
        try:
            until(lambda: is_healthy(airflow), START_SECONDS)
            airflow.log_in()
            yield airflow
        finally:
            airflow.http.close()
            stop(process)
            if airflow.triggerer is not None:
                stop(airflow.triggerer)


def settings(home: Path, dags: Path, port: int, log_ports: list[int]) -> dict[str, str]:
    """Return Airflow's configuration, as environment variables."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://localhost:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_ports[0]),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(log_ports[1]),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    }


def is_healthy(airflow: Airflow) -> bool:
    """Return True if all four components report health."""
    if airflow.process.poll() is not None:
        log = (airflow.home / "standalone.log").read_text(errors="replace")
        raise RuntimeError(f"airflow standalone ended:\n{log[-3000:]}")
    try:
        health = airflow.http.get(f"{airflow.url}/api/v2/monitor/health").json()
    except (httpx.HTTPError, ValueError):
        return False
    parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
    return all((health.get(part) or {}).get("status") == "healthy" for part in parts)


def handle_signals_alike() -> None:
    """
    Raise KeyboardInterrupt on SIGINT and on SIGTERM, so that all that was started is stopped.

    A shell's background jobs ignore SIGINT, and their children inherit that; this handles it again.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def has_ended(process: psutil.Process) -> bool:
    """Return True if a process has ended, also if its parent has not noticed yet, as standalone does not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt standalone, which ends its children; kill the rest of its process group."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(condition: Any, seconds: float) -> Any:
    """Wait until the condition returns something true, asking every half a second; return that."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.5)
    return result


def free_ports(count: int) -> list[int]:
    """
    Return ports on loopback that no process uses now.

    They lie below those that the kernel gives to other processes, none of which so gets a port between this
    call and the use of it.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports
