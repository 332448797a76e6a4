# SPDX-License-Identifier: Apache-2.0
"""Problems of users who schedule quantum experiments without this package: one test for each."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest
from airflow.models.trigger import Trigger
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import task
from airflow.sdk.module_loading import import_string
from airflow.utils.session import create_session

from airflow_provider_ibm_sessions.client import auth
from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from testing.airflow_runs import serialize
from testing.fake_ibm import Fault
from testing.session_requests import submit_job
from testing.triggerer import cancel_trigger
from testing.worker_process import WorkerRun

pytestmark = [
    pytest.mark.usefixtures("connection", "quick", "warm"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]

HOUR = 3600
JOB = {"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0; bit[2] meas; qubit[2] q;", None, 10]]}}


def create(**kwargs):
    return IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", **kwargs)


def run_jobs(**kwargs):
    return IBMQuantumRunJobsOperator(
        task_id="run", **{"backend": "ibm_fez", "jobs": [JOB] * 3, "poll_interval": 0.1, **kwargs}
    )


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop": True}], ids=str)
def test_session_left_open_after_a_failure(ibm, dag, run, fault):
    """The work fails, and then the one request that would have ended the bill fails as well."""
    ibm.settings.job_seconds = HOUR
    ibm.script(Fault("DELETE", "/v1/sessions/*", **fault))
    with dag:
        opened = create()

        @task
        def work(session_id):
            submit_job(ibm, session_id)
            raise RuntimeError

        close = IBMQuantumCloseSessionOperator(task_id="close", session_id=opened.output)
        opened >> work(opened.output) >> close.as_teardown(setups=opened) >> EmptyOperator(task_id="closed")
    assert run(dag).state == "failed"
    assert ibm.state()["sessions"] == {"closed": 1}


@pytest.mark.parametrize("fault", [{"status": 504}, {"drop": True}], ids=str)
def test_create_answered_504_or_the_response_lost(ibm, dag, run, fault):
    """A session is open, its id is unknown, and another request opens another one."""
    ibm.script(Fault("POST", "/v1/sessions", phase="after", **fault))
    create()
    result = run(dag)
    assert list(ibm.sessions) == [result.xcom("create")]


def test_worker_killed_after_the_post(ibm, dag):
    """The only process that knew the session has died."""
    opener = create(retries=1)
    serialize(dag)
    observed = WorkerRun(ibm, opener, "run")
    assert observed.worker.attempt(("after", 2)) == signal.SIGKILL
    [session_id] = ibm.sessions
    observed.worker.report_lost()
    observed.worker.attempt()
    assert observed.result() == session_id
    assert list(ibm.sessions) == [session_id]


@pytest.mark.usefixtures("supervisor")
def test_deferred_task_killed_by_a_user(ibm, dag):
    """No worker is there to receive a signal, so the jobs run on, and are billed."""
    ibm.settings.job_seconds = HOUR
    worker = a_worker(ibm, dag, run_jobs(deferrable=True))
    assert worker.attempt() is None
    assert ibm.state()["jobs"] == {"Running": 3}
    trigger, ti = deferred(worker)
    with create_session() as session:
        session.merge(ti).state = "failed"
    trigger.task_instance = ti
    cancel_trigger(trigger)
    assert ibm.state()["sessions"] == {"closed": 1}
    assert ibm.state()["jobs"] == {"Cancelled": 3}


@pytest.mark.parametrize("deferrable", [False, True])
def test_qpu_sits_idle_until_someone_notices(ibm, dag, run, when, deferrable):
    """The jobs have ended, and the session stays open, and is billed, until its idle limit."""
    ibm.settings.job_seconds = 600
    when(lambda: ibm.requests("PATCH") and ibm.requests("GET"), lambda: ibm.clock.advance(700))
    run_jobs(deferrable=deferrable, poll_interval=1)
    assert run(dag).state == "success"
    [session] = ibm.sessions.values()
    assert session.closed_at == max(job.finished for job in ibm.jobs.values())
    assert session.state_reason == "session_closed_early", "by itself, without a request"


def test_hours_of_queueing(ibm, dag):
    """For as long as the jobs wait for the QPU, a worker waits for them."""
    ibm.settings.queue_seconds = 4 * HOUR
    worker = a_worker(ibm, dag, run_jobs(deferrable=True))
    assert worker.attempt() is None, "the process has ended"
    trigger, ti = deferred(worker)
    assert str(ti.state) == "deferred"
    assert ibm.state()["jobs"] == {"Queued": 3}
    ibm.clock.advance(5 * HOUR)
    event = asyncio.run(first_event(trigger))
    with create_session() as session:
        Trigger.submit_event(ti.trigger_id, event, session=session)
    assert worker.attempt() is None
    assert str(worker.task_instance().state) == "success"
    assert ibm.state()["jobs"] == {"Completed": 3}


@pytest.mark.parametrize(
    ("drain", "outcome"), [(True, {"Completed": 2}), (False, {"Completed": 1, "Failed": 1})]
)
def test_close_or_cancel(ibm, dag, run, drain, outcome):
    """Of two words that sound alike, one loses the queued jobs."""
    ibm.settings.lanes, ibm.settings.job_seconds = 1, 0.5 if drain else 60
    session_id = ibm.add_session(age=1).id
    running, queued = [submit_job(ibm, session_id) for _ in range(2)]
    IBMQuantumCloseSessionOperator(task_id="close", session_id=session_id, drain=drain, poll_interval=0.1)
    assert run(dag).state == "success"
    assert ibm.sessions[session_id].state == "closed"
    ibm.clock.advance(100)
    assert ibm.state()["jobs"] == outcome
    assert ibm.jobs[running].status == "Completed"
    assert ibm.jobs[queued].reason_code == (None if drain else 1217)


@pytest.mark.parametrize("deferrable", [False, True])
def test_token_expires_in_hour_2(ibm, dag, run, when, deferrable):
    """The loop runs for longer than its token is valid."""
    ibm.settings.job_seconds = 2 * HOUR
    run_jobs(deferrable=deferrable, timeout=60)
    when(lambda: ibm.requests("GET", "/v1/jobs"), lambda: ibm.clock.advance(2 * HOUR))
    assert run(dag).state == "success"
    assert ibm.state()["token_exchanges"] == 2
    assert ibm.state()["jobs"] == {"Completed": 3}


def test_token_expires_in_hour_2_and_is_renewed_before(ibm, dag, run, when, monkeypatch):
    """The token is renewed early, so that no request is refused. Both sides go by the service's clock."""
    monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=ibm.clock.now))
    ibm.settings.token_lifetime = HOUR
    ibm.settings.job_seconds = 0.95 * HOUR
    run_jobs(timeout=60)
    when(lambda: ibm.requests("GET", "/v1/jobs"), lambda: ibm.clock.advance(0.95 * HOUR))
    assert run(dag).state == "success"
    assert ibm.state()["token_exchanges"] == 2
    assert [entry for entry in ibm.journal if entry.status == 401] == []


def a_worker(ibm, dag, operator):
    serialize(dag)
    return WorkerRun(ibm, operator, "run").worker


def deferred(worker):
    """The trigger of a deferred task, as a triggerer makes it from the database; and the task instance."""
    ti = worker.task_instance()
    with create_session() as session:
        row = session.get(Trigger, ti.trigger_id)
        return import_string(row.classpath)(**row.kwargs), ti


async def first_event(trigger):
    return await anext(trigger.run())
