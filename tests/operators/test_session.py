# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import time
from datetime import timedelta
from enum import Enum

import pytest
from airflow.models import Variable
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, task

from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.links import console_url
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from testing.airflow_runs import with_rendered
from testing.connections import connection_to
from testing.fake_ibm import Fault
from testing.retry_policies import single_attempt
from testing.session_requests import assert_asked, create_requests, submit_job

pytestmark = pytest.mark.usefixtures("connection")

LINK = "_link_IBMQuantumSessionLink"


def create(**kwargs):
    return IBMQuantumCreateSessionOperator(task_id="create", **{"backend": "ibm_fez", **kwargs})


def owner_entry(conn_id):
    owner = SessionOwner(conn_id=conn_id, dag_id="d", run_id="r", task_id="t", opened=time.time())
    return owner.to_json()


def open_session(ibm, **kwargs):
    return ibm.add_session(**{"state": "open", "age": 1, **kwargs})


class TestCreate:
    def test_returns_the_id_and_pushes_the_details(self, ibm, dag, run):
        create(max_ttl="1h 30m")
        result = run(dag)
        [session_id] = ibm.sessions
        assert result.state == "success"
        assert result.xcom("create") == session_id
        details = result.xcom("create", "session")
        assert details["id"] == session_id
        assert details["max_ttl"] == ibm.sessions[session_id].max_ttl
        assert details["mode"] == "dedicated"
        assert_asked(ibm, 5400)
        assert session_id in result.xcom("create", LINK)

    @pytest.mark.parametrize("max_ttl", [600, timedelta(minutes=10), "10m", "600", "{{ params.minutes }}m"])
    def test_max_ttl_is_always_sent_in_seconds(self, ibm, run, max_ttl):
        with DAG("max_ttl_forms", schedule=None, params={"minutes": 10}) as dag:
            create(max_ttl=max_ttl)
        assert run(dag).state == "success"
        assert_asked(ibm, 600)

    def test_max_ttl_follows_the_dags_timeout(self, ibm, run):
        with DAG("max_ttl_of_dag", schedule=None, dagrun_timeout=timedelta(hours=2)) as dag:
            create()
        run(dag)
        assert_asked(ibm, 7200)

    def test_max_ttl_is_ibms_default_otherwise(self, ibm, dag, run):
        create()
        run(dag)
        assert_asked(ibm, 28800)

    def test_warns_when_ibm_grants_less(self, ibm, dag, run, output):
        ibm.settings.plan = "open"
        create(mode="batch", max_ttl="8h")
        result = run(dag)
        assert result.xcom("create", "session")["max_ttl"] == 600
        assert "a max_ttl of 600 s, not the 28800 s asked for: the plan's limit" in output()

    def test_default_args_reach_the_connection_id(self, ibm, run):
        with DAG(
            "default_args", schedule=None, default_args={"ibm_quantum_conn_id": "another", "retries": 0}
        ) as dag:
            operator = create()
        assert operator.ibm_quantum_conn_id == "another"
        assert run(dag).state == "failed"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"mode": "interactive"},
            {"backend": ""},
            {"backend": "two words"},
            {"max_ttl": 0},
            {"max_ttl": -5},
            {"max_ttl": True},
            {"max_ttl": "2 fortnights"},
            {"max_ttl": timedelta(0)},
        ],
        ids=str,
    )
    def test_bad_input_fails_at_once_and_sends_nothing(self, ibm, dag, run, wrong, output):
        with_rendered(create(retries=3, retry_delay=timedelta(0)), **wrong)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["create"].try_number == 1
        assert ibm.journal == []
        assert re.search(f"{next(iter(wrong))} (must be|is empty)", output())

    def test_a_backend_that_a_template_rendered_to_nothing_opens_none(self, ibm, dag, run, output):
        create(backend="{{ ti.xcom_pull(task_ids='nope') }}")
        assert run(dag).state == "failed"
        assert ibm.journal == []
        assert "backend is empty (got 'None'). If a template was to fill it" in output()

    def test_without_max_ttl_it_says_how_long_it_may_be_billed(self, dag, run, output):
        create()
        run(dag)
        assert "the session may be billed for up to 8 hours. Set max_ttl to bound it" in output()

    def test_a_session_that_no_task_closes_is_warned_of(self, dag, run, output):
        create(max_ttl="10m")
        run(dag)
        assert "No task of this Dag closes the session that create opens" in output()

    @pytest.mark.parametrize("ender", ["close", "update"])
    def test_one_that_a_task_closes_or_drains_is_not(self, dag, run, output, ender):
        session_id = create(max_ttl="10m").output
        if ender == "close":
            IBMQuantumCloseSessionOperator(task_id=ender, session_id=session_id)
        else:
            IBMQuantumUpdateSessionOperator(task_id=ender, session_id=session_id, accepting_jobs=False)
        assert run(dag).state == "success"
        assert "No task of this Dag closes" not in output()

    def test_string_enums_are_their_values(self, ibm, dag, run):
        class Name(str, Enum):  # noqa: UP042  what people write; its str() is "Name.QPU"
            QPU = "ibm_torino"
            CONNECTION = "ibm_quantum_default"
            MODE = "batch"

        create(backend=Name.QPU, mode=Name.MODE, ibm_quantum_conn_id=Name.CONNECTION)
        assert run(dag).state == "success"
        [session] = ibm.sessions.values()
        assert (session.backend, session.mode) == ("ibm_torino", "batch")

    def test_a_plan_without_dedicated_sessions_is_told(self, ibm, dag, run, output):
        ibm.settings.plan = "open"
        create(retries=3)
        result = run(dag)
        assert result.state == "failed"
        assert len(create_requests(ibm)) == 1
        assert "mode='batch'" in output()

    @pytest.mark.parametrize("fault", [{"status": 504}, {"drop": True}, {"truncate": True}], ids=str)
    def test_a_session_whose_reply_was_lost_is_taken_up(self, ibm, dag, run, quick, fault):
        ibm.script(Fault(method="POST", path="/v1/sessions", phase="after", **fault))
        create(retries=3)
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["create"].try_number == 1
        assert ibm.state()["accepting"] == list(ibm.sessions) == [result.xcom("create")]

    @pytest.mark.parametrize("phase", ["before", "after"])
    def test_a_timeout_during_the_post_leaves_nothing_open(self, ibm, dag, run, quick, time_out, phase):
        ibm.script(Fault(method="POST", path="/v1/sessions", phase=phase, delay=4))
        create(execution_timeout=timedelta(minutes=10))
        time_out(lambda: create_requests(ibm))
        assert run(dag).state == "failed"
        assert len(create_requests(ibm)) == 1
        assert ibm.state()["accepting"] == []

    def test_after_a_timeout_during_the_post_the_retry_owns_the_only_session(
        self, ibm, dag, run, quick, time_out
    ):
        ibm.script(Fault(method="POST", path="/v1/sessions", phase="after", delay=4))
        create(retries=1, retry_delay=timedelta(0), execution_timeout=timedelta(minutes=10))
        time_out(lambda: create_requests(ibm))
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["create"].try_number == 2
        assert ibm.state()["accepting"] == [result.xcom("create")]

    def test_a_dag_of_a_week_asks_for_no_more_than_ibm_gives(self, ibm, run):
        with DAG("max_ttl_of_long_dag", schedule=None, dagrun_timeout=timedelta(days=7)) as dag:
            create()
        run(dag)
        assert_asked(ibm, 28800)

    def test_a_failure_after_the_post_closes_the_session(self, ibm, dag, run, monkeypatch):
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        create()
        monkeypatch.setattr(RuntimeTaskInstance, "xcom_push", lambda *_, **__: 1 / 0)
        result = run(dag)
        assert result.state == "failed"
        assert ibm.state()["accepting"] == []


