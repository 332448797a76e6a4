# SPDX-License-Identifier: Apache-2.0
"""Airflow with PostgreSQL, Redis and CeleryExecutor, and two of each of its parts."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from testing.airflow_standalone import Airflow, free_ports, until
from testing.connections import connection_to
from testing.fake_ibm import FakeIBM
from testing.subprocesses import ROOT
from tests.integration.cluster.installed import Programs
from tests.integration.cluster.servers import redis_says, start_postgres, start_redis
from tests.integration.cluster.supervisor import Component, Supervisor

DAGS = Path(__file__).parent / "dags"
API_SERVER, DAG_PROCESSOR = "api-server", "dag-processor"
SCHEDULERS = ("scheduler-1", "scheduler-2")
TRIGGERERS = ("triggerer-1", "triggerer-2")
WORKERS = ("worker-1", "worker-2")
SLOTS = 7
"""Tasks that a worker runs at once."""

SETTINGS = {
    # What is lost is noticed in seconds. Defaults: 300, 10, 300, 30.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
    # What Redis has lost is queued again. So is a task that has waited as long for a busy worker: by default
    # it would be failed at the third time. The scheduler stands still meanwhile, so it is not to be often.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "15",
    "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "50",
    # Longer than any task runs.
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "600",
    "AIRFLOW__CELERY__OPERATION_TIMEOUT": "10",
    "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(SLOTS),
    # Thirty processes with several threads each: glibc would keep memory free for each thread.
    "MALLOC_ARENA_MAX": "2",
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__PARALLELISM": "100",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "100",
    "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "100",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1200",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1200",
    "AIRFLOW__API__WORKERS": "2",
    "AIRFLOW__API__HOST": "127.0.0.1",
    "PYTHONPATH": str(ROOT),
}

_PARTS = {"SchedulerJob": 2, "TriggererJob": 2, "DagProcessorJob": 1}
_START_SECONDS, _MIGRATION_SECONDS = 300.0, 180.0
_NOT_INHERITED = ("AIRFLOW", "IBM_", "PYTHONDONTWRITEBYTECODE")
"""Beginnings of variables of this process that would change the cluster, or slow it down."""


class Cluster:
    """A running cluster, and what its users and its machines do."""

    def __init__(self, airflow: Airflow, supervisor: Supervisor, programs: Programs, redis_port: int) -> None:
        self.airflow = airflow
        self.supervisor = supervisor
        self._programs = programs
        self._redis_port = redis_port

    def connect(self, conn_id: str, ibm: FakeIBM) -> None:
        """Store a connection to the fake in Airflow's database."""
        connection = json.loads(connection_to(ibm))
        connection["extra"] = json.dumps(connection["extra"])
        self.airflow.put_connection({"connection_id": conn_id, **connection})

    def start_runs(self, dag_id: str, count: int) -> None:
        """Start runs of a Dag."""
        for _ in range(count):
            self.airflow.trigger(dag_id, {})

    def run_states(self, dag_ids: Iterable[str]) -> list[str]:
        """Return the states of all runs of some Dags."""
        found = [self.airflow.get(f"/dags/{dag_id}/dagRuns", limit=100)["dag_runs"] for dag_id in dag_ids]
        return [run["state"] for runs in found for run in runs]

    def waits(self, dag_ids: Collection[str]) -> list[int | None]:
        """Return the triggerers of the deferred tasks of some Dags; None where there is none yet."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.airflow.get(
                "/dags/~/dagRuns/~/taskInstances", state="deferred", limit=100, offset=len(found)
            )
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                break
        of_dags = [task for task in found if task["dag_id"] in dag_ids]
        return [(task["trigger"] or {}).get("triggerer_id") for task in of_dags]

    def mark_runs_failed(self, dag_ids: Iterable[str]) -> None:
        """Mark all runs of some Dags failed, as a user does by a click on each."""
        for dag_id in dag_ids:
            for run in self.airflow.get(f"/dags/{dag_id}/dagRuns", limit=100)["dag_runs"]:
                path = f"{self.airflow.url}/api/v2/dags/{dag_id}/dagRuns/{run['dag_run_id']}"
                self.airflow.http.patch(path, json={"state": "failed"}).raise_for_status()

    def flush_redis(self) -> None:
        """Let Redis lose all that is queued."""
        redis_says(self._programs, self._redis_port, "flushall")

    def is_answering(self) -> bool:
        """Return True if the API server answers."""
        return self.airflow.http.get(f"{self.airflow.url}/api/v2/monitor/health").is_success

    def is_whole(self) -> bool:
        """Return True if all parts have started: on a busy machine not all are ever in time at once."""
        try:
            if "Authorization" not in self.airflow.http.headers:
                self.airflow.log_in()
            for kind, count in _PARTS.items():
                if self.airflow.get("/jobs", job_type=kind)["total_entries"] < count:
                    return False
        except (httpx.HTTPError, FileNotFoundError, ValueError):
            return False
        return True


@contextmanager
def running_cluster(
    programs: Programs, home: Path, *, everywhere: Mapping[str, str], on_workers: Mapping[str, str]
) -> Iterator[Cluster]:
    """
    Start a cluster, and end all its processes.

    :param home: Directory for all that is written, the logs among it.
    :param everywhere: More environment variables of Airflow's processes.
    :param on_workers: Those of the workers alone.
    """
    supervisor = Supervisor()
    watching = threading.Thread(target=supervisor.run, daemon=True)
    try:
        database = start_postgres(programs, home, supervisor)
        redis_port = start_redis(programs, home, supervisor)
        [port] = free_ports(1)
        environment = {**_environment(home, database, redis_port, port), **everywhere}
        airflow = [str(programs.python), "-m", "airflow"]
        _migrate(airflow, environment, home)
        watching.start()
        started = {}
        for name in (API_SERVER, DAG_PROCESSOR, *SCHEDULERS, *TRIGGERERS, *WORKERS):
            own = on_workers if name in WORKERS else {}
            command, variables = [*airflow, *_arguments(name)], {**environment, **own}
            started[name] = supervisor.add(Component(name, command, variables, home / f"{name}.log"))
        api = Airflow(f"http://127.0.0.1:{port}", home, started[API_SERVER])
        cluster = Cluster(api, supervisor, programs, redis_port)
        until(cluster.is_whole, _START_SECONDS)
        yield cluster
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # an impatient user is not to leave a cluster behind
            signal.signal(number, signal.SIG_IGN)
        supervisor.stop()


def _arguments(name: str) -> list[str]:
    if name in WORKERS:
        # Two on one machine: each needs a name of its own, and neither the port of the other for its logs.
        own = ["--celery-hostname", f"{name}@loopback", "--without-gossip", "--without-mingle"]
        return ["celery", "worker", "--skip-serve-logs", *own]
    kind = name.rsplit("-", 1)[0] if name in (*SCHEDULERS, *TRIGGERERS) else name
    return [kind] if kind in (API_SERVER, DAG_PROCESSOR) else [kind, "--skip-serve-logs"]


def _environment(home: Path, database: str, redis_port: int, port: int) -> dict[str, str]:
    """Return the environment of Airflow's processes. The secrets have to be the same in all."""
    url = f"postgresql+psycopg2://{database}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return {
        **inherited,
        **SETTINGS,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{url}",
        "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{redis_port}/0",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
    }


def _migrate(airflow: list[str], environment: Mapping[str, str], home: Path) -> None:
    with (home / "migrate.log").open("wb") as log:
        subprocess.run(
            [*airflow, "db", "migrate"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=_MIGRATION_SECONDS,
            check=True,
        )
