# SPDX-License-Identifier: Apache-2.0
"""The Dags: what a user does with a session, from its opening to its closing as a teardown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_ibm_sessions.failures import told_to_airflow
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.operators.job import (
    IBMQuantumRunJobsOperator,
    IBMQuantumSubmitJobOperator,
)
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor

from .small_airflow import DagRun

BACKEND = "ibm_fez"
POLL = 0.03
JOB: dict[str, Any] = {"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0;"]]}}
PAGE = 1
"""Workloads on a page, so that there are several pages."""


@dataclass(frozen=True)
class Story:
    """Which tasks the Dag has. Its session is opened first, and closed last."""

    creates: bool = True
    waits_for_job: bool = False
    watches: bool = False
    drains: bool = False
    completes: bool = True
    """Whether its jobs run to their end; else they queue for ever, and are given up."""


STORIES = {
    "close hard": Story(waits_for_job=True),
    "watch": Story(watches=True),
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


class Lists:
    """A user's own task: lists the workloads, in a worker or in an event loop."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._hook = IBMQuantumHook(setting.conn_id)

    def execute(self, context: Any) -> list[str]:
        with told_to_airflow():
            if self._setting.deferred:
                return asyncio.run(self._in_loop())
            return [each.id for each in self._hook.list_workloads(limit=PAGE)]

    async def _in_loop(self) -> list[str]:
        async with self._hook.async_client() as client:
            return [each.id async for each in client.list_workloads(limit=PAGE)]


class Played:
    """A run of the story's Dag. ``before`` is called with each task's name before that starts."""

    def __init__(
        self, story: Story, setting: Setting, run_id: str, before: Callable[[str], None] = lambda _: None
    ) -> None:
        self.story, self.setting = story, setting
        self.dag_run = DagRun("faults", run_id)
        self._before = before
        self._operators = 0

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
        if not self.story.creates:
            self._run("run", self._run_jobs)
            return
        if self.story.watches and self.dag_run.succeeded:
            self._watch()
        if self.tasks["create"].succeeded:
            self._run("close", self._close)

    def _watch(self) -> None:
        steps = {"list": lambda: Lists(self.setting), "update": self._update, "sensor": self._sensor}
        for task_id, build in steps.items():
            if self.dag_run.succeeded:
                self._run(task_id, build)

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