class TestUpdate:
    @pytest.mark.parametrize("flag", [False, "false", "{{ 1 == 2 }}"])
    def test_drains(self, ibm, dag, run, flag):
        session = open_session(ibm)
        IBMQuantumUpdateSessionOperator(task_id="update", session_id=session.id, accepting_jobs=flag)
        result = run(dag)
        assert result.xcom("update") == session.id
        assert ibm.sessions[session.id].accepting_jobs is False

    @pytest.mark.parametrize("session_id", ["", "../x", "a b", "x" * 501, None], ids=str)
    def test_bad_ids_send_nothing(self, ibm, dag, run, session_id):
        update = IBMQuantumUpdateSessionOperator(task_id="update", session_id="abc", accepting_jobs=False)
        with_rendered(update, session_id=session_id)
        assert run(dag).state == "failed"
        assert ibm.journal == []

    @pytest.mark.parametrize("flag", ["maybe", 0, None], ids=str)
    def test_bad_flag(self, ibm, dag, run, flag):
        update = IBMQuantumUpdateSessionOperator(task_id="update", session_id="abc", accepting_jobs=False)
        with_rendered(update, accepting_jobs=flag)
        assert run(dag).state == "failed"
        assert ibm.journal == []

    def test_goes_through_errors_that_pass(self, ibm, dag, run):
        session = open_session(ibm)
        ibm.script(Fault(method="PATCH", path="/v1/sessions/*", status=502, times=2))
        IBMQuantumUpdateSessionOperator(task_id="update", session_id=session.id, accepting_jobs=False)
        assert run(dag).state == "success"
        assert len(ibm.requests("PATCH")) == 3


