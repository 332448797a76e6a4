# SPDX-License-Identifier: Apache-2.0
"""What an earlier attempt or another connection has left is closed or told of, never just forgotten."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import pytest
from airflow.sdk import task

from airflow_provider_ibm_sessions.decorators.session import IBMQuantumSessionDecoratedOperator
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from testing.airflow_runs import cleared, next_try
from testing.connections import connection_to
from testing.dag_tasks import registered_sessions, run_jobs
from testing.fake_ibm import FakeIBM, Fault
from testing.secret_scan import remember_secrets
from testing.session_requests import create_requests

pytestmark = pytest.mark.usefixtures("connection", "quick", "airflow_db")

CLOSE = {"method": "DELETE", "path": "/v1/sessions/*"}
PARAMS = {"pubs": [["OPENQASM 3.0; bit[1] m; qubit[1] q;", None, 1]]}


@pytest.fixture
def another_instance(monkeypatch):
    """The connection ``another`` leads to another instance, which knows none of our sessions."""
    with FakeIBM(frozen=True) as other:
        monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", connection_to(other))
        yield other
        remember_secrets(other)


class TestRetriesOfAFunction:
    """A worker has died in the function, and its session takes jobs."""

    @pytest.fixture
    def begun(self, ibm, dag, run, monkeypatch):
        with dag:

            @task.ibm_quantum_session(backend="ibm_fez", max_ttl="10m")
            def work(session):
                return 1

            work()

        def die(*_):
            raise RuntimeError("the worker died")

        with monkeypatch.context() as dying:
            dying.setattr(IBMQuantumSessionDecoratedOperator, "_call", die)
            module = "airflow_provider_ibm_sessions.decorators.session.close_quietly"
            dying.setattr(module, lambda *_: None)
            first = run(dag)
        monkeypatch.setattr(IBMQuantumSessionDecoratedOperator, "_call", lambda *_: 1)
        [name] = ibm.state()["accepting"]
        return first, name

    def test_close_it_though_ibm_fails_at_first(self, ibm, dag, begun):
        first, name = begun
        ibm.script(Fault(**CLOSE, status=503, times=3))
        assert next_try(first, dag, "work").state_of("work") == "success"
        assert ibm.sessions[name].state == "closed"
        assert ibm.state()["accepting"] == []
        assert not set(registered_sessions()) & set(ibm.sessions)

    def test_end_its_jobs_though_it_drains(self, ibm, dag, begun):
        first, name = begun
        ibm.settings.job_seconds = 600
        hook = IBMQuantumHook()
        hook.submit_job("sampler", backend="ibm_fez", session_id=name, params=PARAMS)
        hook.drain_session(name)
        assert next_try(first, dag, "work").state_of("work") == "success"
        assert ibm.sessions[name].state == "closed"
        assert [job.status for job in ibm.jobs.values()] == ["Cancelled"]

    def test_fail_and_name_it_if_it_cannot_be_closed(self, ibm, dag, begun, output):
        first, name = begun
        ibm.script(Fault(**CLOSE, status=403, times=None))
        ibm.script(Fault("PATCH", "/v1/sessions/*", status=403, times=None))
        assert next_try(first, dag, "work").state_of("work") == "failed"
        assert len(create_requests(ibm)) == 1
        assert f"Session {name} may still be open" in output()
        assert name in registered_sessions()


class TestAnotherConnection:
    def test_closing_there_fails_and_names_where_it_is(self, ibm, another_instance, dag, run, output):
        with dag:
            opened = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
            opened >> IBMQuantumCloseSessionOperator(
                task_id="close", session_id=opened.output, ibm_quantum_conn_id="another"
            )
        assert run(dag).state == "failed"
        [name] = ibm.state()["accepting"]
        assert f"must be 'ibm_quantum_default', with which session {name} was opened" in output()
        assert name in registered_sessions()
        assert another_instance.requests("DELETE")

    def test_a_retry_there_opens_no_second_one(self, ibm, another_instance, dag, run, output):
        with dag:
            operator = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
        first = run(dag)
        name = first.xcom("create")
        operator.ibm_quantum_conn_id = "another"
        operator.__dict__.pop("hook", None)
        assert next_try(first, dag, "create").state_of("create") == "failed"
        assert another_instance.sessions == {}
        assert f"must be 'ibm_quantum_default', with which session {name} was opened" in output()


class TestAfterTheEnd:
    """Airflow lets SIGTERM reach a task whose ``execute()`` has ended."""

    def test_a_task_that_has_succeeded_leaves_its_session_to_the_run(self, ibm, dag, run, terminate):
        def overtime(context):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(3)

        terminate(lambda: False)  # restores the handler
        with dag:
            IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", on_success_callback=overtime)
        result = run(dag)
        assert ibm.state()["accepting"] == [result.xcom("create")]

    def test_a_session_that_a_kill_has_closed_is_not_handed_on(self, ibm, dag, run, terminate):
        def overtime(context, result=None):
            if not ibm.requests("DELETE"):
                os.kill(os.getpid(), signal.SIGTERM)

        terminate(lambda: False)
        with dag:
            IBMQuantumCreateSessionOperator(
                task_id="create",
                backend="ibm_fez",
                post_execute=overtime,
                retries=1,
                retry_delay=timedelta(0),
            )
        result = run(dag)
        assert [session.state for session in ibm.sessions.values()] == ["closed", "open"]
        assert result.xcom("create") == list(ibm.sessions)[1]

    def test_a_session_that_has_jobs_is_taken_up_when_its_task_is_cleared(self, ibm, dag, run):
        ibm.settings.job_seconds = 600
        with dag:
            IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
        first = run(dag)
        name = first.xcom("create")
        IBMQuantumHook().submit_job("sampler", backend="ibm_fez", session_id=name, params=PARAMS)
        assert cleared(first, dag, "create").xcom("create") == name
        assert list(ibm.sessions) == [name]


class TestAirflowDoesNotAnswer:
    def test_an_entry_is_written_again(self, ibm, dag, run, monkeypatch):
        from airflow.sdk import Variable

        write, failures = Variable.set, [RuntimeError("Airflow's API: 503")]

        def fail_once(*args, **kwargs):
            if failures:
                raise failures.pop()
            write(*args, **kwargs)

        monkeypatch.setattr(Variable, "set", fail_once)
        with dag:
            IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
        assert run(dag).xcom("create") in registered_sessions()


class TestRunJobs:
    def test_what_cannot_be_read_is_closed_all_the_same(self, ibm, dag, run, output):
        with dag:
            run_jobs()
        ibm.script(Fault("PATCH", "/v1/sessions/*", status=500, times=None))
        ibm.script(Fault("GET", "/v1/sessions/*", skip=1, html=True, times=None))
        run(dag)
        [name] = ibm.sessions
        assert ibm.requests("DELETE")
        assert ibm.sessions[name].state == "closed"
        assert f"Session {name} may still be open: https://quantum.cloud.ibm.com" in output()

    def test_more_jobs_than_a_page_holds_are_cancelled(self, ibm):
        from airflow_provider_ibm_sessions.client import flows

        ibm.settings.job_seconds, ibm.settings.lanes = 600, 300
        hook = IBMQuantumHook()
        name = hook.create_session("ibm_fez").id
        for _ in range(205):
            hook.submit_job("sampler", backend="ibm_fez", session_id=name, params=PARAMS)
        with hook.client() as client:
            assert client.run_flow(flows.close_and_cancel(name, [])) == []
        assert {job.status for job in ibm.jobs.values()} == {"Cancelled"}
