# SPDX-License-Identifier: Apache-2.0
"""
Workers in processes of their own, which can be killed at a chosen point.

Workers are forked, so that Airflow is imported once; they know the fake IBM by its socket only.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

from airflow.sdk import DAG

from testing.airflow_runs import Run, create_dag_run, serialize
from testing.connections import connection_to
from testing.dag_tasks import run_jobs
from testing.fake_ibm import FakeIBM
from testing.secret_scan import remember_secrets

KillPoint = tuple[str, int]
"""``("before", 3)``: before the third request; ``("after", 3)``: after its response; ``("end", 0)``: when
``execute()`` has returned."""


def start_worker(task: Any, ti: Any, kill: KillPoint | None = None) -> int:
    """Fork a process that runs the task instance; return its id."""
    from airflow import settings

    settings.Session.remove()
    # SQLite notes the locks of a process: a fork would inherit the notes, and not the locks.
    settings.engine.dispose()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _run_task_instance(task, ti, kill)
    return pid


def wait_for_exit(pid: int) -> int | None:
    """Wait for a worker's end; return the signal that ended it, or None."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return None


def _run_task_instance(task: Any, ti: Any, kill: KillPoint | None) -> NoReturn:
    """In the child: run the task instance, and exit."""
    status = 1
    try:
        _forget_the_parents_connections()
        _arm(kill, task)
        from uuid import UUID

        from airflow.sdk.api.datamodels._generated import TaskInstance
        from airflow.sdk.execution_time.supervisor import run_task_in_process

        names = ("task_id", "dag_id", "run_id", "try_number", "map_index")
        fields = {name: getattr(ti, name) for name in names}
        run_task_in_process(
            ti=TaskInstance(id=UUID(str(ti.id)), dag_version_id=UUID(str(ti.dag_version_id)), **fields),
            task=task,
        )
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _forget_the_parents_connections() -> None:
    """Drop what a fork must not share: database connections, and an API whose thread stayed in the parent."""
    from airflow import settings
    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
    from airflow.sdk.execution_time import supervisor

    settings.engine.dispose(close=False)
    api = InProcessExecutionAPI()
    api._app = supervisor.in_process_api_server().app
    supervisor.in_process_api_server = lambda: api


def _arm(kill: KillPoint | None, task: Any) -> None:
    """Kill this process at the point, whether the request is sent by a blocking client or in a loop."""
    import httpx

    if kill is None:
        return
    point, number = kill
    execute = type(task).execute
    numbers = itertools.count(1)
    send_blocking = httpx.HTTPTransport.handle_request
    send_async = httpx.AsyncHTTPTransport.handle_async_request

    def handle_request(transport, request):
        current = next(numbers)
        _kill_if((point, number) == ("before", current))
        response = send_blocking(transport, request)
        _kill_if((point, number) == ("after", current))
        return response

    async def handle_async_request(transport, request):
        current = next(numbers)
        _kill_if((point, number) == ("before", current))
        response = await send_async(transport, request)
        _kill_if((point, number) == ("after", current))
        return response

    def run(operator, context):
        result = execute(operator, context)
        _kill_if(point == "end")
        return result

    type(task).execute = run
    httpx.HTTPTransport.handle_request = handle_request
    httpx.AsyncHTTPTransport.handle_async_request = handle_async_request


def _kill_if(due: bool) -> None:
    if due:
        os.kill(os.getpid(), signal.SIGKILL)


class Worker:
    """Runs the tries of one task instance, each in a process of its own."""

    def __init__(self, task: Any, run_id: str) -> None:
        self.task = task
        self.run_id = run_id

    def attempt(self, kill: KillPoint | None = None) -> int | None:
        """Run the next try; return the signal that ended it, or None."""
        self._queue()
        return wait_for_exit(start_worker(self.task, self.task_instance(), kill))

    def report_lost(self) -> None:
        """Do as the scheduler does when a worker's heartbeat stops."""
        from airflow.utils.session import create_session

        with create_session() as session:
            ti = self.task_instance(session)
            assert str(ti.state) == "running"
            ti.handle_failure(error="The worker is gone", session=session)
        assert str(self.task_instance().state) == "up_for_retry"

    def _queue(self) -> None:
        """Do as the scheduler does with a task that is ready for its next try."""
        from airflow.utils.session import create_session

        with create_session() as session:
            ti = self.task_instance(session)
            ti.try_number += 1
            ti.state = "queued"

    def task_instance(self, session: Any = None) -> Any:
        """Return the task instance as the database has it, attached to the session if one is given."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        query = select(TaskInstance).where(
            TaskInstance.dag_id == self.task.dag_id, TaskInstance.run_id == self.run_id
        )
        if session is not None:
            return session.scalars(query).one()
        with create_session() as own:
            ti = own.scalars(query).one()
            own.expunge(ti)
            return ti


class WorkerRun:
    """One run of a Dag with one task, and the sessions and jobs that IBM has got from it."""

    def __init__(self, ibm: FakeIBM, task: Any, run_id: str) -> None:
        self.ibm = ibm
        self.before = {*ibm.jobs, *ibm.sessions}
        self.dag_run = create_dag_run(task.dag, run_id)
        self.worker = Worker(task, run_id)

    def killed_once(self, point: str, number: int) -> bool:
        """
        Run the task, killed at the point, and then its retry to the end.

        :return: False if the task ended before it came to the point.
        """
        killed = self.worker.attempt((point, number))
        if killed:
            assert killed == signal.SIGKILL
            self.worker.report_lost()
            assert self.worker.attempt() is None
        return bool(killed)

    @property
    def jobs(self) -> list[Any]:
        """Return the jobs of this run."""
        return [job for job in self.ibm.jobs.values() if job.id not in self.before]

    @property
    def sessions(self) -> list[str]:
        """Return the ids of this run's sessions."""
        return [name for name in self.ibm.sessions if name not in self.before]

    @property
    def left_open(self) -> list[Any]:
        """Return the sessions of this run that still accept jobs."""
        return [s for s in self.ibm.sessions.values() if s.accepts_jobs and s.id not in self.before]

    def result(self) -> Any:
        """Return what the task returned. The task must have succeeded."""
        run = Run(self.dag_run)
        assert run.state_of(self.worker.task.task_id) == "success"
        return run.xcom(self.worker.task.task_id)


def warm_up(connection_variable: str, monkeypatch: Any) -> None:
    """Run one task in this process, so that workers that are forked later find everything imported."""
    with FakeIBM() as ibm, DAG("warm_up", schedule=None) as dag:
        monkeypatch.setenv(connection_variable, connection_to(ibm))
        ibm.settings.job_seconds = 0.05
        run_jobs(poll_interval=0.05)
        serialize(dag)
        assert str(dag.test().state) == "success"
        remember_secrets(ibm)