class TestClose:
    @pytest.mark.parametrize("drain", [False, True])
    @pytest.mark.parametrize("state", ["open", "closed"])
    def test_closes_whatever_the_state(self, ibm, dag, run, drain, state):
        session = open_session(ibm, state=state)
        IBMQuantumCloseSessionOperator(task_id="close", session_id=session.id, drain=drain)
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("close")["state"] == "closed"
        assert ibm.state()["accepting"] == []

    def test_can_be_mapped_over_sessions(self, ibm, dag, run):
        sessions = [open_session(ibm).id for _ in range(3)]
        IBMQuantumCloseSessionOperator.partial(task_id="close", drain=True).expand(session_id=sessions)
        result = run(dag)
        assert result.state == "success"
        assert [closed["id"] for closed in result.xcom_of_each("close")] == sessions
        assert [sessions[1] in link for link in result.xcom_of_each("close", LINK)] == [False, True, False]
        assert ibm.state()["accepting"] == []

    @pytest.mark.parametrize("drain", [False, True])
    def test_a_session_that_nobody_knows_is_no_success(self, ibm, dag, run, output, drain):
        IBMQuantumCloseSessionOperator(task_id="close", session_id="gone", drain=drain, retries=2)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["close"].try_number == 1
        assert "session_id gone is unknown" in output()

    def test_a_session_that_this_airflow_has_opened_and_ibm_does_not_list_yet_is_done(self, ibm, dag, run):
        Variable.set("ibm_quantum_session_late", owner_entry("ibm_quantum_default"))
        IBMQuantumCloseSessionOperator(task_id="close", session_id="late")
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("close") is None

    def test_a_404_about_the_instance_is_not_taken_for_closed(self, ibm, dag, run, monkeypatch):
        session = open_session(ibm)
        last = ibm.crn[-3]
        other = f"{ibm.crn[:-3]}{'1' if last == '0' else '0'}::"
        monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm, crn=other))
        IBMQuantumCloseSessionOperator(task_id="close", session_id=session.id)
        assert run(dag).state == "failed"

    @pytest.mark.parametrize(
        "fault",
        [{"status": 500}, {"status": 503}, {"drop": True}, {"status": 429}, {"truncate": True}],
        ids=str,
    )
    def test_is_sent_again_until_it_is_done(self, ibm, dag, run, fault):
        session = open_session(ibm)
        ibm.script(Fault(method="DELETE", path="/v1/sessions/*", times=2, **fault))
        IBMQuantumCloseSessionOperator(task_id="close", session_id=session.id)
        assert run(dag).state == "success"
        assert ibm.sessions[session.id].state == "closed"

    @pytest.mark.parametrize("drain", [False, True])
    @pytest.mark.parametrize("answer", [{"no_content": True}, {"html": True}], ids=str)
    def test_does_not_believe_an_answer_alone(self, ibm, dag, run, quick, answer, drain):
        session_id = self.session_with_a_job(ibm, job_seconds=600)
        ibm.script(Fault(method="DELETE", path="/v1/sessions/*", **answer))
        self.close_drained(session_id, drain=drain, timeout=0.5)
        assert run(dag).state == "success"
        assert ibm.sessions[session_id].state == "closed"
        assert len(ibm.requests("DELETE")) == 2

    BARRED = (
        Fault(method="DELETE", path="/v1/sessions/*", no_content=True, times=None),
        Fault(method="PATCH", path="/v1/sessions/*", status=403, times=None),
    )
    """Neither closing nor draining has any effect."""

    def test_is_loud_when_the_session_stays_open(self, ibm, dag, run, quick, output):
        session = open_session(ibm)
        ibm.script(*self.BARRED)
        IBMQuantumCloseSessionOperator(task_id="close", session_id=session.id)
        assert run(dag).state == "failed"
        assert f"{session.id} is still not closed" in output()
        assert f"Session {session.id} may still be open: {console_url(session.id)}" in output()
        assert "IBMQuantumTaskError" in output(), "a retry of the task may help"

    def test_a_teardown_that_fails_fails_the_run(self, ibm, run, quick):
        with DAG("loud_teardown", schedule=None, default_args={"retries": 0}) as dag:
            opened = create()
            close = IBMQuantumCloseSessionOperator(task_id="close", session_id=opened.output)
            opened >> close.as_teardown(setups=opened) >> EmptyOperator(task_id="closed")
        ibm.script(*self.BARRED)
        assert run(dag).state == "failed"

    def test_what_cannot_be_closed_is_drained_and_so_closes_itself(self, ibm, dag, run, quick):
        session = open_session(ibm)
        ibm.script(self.BARRED[0])
        IBMQuantumCloseSessionOperator(task_id="close", session_id=session.id)
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("close")["state"] == ibm.sessions[session.id].state == "closed"

    def test_what_cannot_be_closed_takes_no_more_jobs_while_the_last_one_runs(
        self, ibm, dag, run, quick, output
    ):
        session_id = self.session_with_a_job(ibm, job_seconds=600)
        ibm.script(self.BARRED[0])
        IBMQuantumCloseSessionOperator(task_id="close", session_id=session_id)
        assert run(dag).state == "failed"
        assert ibm.state()["accepting"] == []
        assert console_url(session_id) in output()

    def test_a_refusal_that_passes_does_not_cost_the_retries(self, ibm, dag, run, quick):
        session = open_session(ibm)
        ibm.script(
            Fault(method="DELETE", path="/v1/sessions/*", status=403),
            Fault(method="PATCH", path="/v1/sessions/*", status=403),
        )
        IBMQuantumCloseSessionOperator(
            task_id="close", session_id=session.id, retries=1, retry_delay=timedelta(0)
        )
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["close"].try_number == 2
        assert ibm.sessions[session.id].state == "closed"

    @pytest.fixture
    def quick(self, quick, monkeypatch):
        monkeypatch.setattr("airflow_provider_ibm_sessions.client.closing._DELAY", 0.01)

    @pytest.mark.parametrize("deferrable", [False, True])
    @pytest.mark.parametrize("trouble", [{"status": 503, "times": 8}, {"html": True}], ids=str)
    def test_a_failed_look_at_a_draining_session_does_not_kill_its_jobs(
        self, ibm, dag, run, monkeypatch, when, deferrable, trouble
    ):
        single_attempt(monkeypatch)
        session_id = self.session_with_a_job(ibm, job_seconds=600)
        failed = Fault(method="GET", path="/v1/sessions/*", skip=int(deferrable), **trouble)
        ibm.script(failed)
        when(lambda: not ibm.faults.left, lambda: ibm.clock.advance(700))
        self.close_drained(session_id, deferrable=deferrable, timeout=60)
        assert run(dag).state == "success"
        assert [job.status for job in ibm.jobs.values()] == ["Completed"]

    @pytest.mark.parametrize("trouble", [None, "PATCH", "GET"])
    def test_the_tasks_own_timeout_ends_in_a_hard_close(self, ibm, dag, run, time_out, trouble):
        session_id = self.session_with_a_job(ibm, job_seconds=600)
        if trouble:
            ibm.script(Fault(method=trouble, path="/v1/sessions/*", status=503, times=3))
        self.close_drained(session_id, execution_timeout=timedelta(minutes=10))
        time_out(lambda: ibm.requests(trouble or "GET", "/v1/sessions/*"))
        assert run(dag).state == "failed"
        assert ibm.sessions[session_id].state == "closed"

    @pytest.mark.parametrize("status", [400, 409, 500])
    def test_the_state_decides_and_not_the_answer(self, ibm, dag, run, quick, monkeypatch, status):
        single_attempt(monkeypatch)
        session = open_session(ibm, state="closed")
        ibm.script(Fault(method="DELETE", path="/v1/sessions/*", status=status, times=None))
        IBMQuantumCloseSessionOperator(task_id="close", session_id=session.id)
        assert run(dag).state == "success"

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_drain_lets_queued_jobs_run(self, ibm, dag, run, when, deferrable):
        session_id = self.session_with_a_job(ibm, job_seconds=600)
        self.close_drained(session_id, deferrable=deferrable)
        when(lambda: len(ibm.requests("GET", "/v1/sessions/*")) >= 2, lambda: ibm.clock.advance(700))
        assert run(dag).state == "success"
        assert [job.status for job in ibm.jobs.values()] == ["Completed"]
        assert ibm.sessions[session_id].state == "closed"
        assert ibm.requests("DELETE") == []

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_drain_ends_in_a_hard_close(self, ibm, dag, run, deferrable):
        session_id = self.session_with_a_job(ibm, job_seconds=60)
        self.close_drained(session_id, deferrable=deferrable, timeout=1)
        assert run(dag).state == "success"
        assert ibm.state()["accepting"] == []
        assert ibm.sessions[session_id].state == "closed"

    @staticmethod
    def close_drained(session_id, **kwargs):
        return IBMQuantumCloseSessionOperator(
            task_id="close", session_id=session_id, **{"drain": True, "poll_interval": 0.2, **kwargs}
        )

    @staticmethod
    def session_with_a_job(ibm, job_seconds):
        ibm.settings.job_seconds = job_seconds
        session = open_session(ibm)
        submit_job(ibm, session.id)
        return session.id

    def test_teardown_runs_after_a_failure(self, ibm, run):
        with DAG("teardown", schedule=None, default_args={"retries": 0}) as dag:
            opened = create()

            @task
            def fail():
                raise RuntimeError

            close = IBMQuantumCloseSessionOperator(task_id="close", session_id=opened.output)
            opened >> fail() >> close.as_teardown(setups=opened) >> EmptyOperator(task_id="closed")
        result = run(dag)
        assert result.state == "failed", "the work's failure is not hidden by a teardown that went well"
        assert result.state_of("fail") == "failed"
        assert result.state_of("close") == "success"
        assert ibm.state()["accepting"] == []

    def test_an_id_that_a_template_rendered_to_nothing_is_no_success(self, ibm, dag, run, output):
        """The prefix of the TaskGroup was forgotten."""
        with dag:
            with TaskGroup("group"):
                opened = create()
            pulled = "{{ ti.xcom_pull(task_ids='create') }}"
            close = IBMQuantumCloseSessionOperator(task_id="close", session_id=pulled)
            opened >> close.as_teardown(setups=opened) >> EmptyOperator(task_id="closed")
        result = run(dag)
        assert (result.state, result.state_of("close")) == ("failed", "failed")
        assert "session_id is empty (got 'None')" in output()
        assert "which needs the prefix of a TaskGroup" in output()
        assert ibm.requests("DELETE") == []

    @pytest.mark.parametrize("session_id", ["", "../x", "a b", "x" * 501, "None/", None], ids=str)
    def test_bad_ids_send_nothing(self, ibm, dag, run, session_id):
        close = IBMQuantumCloseSessionOperator(task_id="close", session_id="abc", retries=2)
        with_rendered(close, session_id=session_id)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["close"].try_number == 1
        assert ibm.journal == []

    @pytest.mark.parametrize("wrong", [{"timeout": 0}, {"poll_interval": -1}, {"timeout": "soon"}], ids=str)
    def test_bad_times_are_import_errors(self, wrong):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            IBMQuantumCloseSessionOperator(task_id="close", session_id="abc", **wrong)
