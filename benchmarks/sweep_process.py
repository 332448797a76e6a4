# SPDX-License-Identifier: Apache-2.0
"""
The process that is measured: an Airflow with a database of its own, in which sessions are swept.

The connection and the ids of the sessions come as JSON on standard input. Prints JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from testing.airflow_home import AIRFLOW_HOME  # before everything that imports Airflow

DAGS, RUNS = 4, 5
"""The sessions belong to so many Dags with so many runs each."""

SAMPLE = 100
"""How many are looked at one by one; the figures are scaled to all."""


class Meter:
    """Counts requests to Airflow's API and to IBM."""

    def __init__(self, url: str) -> None:
        from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms

        self._url = url
        self._calls = 0
        send = InProcessSupervisorComms.send

        def count(comms: Any, msg: Any) -> Any:
            self._calls += type(msg).__name__ != "MaskSecret"
            return send(comms, msg)

        InProcessSupervisorComms.send = count  # type: ignore[method-assign]

    def measure(self, work: Callable[[], object]) -> dict[str, float]:
        """Return the seconds that the work takes, and how many requests it makes."""
        calls, requests, started = self._calls, self._requests(), time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "ibm": self._requests() - requests,
            "airflow": self._calls - calls,
        }

    def _requests(self) -> int:
        import httpx

        return sum(httpx.get(f"{self._url}/_fake/state").json()["requests"].values())


def main(connection: str, sessions: Sequence[str]) -> dict[str, Any]:
    """Register the sessions, and look at each; return the figures."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    os.environ["AIRFLOW_CONN_IBM_QUANTUM_DEFAULT"] = connection

    from airflow.sdk import DAG, task

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from airflow_provider_ibm_sessions.lifecycle.sweep import SessionSweeper
    from airflow_provider_ibm_sessions.lifecycle.sweep_decision import SweepScope
    from testing.airflow_runs import serialize

    register(sessions)
    meter = Meter(json.loads(connection)["extra"]["iam_url"])
    figures: dict[str, Any] = {}

    def each() -> None:
        hook = IBMQuantumHook()
        for session_id in sessions[:SAMPLE]:
            owner = hook.registry.get_owner(session_id)
            if owner and owner in hook.registry.find_active([owner]).active:
                hook.get_session(session_id)

    def sweep() -> None:
        found, errors = SessionSweeper(IBMQuantumHook(), scope=SweepScope.AIRFLOW, min_age=1).run(
            dry_run=False
        )
        if errors or {str(record.decision) for record in found} != {"belongs to an active run"}:
            raise RuntimeError(f"not all sessions are taken for active: {errors}")

    with DAG("measured", schedule=None, default_args={"retries": 0}) as dag:

        @task
        def measure() -> None:
            figures.update((name, meter.measure(work)) for name, work in kinds.items())

        measure()

    kinds = {"each": each, "first": sweep, "later": sweep}
    serialize(dag)
    if str(dag.test().state) != "success":
        raise RuntimeError("the sweep has failed; see its log")
    scale = len(sessions) / len(sessions[:SAMPLE])
    return {**figures, "each": {name: figure * scale for name, figure in figures["each"].items()}}


def register(sessions: Sequence[str]) -> None:
    """Write the Dag runs and the entries of the sessions into Airflow's database."""
    from airflow.models.dagrun import DagRun
    from airflow.models.variable import Variable
    from airflow.sdk import DAG, timezone
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import update

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
    from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX
    from testing.airflow_runs import create_dag_run, serialize

    places = [(f"dag_{dag}", f"run_{run}") for dag in range(DAGS) for run in range(RUNS)]
    for dag_id in dict.fromkeys(dag_id for dag_id, _ in places):
        dag = DAG(dag_id, schedule=None)
        serialize(dag)
        for run in range(RUNS):
            # Of two runs with the same logical date, Airflow would keep one.
            create_dag_run(dag, f"run_{run}", timezone.utcnow() - timedelta(days=run))
    key = IBMQuantumHook().credentials.api_key.reveal()
    with create_session() as session:
        session.execute(update(DagRun).values(state=DagRunState.RUNNING))
        for number, session_id in enumerate(sessions):
            dag_id, run_id = places[number % len(places)]
            owner = SessionOwner(
                "ibm_quantum_default", dag_id, run_id, f"task_{number}", -1, True, time.time(), 1
            )
            session.add(Variable(PREFIX + session_id, owner.signed(session_id, key).to_json()))


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    try:
        print(json.dumps(main(asked["connection"], asked["sessions"])))
    finally:
        shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)
