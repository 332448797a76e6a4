# SPDX-License-Identifier: Apache-2.0
"""
Exactly once over the death of a process.

A worker is killed (SIGKILL) before each of its requests to IBM, after each reply, and at its very end;
another process then runs the task's retry to its end. Whatever the point, each job has run once,
and no session is open that nobody knows of.

Workers are forked, so that Airflow is imported once; they know the fake IBM by its socket only.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import traceback

import pytest
from airflow.sdk import DAG

from airflow_provider_ibm_sessions.operators.job import (
    IBMQuantumRunJobsOperator,
    IBMQuantumSubmitJobOperator,
)
from airflow_provider_ibm_sessions.operators.session import IBMQuantumCreateSessionOperator
from testing.airflow_runs import Run, serialize
from testing.fake_ibm import FakeIBM
from tests.conftest import connection_to, remember_secrets

pytestmark = [
    pytest.mark.usefixtures("connection", "airflow_db", "quick"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


def job(width):
    circuit = f"OPENQASM 3.0; bit[{width}] meas; qubit[{width}] q;"
    return {"program_id": "sampler", "program_params": {"pubs": [[circuit, None, 10]]}}


JOBS = [{"program_id": "sampler", "params": job(width)["program_params"]} for width in (2, 3, 4)]


class Worker:
    """Runs a task instance in a process of its own."""

    def __init__(self, task, run_id):
        self.task = task
        self.run_id = run_id

    def attempt(self, kill=None):
        """Run the next attempt; returns the signal that has ended it, or None."""
        from airflow import settings

        self._schedule()
        settings.Session.remove()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _be_a_worker(self.task, self._ti(), kill)
        return _ended(pid)

    def bury(self):
        """What the scheduler does when a worker's heartbeat stays away."""
        from airflow.utils.session import create_session

        with create_session() as session:
            ti = self._ti(session)
            assert str(ti.state) == "running"
            ti.handle_failure(error="The worker is gone", session=session)
        assert str(self._ti().state) == "up_for_retry"

    def _schedule(self):
        """What the scheduler does with a task that is ready for its next attempt."""
        from airflow.utils.session import create_session

        with create_session() as session:
            ti = self._ti(session)
            ti.try_number += 1
            ti.state = "queued"

    def _ti(self, session=None):
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


def _be_a_worker(task, ti, kill):
    """In the child: run the task instance and leave."""
    status = 1
    try:
        _forget_the_parents_connections()
        _arm(kill, task)
        from uuid import UUID

        from airflow.sdk.api.datamodels._generated import TaskInstance
        from airflow.sdk.execution_time.supervisor import run_task_in_process

        names = ("task_id", "dag_id", "run_id", "try_number", "map_index")
        facts = {name: getattr(ti, name) for name in names}
        run_task_in_process(
            ti=TaskInstance(id=UUID(str(ti.id)), dag_version_id=UUID(str(ti.dag_version_id)), **facts),
            task=task,
        )
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _forget_the_parents_connections():
    """The database's are not to be shared, and the thread of the API inside Airflow has not come along."""
    from airflow import settings
    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
    from airflow.sdk.execution_time import supervisor

    settings.engine.dispose(close=False)
    api = InProcessExecutionAPI()
    api._app = supervisor.in_process_api_server().app
    supervisor.in_process_api_server = lambda: api


def _arm(kill, task):
    """Die before or after the request of this number, in either way of sending; or at the end."""
    import httpx

    if kill is None:
        return
    point, number = kill
    execute = type(task).execute
    numbers = itertools.count(1)
    blocking = httpx.HTTPTransport.handle_request
    looped = httpx.AsyncHTTPTransport.handle_async_request

    def send(transport, request):
        mine = next(numbers)
        _die_if((point, number) == ("before", mine))
        response = blocking(transport, request)
        _die_if((point, number) == ("after", mine))
        return response

    async def send_in_loop(transport, request):
        mine = next(numbers)
        _die_if((point, number) == ("before", mine))
        response = await looped(transport, request)
        _die_if((point, number) == ("after", mine))
        return response

    def run(operator, context):
        result = execute(operator, context)
        _die_if(point == "end")
        return result

    type(task).execute = run
    httpx.HTTPTransport.handle_request = send
    httpx.AsyncHTTPTransport.handle_async_request = send_in_loop


