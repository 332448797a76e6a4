# SPDX-License-Identifier: Apache-2.0
"""The Dags: what a user does with a session, from opening it to closing it in a teardown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator, IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from airflow_provider_ibm_sessions.operators.sweep import IBMQuantumSweepSessionsOperator
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor

from .airflow_stub import DagRun

BACKEND = "ibm_fez"
POLL = 0.03
JOB: dict[str, Any] = {"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0;"]]}}


@dataclass(frozen=True)
class Scenario:
    """
    The tasks of a Dag. Its session is opened first, and closed last.

    :param completes: False if the jobs stay in the queue, so that the tasks run into their timeouts.
    """

    creates: bool = True
    waits_for_job: bool = False
    watches: bool = False
    sweeps: bool = False
    drains: bool = False
    completes: bool = True


SCENARIOS = {
    "close hard": Scenario(waits_for_job=True),
    "watch": Scenario(watches=True),
    "sweep": Scenario(sweeps=True),
    "drain": Scenario(drains=True),
    "drain too slow": Scenario(drains=True, completes=False),
    "run jobs": Scenario(creates=False),
    "run jobs too slow": Scenario(creates=False, completes=False),
}


@dataclass(frozen=True)
class Waiting:
    """The connection of the tasks, and how and for how many seconds they wait."""

    conn_id: str
    deferred: bool
    timeout: float


def orphan(conn_id: str) -> str:
    """Open a session in a run that then ends without closing it; return the session's id."""
    ended = DagRun("faults", "ended")
    ended.run("create", lambda: _creator("create", conn_id))
    ended.is_over = True
    return str(ended.tasks["create"].result)


def _creator(task_id: str, conn_id: str) -> IBMQuantumCreateSessionOperator:
    return IBMQuantumCreateSessionOperator(
        task_id=task_id, ibm_quantum_conn_id=conn_id, backend=BACKEND, max_ttl=3600
    )


def sweep(conn_id: str) -> DagRun:
    """Run the Dag that closes orphaned sessions, also recent ones, since no time passes here."""
    swept = DagRun("sweep", "sweep")
    swept.run("sweep", lambda: _sweeper(conn_id, min_age=0))
    return swept


def _sweeper(conn_id: str, min_age: int = 60) -> IBMQuantumSweepSessionsOperator:
    operator = IBMQuantumSweepSessionsOperator(
        task_id="sweep", ibm_quantum_conn_id=conn_id, dry_run=False, min_age=max(min_age, 1)
    )
    operator.min_age = min_age
    return operator


class ScenarioRun:
    """A run of the scenario's Dag. ``before`` is called with the name of each task before it starts."""

    def __init__(
        self,
        scenario: Scenario,
        waiting: Waiting,
        run_id: str,
        before: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.scenario, self.waiting = scenario, waiting
        self.dag_run = DagRun("faults", run_id)
        self._before = before

    @property
    def tasks(self) -> dict[str, Any]:
        return self.dag_run.tasks

    def start(self) -> None:
        """Run the tasks up to where the session is open and has its job."""
        if not self.scenario.creates:
            return
        self._run("create", self._create)
        if self.tasks["create"].succeeded:
            self._run("job", self._job)

    def finish(self) -> None:
        """Run the other tasks. The teardown runs if its setup has succeeded, whatever else has failed."""
        self._finish()
        self.dag_run.is_over = True

    def _finish(self) -> None:
        if not self.scenario.creates:
            self._run("run", self._run_jobs)
            return
        if self.scenario.sweeps and self.dag_run.succeeded:
            self._run("sweep", lambda: _sweeper(self.waiting.conn_id))
        if self.scenario.watches and self.dag_run.succeeded:
            self._watch()
        if self.tasks["create"].succeeded:
            self._run("close", self._close)

    def _watch(self) -> None:
        self._run("update", self._update)
        if self.dag_run.succeeded:
            self._run("sensor", self._sensor)

    def _run(self, task_id: str, build: Callable[[], Any]) -> None:
        self._before(task_id)
        self.dag_run.run(task_id, build)

    @property
    def _session_id(self) -> str:
        return str(self.tasks["create"].result)

    def _common(self, task_id: str) -> dict[str, Any]:
        return {"task_id": task_id, "ibm_quantum_conn_id": self.waiting.conn_id}

    def _waiting(self) -> dict[str, Any]:
        timeout = self.waiting.timeout if self.scenario.completes else 0.1
        return {"deferrable": self.waiting.deferred, "timeout": timeout}

    def _create(self) -> Any:
        return _creator("create", self.waiting.conn_id)

    def _job(self) -> Any:
        waits = self.scenario.waits_for_job
        return IBMQuantumSubmitJobOperator(
            **self._common("job"),
            **self._waiting(),
            program_id=JOB["program_id"],
            program_params=JOB["params"],
            poll_interval=POLL,
            session_id=self._session_id,
            wait_for_completion=waits,
        )

    def _update(self) -> Any:
        return IBMQuantumUpdateSessionOperator(
            **self._common("update"), session_id=self._session_id, accepting_jobs=False
        )

    def _sensor(self) -> Any:
        return IBMQuantumSessionSensor(
            **self._common("sensor"), **self._waiting(), session_id=self._session_id, poke_interval=POLL
        )

    def _close(self) -> Any:
        return IBMQuantumCloseSessionOperator(
            **self._common("close"),
            **self._waiting(),
            session_id=self._session_id,
            drain=self.scenario.drains,
            poll_interval=POLL,
        )

    def _run_jobs(self) -> Any:
        return IBMQuantumRunJobsOperator(
            **self._common("run"), **self._waiting(), backend=BACKEND, jobs=[JOB, JOB], poll_interval=POLL
        )
