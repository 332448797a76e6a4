# SPDX-License-Identifier: Apache-2.0
"""
As much of Airflow as decides what becomes of a session: attempts, deferrals, what is kept between them.

Each attempt, each trigger and each resumption is a process of its own in Airflow: here each gets a new
operator, a new client and no token. What Airflow stores as JSON goes through JSON.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk import Variable
from airflow.sdk.bases.operator import ExecutorSafeguard

from airflow_provider_ibm_sessions.client import auth

RETRIES = 1
Build = Callable[[], Any]


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


variables: dict[str, str] = {}
"""Airflow's: all tasks share them."""
runs: dict[str, DagRun] = {}
"""The Dag runs that there are, by their ids."""


def install() -> None:
    """Airflow's variables need no API here."""
    Variable.get = staticmethod(lambda key, default=None: variables.get(key, default))
    Variable.set = staticmethod(lambda key, value, description=None: variables.update({key: value}))
    Variable.keys = staticmethod(lambda prefix: [key for key in variables if key.startswith(prefix)])
    Variable.delete = staticmethod(lambda key: variables.pop(key, None))


def start_anew() -> None:
    """An Airflow in which nothing has run yet."""
    variables.clear()
    runs.clear()


class Store:
    """Airflow's task state store, of one task: it outlives the attempts."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return through_json(self.kept.get(key, default))

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if value is None:
            raise ValueError("Cannot set value as None")
        self.kept[key] = through_json(value)

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)


@dataclass
class Told:
    """What a task has told Airflow: its state, its errors, and everything that is kept of it."""

    task_id: str
    state: str = "running"
    result: Any = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    store: Store = field(default_factory=Store)
    errors: list[BaseException] = field(default_factory=list)
    tries: int = 0
    stored: list[Any] = field(default_factory=list)
    """Serialized triggers and their events."""

    @property
    def succeeded(self) -> bool:
        return self.state == "success"

    @property
    def last_error(self) -> str:
        return str(self.errors[-1]) if self.errors else ""

    @property
    def raw_errors(self) -> list[str]:
        """Errors that are none of Airflow's: nobody has thought of them."""
        return [repr(error) for error in self.errors if not isinstance(error, AirflowException)]

    def traces(self) -> str:
        """All that Airflow would show or store of it."""
        errors = "".join("".join(traceback.format_exception(error)) for error in self.errors)
        return errors + json.dumps([self.result, self.xcoms, self.store.kept, self.stored])


class TaskInstance:
    """What operators use of Airflow's."""

    map_index = -1

    def __init__(self, told: Told, dag_id: str, run_id: str) -> None:
        self._told = told
        self.id = uuid4()  # each attempt has another, as in Airflow
        self.dag_id, self.run_id, self.task_id = dag_id, run_id, told.task_id
        self.try_number, self.max_tries = told.tries, RETRIES
        self.start_date = datetime.now(UTC)

    def xcom_push(self, key: str, value: Any) -> None:
        self._told.xcoms[key] = through_json(value)

    @staticmethod
    def get_dr_count(*, dag_id: str, run_ids: list[str], states: list[str]) -> int:
        found = [runs[run_id] for run_id in run_ids if run_id in runs]
        return sum(run.dag_id == dag_id and run.state in states for run in found)

    @staticmethod
    def get_ti_count(
        *,
        dag_id: str,
        run_ids: list[str],
        task_ids: list[str],
        map_index: int | None = None,
        states: list[str] | None = None,
    ) -> int:
        """Of tasks that have begun. No task is mapped."""
        found = [runs[run_id].tasks for run_id in run_ids if run_id in runs and runs[run_id].dag_id == dag_id]
        tasks = [told for tasks in found for name, told in tasks.items() if name in task_ids]
        return sum(states is None or told.state in states for told in tasks)


class DagRun:
    """A run of a Dag: its tasks run one after another, each with one retry."""

    def __init__(self, dag_id: str, run_id: str) -> None:
        self.dag_id, self.run_id = dag_id, run_id
        self.start_date = datetime.now(UTC)
        self.tasks: dict[str, Told] = {}
        self.is_over = False
        runs[run_id] = self

    @property
    def state(self) -> str:
        if not self.is_over:
            return "running"
        return "success" if self.succeeded else "failed"

    @property
    def succeeded(self) -> bool:
        return all(told.succeeded for told in self.tasks.values())

    def run(self, task_id: str, build: Build) -> Told:
        """Run a task until it has ended."""
        told = self.tasks[task_id] = Told(task_id)
        while told.state in ("running", "up_for_retry"):
            told.tries += 1
            self._attempt(told, build)
        return told

    def _attempt(self, told: Told, build: Build) -> None:
        try:
            told.result = through_json(self._execute(told, build))
            told.state = "success"
        except Exception as error:
            told.errors.append(error)
            final = isinstance(error, AirflowFailException) or told.tries > RETRIES
            told.state = "failed" if final else "up_for_retry"

    def _execute(self, told: Told, build: Build) -> Any:
        step = ("execute", {})
        while True:
            method, arguments = step
            try:
                return self._in_process(told, build(), method, arguments)
            except TaskDeferred as deferred:
                event = self._triggered(told, deferred.trigger)
                step = deferred.method_name, {**(deferred.kwargs or {}), "event": event}

    def _in_process(self, told: Told, operator: Any, method: str, arguments: dict[str, Any]) -> Any:
        _forget_tokens()
        ExecutorSafeguard.tracker.set(operator)
        context = self._context(told, operator)
        if method == "execute":
            return operator.execute(context)
        return operator.resume_execution(method, arguments, context)

    def _triggered(self, told: Told, trigger: Any) -> Any:
        """Run a trigger in an event loop of its own, as it comes out of the database."""
        _forget_tokens()
        path, arguments = trigger.serialize()
        told.stored.append(arguments)
        module, _, name = path.rpartition(".")
        stored = getattr(import_module(module), name)(**through_json(arguments))
        told.stored.append(through_json(asyncio.run(_first_event(stored))))
        return told.stored[-1]

    def _context(self, told: Told, operator: Any) -> Any:
        ti = TaskInstance(told, self.dag_id, self.run_id)
        dag = SimpleNamespace(dag_id=self.dag_id, dagrun_timeout=None, tasks=[operator])
        return {
            "ti": ti,
            "task_instance": ti,
            "task": operator,
            "dag": dag,
            "dag_run": self,
            "run_id": self.run_id,
            "task_state_store": told.store,
        }


async def _first_event(trigger: Any) -> Any:
    async with aclosing(trigger.run()) as events:
        return (await anext(events)).payload


def _forget_tokens() -> None:
    auth._caches.clear()