def _die_if(due):
    if due:
        os.kill(os.getpid(), signal.SIGKILL)


def _ended(pid):
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return None


@pytest.fixture(scope="module", autouse=True)
def warm(airflow_db):
    """Import and build once, in the parent, what each worker needs."""
    with FakeIBM() as ibm, DAG("warm", schedule=None) as dag, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
        ibm.settings.job_seconds = 0.05
        run_jobs()
        serialize(dag)
        assert str(dag.test().state) == "success"
        remember_secrets(ibm)


def run_jobs(**kwargs):
    return IBMQuantumRunJobsOperator(
        task_id="run", **{"backend": "ibm_fez", "jobs": JOBS, "poll_interval": 0.05, "retries": 1, **kwargs}
    )


class Scenario:
    """One run of a Dag with one task, and what IBM has seen of it."""

    def __init__(self, ibm, task, run_id):
        self.ibm = ibm
        self.before = {*ibm.jobs, *ibm.sessions}
        self.dag_run = begin(task.dag, run_id)
        self.worker = Worker(task, run_id)

    def killed_once(self, point, number):
        """Whether the worker was killed there; if so, the task's retry has gone to its end."""
        killed = self.worker.attempt((point, number))
        if killed:
            assert killed == signal.SIGKILL
            self.worker.bury()
            assert self.worker.attempt() is None
        return bool(killed)

    @property
    def jobs(self):
        return [job for job in self.ibm.jobs.values() if job.id not in self.before]

    @property
    def sessions(self):
        return [name for name in self.ibm.sessions if name not in self.before]

    @property
    def left_open(self):
        """Sessions of this run that would take jobs still."""
        return [s for s in self.ibm.sessions.values() if s.accepts_jobs and s.id not in self.before]

    def result(self):
        """What the task has returned; it has succeeded."""
        run = Run(self.dag_run)
        assert run.state_of(self.worker.task.task_id) == "success"
        return run.xcom(self.worker.task.task_id)


def begin(dag, run_id, logical_date=None):
    """A run of the Dag, as the scheduler creates it."""
    from airflow.models.dagrun import get_or_create_dagrun
    from airflow.sdk import timezone
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType

    now = timezone.utcnow()
    with create_session() as session:
        dag_run = get_or_create_dagrun(
            dag=DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)),
            run_id=run_id,
            logical_date=logical_date,
            data_interval=None,
            run_after=now,
            start_date=now,
            conf=None,
            triggered_by=DagRunTriggeredByType.TEST,
            triggering_user_name="test",
            session=session,
        )
        session.flush()
        session.expunge_all()
    return dag_run


def assert_each_ran_once(jobs, count):
    assert [job.status for job in jobs] == ["Completed"] * count
    assert len({tag for job in jobs for tag in job.tags}) == count


def assert_results(reports):
    """Each job has its own: they are told apart by the width of their register."""
    widths = [{len(bits) for bits in report["results"][0]["counts"]["meas"]} for report in reports]
    assert widths == [{index + 2} for index in range(len(reports))]


class TestCreateSession:
    """The task that was killed goes on with the session that it had opened, whether it knew so or not."""

    @pytest.fixture
    def task(self, ibm, dag):
        task = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", retries=20)
        serialize(dag)
        return task

    @pytest.mark.parametrize("point", ["before", "after"])
    def test_killed_at_any_request(self, ibm, task, point):
        for number in itertools.count(1):
            scenario = Scenario(ibm, task, f"{point}-{number}")
            killed = scenario.killed_once(point, number)
            assert scenario.sessions == [session.id for session in scenario.left_open] == [scenario.result()]
            if not killed:
                break
        assert number > 2

    def test_killed_when_all_is_done_but_not_told(self, ibm, task):
        scenario = Scenario(ibm, task, "end")
        assert scenario.killed_once("end", 0)
        assert list(ibm.sessions) == [scenario.result()]

    def test_killed_again_and_again(self, ibm, task):
        """Each attempt gets one request further than the one before it."""
        scenario = Scenario(ibm, task, "again")
        for number in range(1, 20):
            if not scenario.worker.attempt(("after", number)):
                break
            scenario.worker.bury()
        assert number > 4, "token and request; token, list, session, jobs ..."
        assert list(ibm.sessions) == ibm.books()["accepting"] == [scenario.result()]


