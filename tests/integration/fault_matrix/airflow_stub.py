# SPDX-License-Identifier: Apache-2.0
"""
A stub of what Airflow decides about a session: tries, deferrals, and the state that is kept between them.

In Airflow, each try, each trigger and each resumption is a process of its own: here each gets a new operator,
a new client and no token. What Airflow stores as JSON goes through JSON.
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
from airflow.sdk.execution_time.context import set_current_context

from airflow_provider_ibm_sessions.client import auth
from airflow_provider_ibm_sessions.hooks.airflow_id import VARIABLE as AIRFLOW_ID

RETRIES = 1
Build = Callable[[], Any]


def through_json(value: Any) -> Any:
    """Return the value as it comes out of Airflow's database."""
    return json.loads(json.dumps(value))


variables: dict[str, str] = {}
"""Airflow's variables, which all tasks share."""
runs: dict[str, DagRun] = {}
"""All Dag runs, by id."""


def install() -> None:
    """Keep Airflow's variables in this process."""
    Variable.get = staticmethod(lambda key, default=None: variables.get(key, default))
    Variable.set = staticmethod(lambda key, value, description=None: variables.update({key: value}))
    Variable.keys = staticmethod(lambda prefix: [key for key in variables if key.startswith(prefix)])
    Variable.delete = staticmethod(lambda key: variables.pop(key, None))


def reset() -> None:
    """Start with an Airflow in which nothing has run yet."""
    variables.clear()
    variables[AIRFLOW_ID] = "stub"  # as after the first task of all: creating it takes a second
    runs.clear()


class TaskStateStore:
    """Airflow's task state store, of one task: it outlives the tries."""

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
class TaskRecord:
    """A task as Airflow knows it: its state, its errors, and everything that is stored about it."""

    task_id: str
    state: str = "running"
    result: Any = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    store: TaskStateStore = field(default_factory=TaskStateStore)
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
    def unexpected_errors(self) -> list[str]:
        """Return the errors that are not Airflow's, which no code has anticipated."""
        return [repr(error) for error in self.errors if not isinstance(error, AirflowException)]

    def everything_stored(self) -> str:
        """Return all that Airflow would show or store about the task."""
        errors = "".join("".join(traceback.format_exception(error)) for error in self.errors)
        return errors + json.dumps([self.result, self.xcoms, self.store.kept, self.stored])


class TaskInstance:
    """The part of Airflow's task instance that operators use."""

    map_index = -1

    def __init__(self, task: TaskRecord, dag_id: str, run_id: str) -> None:
        self._task = task
        self.id = uuid4()  # each try has another, as in Airflow
        self.dag_id, self.run_id, self.task_id = dag_id, run_id, task.task_id
        self.try_number, self.max_tries = task.tries, RETRIES
        self.start_date = datetime.now(UTC)

    def xcom_push(self, key: str, value: Any) -> None:
        self._task.xcoms[key] = through_json(value)

    @staticmethod
    def get_dr_count(*, dag_id: str, run_ids: list[str], states: list[str]) -> int:
        found = [runs[run_id] for run_id in run_ids if run_id in runs]
        return sum(run.dag_id == dag_id and run.state in states for run in found)

    @staticmethod
    def get_task_states(
        *, dag_id: str, run_ids: list[str], task_ids: list[str], map_index: int | None
    ) -> dict[str, dict[str, str]]:
        """Return the states of tasks that have started. No task is mapped."""
        found = [runs[run_id] for run_id in run_ids if run_id in runs and runs[run_id].dag_id == dag_id]
        return {
            run.run_id: {name: task.state for name, task in run.tasks.items() if name in task_ids}
            for run in found
        }


class DagRun:
    """A run of a Dag: its tasks run one after another, each with one retry."""

    def __init__(self, dag_id: str, run_id: str) -> None:
        self.dag_id, self.run_id = dag_id, run_id
        self.start_date = datetime.now(UTC)
        self.tasks: dict[str, TaskRecord] = {}
        self.is_over = False
        runs[run_id] = self

    @property
    def state(self) -> str:
        if not self.is_over:
            return "running"
        return "success" if self.succeeded else "failed"

    @property
    def succeeded(self) -> bool:
        return all(task.succeeded for task in self.tasks.values())

    def run(self, task_id: str, build: Build) -> TaskRecord:
        """Run a task, with its retry, to its end."""
        task = self.tasks[task_id] = TaskRecord(task_id)
        while task.state in ("running", "up_for_retry"):
            task.tries += 1
            self._try(task, build)
        return task

    def _try(self, task: TaskRecord, build: Build) -> None:
        try:
            task.result = through_json(self._execute(task, build))
            task.state = "success"
        except Exception as error:
            task.errors.append(error)
            final = isinstance(error, AirflowFailException) or task.tries > RETRIES
            task.state = "failed" if final else "up_for_retry"

    def _execute(self, task: TaskRecord, build: Build) -> Any:
        step = ("execute", {})
        while True:
            method, arguments = step
            try:
                return self._in_process(task, build(), method, arguments)
            except TaskDeferred as deferred:
                event = self._run_trigger(task, deferred.trigger)
                step = deferred.method_name, {**(deferred.kwargs or {}), "event": event}

    def _in_process(self, task: TaskRecord, operator: Any, method: str, arguments: dict[str, Any]) -> Any:
        _forget_tokens()
        ExecutorSafeguard.tracker.set(operator)
        context = self._context(task, operator)
        with set_current_context(context):
            if method == "execute":
                return operator.execute(context)
            return operator.resume_execution(method, arguments, context)

    def _run_trigger(self, task: TaskRecord, trigger: Any) -> Any:
        """Run a trigger as it comes out of the database; return the payload of its event."""
        _forget_tokens()
        path, arguments = trigger.serialize()
        task.stored.append(arguments)
        module, _, name = path.rpartition(".")
        stored = getattr(import_module(module), name)(**through_json(arguments))
        task.stored.append(through_json(asyncio.run(_first_event(stored))))
        return task.stored[-1]

    def _context(self, task: TaskRecord, operator: Any) -> Any:
        ti = TaskInstance(task, self.dag_id, self.run_id)
        dag = SimpleNamespace(dag_id=self.dag_id, dagrun_timeout=None, tasks=[operator])
        return {
            "ti": ti,
            "task_instance": ti,
            "task": operator,
            "dag": dag,
            "dag_run": self,
            "run_id": self.run_id,
            "task_state_store": task.store,
        }


async def _first_event(trigger: Any) -> Any:
    async with aclosing(trigger.run()) as events:
        return (await anext(events)).payload


def _forget_tokens() -> None:
    auth._caches.clear()
