# SPDX-License-Identifier: Apache-2.0
"""The Dags: what a user does with a session, from its opening to its closing as a teardown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_ibm_sessions.operators.job import (
    IBMQuantumRunJobsOperator,
    IBMQuantumSubmitJobOperator,
)
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
class Story:
    """Which tasks the Dag has. Its session is opened first, and closed last."""

    creates: bool = True
    waits_for_job: bool = False
    watches: bool = False
    sweeps: bool = False
    drains: bool = False
    completes: bool = True
    """Whether its jobs run to their end; else they queue for ever, and are given up."""


STORIES = {
    "close hard": Story(waits_for_job=True),
    "watch": Story(watches=True),
    "sweep": Story(sweeps=True),
    "drain": Story(drains=True),
    "drain too slow": Story(drains=True, completes=False),
    "run jobs": Story(creates=False),
    "run jobs too slow": Story(creates=False, completes=False),
}


@dataclass(frozen=True)
class Setting:
    """Where, how and for how long the tasks wait."""

    conn_id: str
    deferred: bool
    patience: float


def sweep(conn_id: str) -> DagRun:
    """A run of the Dag that closes what no live run owns; however young, since here nothing grows old."""
    swept = DagRun("sweep", "sweep")
    swept.run("sweep", lambda: _sweeper(conn_id, min_age=0))
    return swept


def _sweeper(conn_id: str, min_age: int = 60) -> IBMQuantumSweepSessionsOperator:
    operator = IBMQuantumSweepSessionsOperator(
        task_id="sweep", ibm_quantum_conn_id=conn_id, dry_run=False, min_age=max(min_age, 1)
    )
    operator.min_age = min_age
    return operator


class Played:
    """A run of the story's Dag. ``before`` is called with each task's name before that starts."""

    def __init__(
        self, story: Story, setting: Setting, run_id: str, before: Callable[[str], None] = lambda _: None
    ) -> None:
        self.story, self.setting = story, setting
        self.dag_run = DagRun("faults", run_id)
        self._before = before

    @property
    def tasks(self) -> dict[str, Any]:
        return self.dag_run.tasks

    def begin(self) -> None:
        """Up to where the session is open and has its job."""
        if not self.story.creates:
            return
        self._run("create", self._create)
        if self.tasks["create"].succeeded:
            self._run("job", self._job)

    def finish(self) -> None:
        """The rest. A teardown runs if its setup has succeeded, whatever else has failed."""
        self._finish()
        self.dag_run.is_over = True

    def _finish(self) -> None:
        if not self.story.creates:
            self._run("run", self._run_jobs)
            return
        if self.story.sweeps and self.dag_run.succeeded:
            self._run("sweep", lambda: _sweeper(self.setting.conn_id))
        if self.story.watches and self.dag_run.succeeded:
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
        return {"task_id": task_id, "ibm_quantum_conn_id": self.setting.conn_id}

    def _waiting(self) -> dict[str, Any]:
        patience = self.setting.patience if self.story.completes else 0.1
        return {"deferrable": self.setting.deferred, "timeout": patience}

    def _create(self) -> Any:
        return IBMQuantumCreateSessionOperator(**self._common("create"), backend=BACKEND, max_ttl=3600)

    def _job(self) -> Any:
        waits = self.story.waits_for_job
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
            drain=self.story.drains,
            poll_interval=POLL,
        )

    def _run_jobs(self) -> Any:
        return IBMQuantumRunJobsOperator(
            **self._common("run"), **self._waiting(), backend=BACKEND, jobs=[JOB, JOB], poll_interval=POLL
        )