class TestRunJobs:
    @pytest.mark.parametrize("point", ["before", "after"])
    def test_killed_at_any_request(self, ibm, dag, point):
        ibm.settings.job_seconds = 0.05
        task = run_jobs()
        serialize(dag)
        for number in itertools.count(1):
            scenario = Scenario(ibm, task, f"{point}-{number}")
            killed = scenario.killed_once(point, number)
            assert_each_ran_once(scenario.jobs, 3)
            assert_results(scenario.result())
            assert scenario.left_open == []
            if not killed:
                break
        assert number > 12
        assert ibm.books()["duplicates"] == []

    def test_killed_when_all_is_done_but_not_told(self, ibm, dag):
        ibm.settings.job_seconds = 0.05
        task = run_jobs()
        serialize(dag)
        scenario = Scenario(ibm, task, "end")
        assert scenario.killed_once("end", 0)
        assert_each_ran_once(scenario.jobs, 3)
        assert_results(scenario.result())
        assert len(ibm.sessions) == 1

    def test_killed_again_and_again(self, ibm, dag):
        """Each attempt gets one request further than the one before it."""
        ibm.settings.job_seconds = 0.05
        task = run_jobs(retries=40)
        serialize(dag)
        scenario = Scenario(ibm, task, "again")
        for number in range(1, 40):
            if not scenario.worker.attempt(("after", number)):
                break
            scenario.worker.bury()
        assert number > 8
        assert_each_ran_once(scenario.jobs, 3)
        assert_results(scenario.result())
        assert scenario.left_open == []


class TestSubmitJob:
    @pytest.mark.parametrize("point", ["before", "after", "end"])
    def test_a_job_in_a_session_killed_at_any_request(self, ibm, dag, point):
        ibm.settings.job_seconds = 0.05
        session = ibm.plant_session(age=1)
        task = IBMQuantumSubmitJobOperator(
            task_id="submit", session_id=session.id, poll_interval=0.05, retries=1, **job(2)
        )
        serialize(dag)
        for number in itertools.count(1) if point != "end" else [0]:
            scenario = Scenario(ibm, task, f"{point}-{number}")
            killed = scenario.killed_once(point, number)
            assert_each_ran_once(scenario.jobs, 1)
            assert_results([scenario.result()])
            if not killed:
                break
        assert killed == (point == "end")
        assert number > 5 or point == "end"
        assert ibm.books()["duplicates"] == []

    def test_a_job_alone_killed_again_and_again(self, ibm, dag):
        ibm.settings.job_seconds = 0.05
        task = IBMQuantumSubmitJobOperator(
            task_id="submit", backend="ibm_fez", poll_interval=0.05, retries=20, **job(2)
        )
        serialize(dag)
        scenario = Scenario(ibm, task, "again")
        for number in range(1, 20):
            if not scenario.worker.attempt(("after", number)):
                break
            scenario.worker.bury()
        assert number > 3
        assert_each_ran_once(scenario.jobs, 1)
        assert_results([scenario.result()])

    def test_a_private_job_whose_results_had_been_kept(self, ibm, dag):
        """Killed when they have been read and stored, yet not told: they cannot be read again."""
        ibm.settings.job_seconds = 0.05
        task = IBMQuantumSubmitJobOperator(
            task_id="submit", backend="ibm_fez", poll_interval=0.05, retries=1, private=True, **job(2)
        )
        serialize(dag)
        scenario = Scenario(ibm, task, "private")
        assert scenario.killed_once("end", 0)
        [submitted] = scenario.jobs
        assert submitted.results_read == 1
        assert_results([scenario.result()])
