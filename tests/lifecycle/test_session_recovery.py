# SPDX-License-Identifier: Apache-2.0
"""A session is opened by a task, and is that task's, whatever becomes of replies, workers and attempts."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import task

from airflow_provider_ibm_sessions.hooks.fingerprint import max_ttl_with_fingerprint
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX
from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator, IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from testing.airflow_runs import Run, cleared, create_dag_run, fails_once, failures_of, next_try, serialize
from testing.dag_tasks import AT_ONCE, registered_sessions
from testing.fake_ibm import Fault
from testing.session_requests import create_requests, dropped_request, lost_response, share_fingerprint
from testing.worker_process import start_worker, wait_for_exit

pytestmark = pytest.mark.usefixtures("connection", "quick", "airflow_db")

JOB = {"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0; bit[2] meas; qubit[2] q;", None, 10]]}}


def run_jobs(**kwargs):
    return IBMQuantumRunJobsOperator(task_id="run", backend="ibm_fez", jobs=[JOB, JOB], **kwargs)


def create_each(count, **kwargs):
    """A mapped task."""
    each = IBMQuantumCreateSessionOperator.partial(**{"task_id": "create", **kwargs})
    return each.expand(backend=["ibm_fez"] * count)


def create(**kwargs):
    return IBMQuantumCreateSessionOperator(**{"task_id": "create", "backend": "ibm_fez", **kwargs})


def task_instances(dag):
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(TaskInstance).where(TaskInstance.dag_id == dag.dag_id)
        return list(session.scalars(query.order_by(TaskInstance.map_index)))


def queued(dag):
    """What the scheduler does with tasks that are ready for their first attempt."""
    from airflow.utils.session import create_session

    with create_session() as session:
        for ti in task_instances(dag):
            ti.try_number, ti.state = 1, "queued"
            session.merge(ti)
    return task_instances(dag)


def at_once(opener, dag):
    """Run all that is queued, each in a process of its own; returns how they ended."""
    workers = [start_worker(opener, ti) for ti in queued(dag)]
    return [wait_for_exit(worker) for worker in workers]


@pytest.mark.usefixtures("warm")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
class TestTwentyAtOnce:
    """Twenty workers, in processes of their own, open sessions on one backend at the same moment."""

    def test_each_owns_one_though_no_reply_arrives(self, ibm, airflow_db, dag):
        ibm.script(lost_response(times=10, delay=1), dropped_request(times=10, delay=1))
        opener = create_each(20, max_ttl="20m")
        serialize(dag)
        dag_run = create_dag_run(dag, "run")
        assert at_once(opener, dag) == [None] * 20
        owned = Run(dag_run).xcom_of_each("create")
        assert len(owned) == len(set(owned)) == 20
        assert sorted(ibm.state()["accepting"]) == sorted(owned)
        assert len(create_requests(ibm)) == 30


class TestFingerprints:
    def test_tasks_of_a_run_ask_for_different_sessions(self, ibm, dag, run):
        for number in range(6):
            create(task_id=f"create_{number}", max_ttl=7200 + number % 3)
        create_each(3, task_id="mapped", max_ttl=7201)
        assert run(dag).state == "success"
        asked = [post.json["max_ttl"] for post in create_requests(ibm)]
        assert len(set(asked)) == len(asked) == 9

    def test_what_was_asked_for_is_found_though_the_dag_has_changed(self, ibm, dag, run):
        ibm.script(lost_response(), Fault("GET", "/v1/workloads", status=403))
        create()
        first = run(dag)
        assert first.state == "failed"
        create(task_id="another_before_it")
        again = next_try(first, dag, "create")
        assert ibm.state()["accepting"] == list(ibm.sessions) == [again.xcom("create")]

    @pytest.mark.parametrize(
        ("name", "value"), [("backend", "ibm_torino"), ("mode", "batch"), ("max_ttl", "2h")], ids=str
    )
    def test_what_was_asked_for_is_not_left_open_when_other_input_asks_for_another(
        self, ibm, dag, run, name, value
    ):
        ibm.script(lost_response(), Fault("GET", "/v1/workloads", status=403))
        operator = create()
        first = run(dag)
        setattr(operator, name, value)
        again = next_try(first, dag, "create")
        assert len(ibm.sessions) == 2
        assert ibm.state()["accepting"] == [again.xcom("create")]

    def test_two_airflows_with_the_same_dag_and_run_ask_for_different_sessions(self):
        asked = [asked_for(started=second) for second in (1, 2)]
        assert asked[0] != asked[1]

    def test_with_few_marks_what_is_asked_for_is_exact_and_nothing_is_taken_up(self, ibm, dag, run, output):
        ibm.script(lost_response())
        create(max_ttl="4m")
        assert run(dag).state == "failed"
        [post] = create_requests(ibm)
        assert post.json["max_ttl"] == 240
        assert f"It may be {next(iter(ibm.sessions))}" in output()

    def test_strangers_with_the_same_mark_never_share_a_session(self, ibm, dag, run, monkeypatch):
        share_fingerprint(monkeypatch)
        create()
        owned = run(dag).xcom("create")
        ibm.script(dropped_request())
        other = run(dag).xcom("create")
        asked = [session.max_ttl for session in ibm.sessions.values()]
        assert asked[0] == asked[1]
        assert [owned, other] == list(ibm.sessions) == ibm.state()["accepting"]

    def test_where_there_are_fewer_marks_than_tasks_nothing_is_taken_up(self, ibm, dag, run, output):
        ibm.script(lost_response())
        create_each(3, max_ttl=40)
        result = run(dag)
        [unanswered, *owned] = ibm.sessions
        assert result.state == "failed"
        assert sorted(result.xcom_of_each("create")) == sorted(owned), "in whatever order they ran"
        assert f"It may be {unanswered}" in output()


def asked_for(started):
    """Return the max_ttl of the only task of a run that has started in this second."""
    names = {"dag_id": "nightly", "run_id": "scheduled__2026-11-22", "task_id": "create", "map_index": -1}
    context = {
        "ti": SimpleNamespace(**names),
        "dag": SimpleNamespace(tasks=[SimpleNamespace(task_id="create", template_fields=())]),
        "dag_run": SimpleNamespace(start_date=datetime(2026, 11, 22, 0, 0, started, tzinfo=UTC)),
    }
    seconds, _ = max_ttl_with_fingerprint(context, 28800)
    return seconds


class TestFunction:
    def test_it_gets_the_session_whose_reply_was_lost(self, ibm, dag, run, monkeypatch):
        monkeypatch.setattr(IBMQuantumHook, "qiskit_session", lambda self, session_id, **_: session_id)
        ibm.script(lost_response())
        with dag:

            @task.ibm_quantum_session(backend="ibm_fez", max_ttl="20m")
            def work(session):
                return session

            work()
        result = run(dag)
        assert [result.xcom("work")] == list(ibm.sessions)
        assert ibm.state()["accepting"] == []


def run_until_closed(ibm, dag, run):
    """A run that has opened a session and closed it."""
    opened = create()
    IBMQuantumCloseSessionOperator(task_id="close", session_id=opened.output)
    result = run(dag)
    assert ibm.state()["sessions"] == {"closed": 1}
    return result


class TestClear:
    def test_while_the_session_takes_jobs_it_is_used_again(self, ibm, dag, run):
        create()
        again = cleared(run(dag), dag, "create")
        assert [again.xcom("create")] == [again.xcom("create", "session")["id"]] == list(ibm.sessions)
        assert len(create_requests(ibm)) == 1

    def test_after_its_end_another_is_opened(self, ibm, dag, run):
        first = run_until_closed(ibm, dag, run)
        again = cleared(first, dag, "create")
        assert ibm.state()["accepting"] == [again.xcom("create")] == list(ibm.sessions)[1:]

    def test_after_its_end_another_is_found_when_the_reply_is_lost(self, ibm, dag, run):
        first = run_until_closed(ibm, dag, run)
        ibm.script(lost_response())
        again = cleared(first, dag, "create")
        assert ibm.state()["accepting"] == [again.xcom("create")] == list(ibm.sessions)[1:]

    @pytest.mark.parametrize(
        ("name", "value"), [("backend", "ibm_torino"), ("mode", "batch"), ("max_ttl", "2h")], ids=str
    )
    def test_with_other_input_the_old_one_is_closed(self, ibm, dag, run, name, value):
        operator = create()
        first = run(dag)
        setattr(operator, name, value)
        again = cleared(first, dag, "create")
        old, new = ibm.sessions.values()
        assert old.state == "closed"
        assert (new.id, new.accepts_jobs) == (again.xcom("create"), True)


class TestRetry:
    def test_looks_for_what_the_attempt_before_could_not_look_for(self, ibm, dag, run):
        ibm.script(lost_response(), Fault("GET", "/v1/workloads", status=403))
        create(retries=1, **AT_ONCE)
        result = run(dag)
        assert result.tasks["create"].try_number == 2
        assert ibm.state()["accepting"] == list(ibm.sessions) == [result.xcom("create")]

    def test_after_a_refusal_it_does_not_look(self, ibm, dag, run):
        ibm.script(Fault("POST", "/v1/sessions", status=429, headers={"Retry-After": "60"}))
        create(retries=1, **AT_ONCE)
        assert run(dag).tasks["create"].try_number == 2
        assert ibm.requests("GET", "/v1/workloads") == []
        assert len(ibm.sessions) == 1

    def test_a_refusal_is_told_though_airflow_cannot_note_it(self, dag, run, ibm, monkeypatch):
        from airflow.sdk.execution_time.context import TaskStateStoreAccessor

        original = TaskStateStoreAccessor.set

        def put(self, key, value, **kwargs):
            if not value["pending_create"]:
                raise RuntimeError("the state store is down")
            original(self, key, value, **kwargs)

        monkeypatch.setattr(TaskStateStoreAccessor, "set", put)
        ibm.settings.plan = "open"
        create()
        assert "1352" in failures_of(dag, run)["create"]

    def test_a_refused_retry_does_not_hide_what_the_attempt_before_has_opened(self, ibm, dag, run):
        hidden = Fault("GET", "/v1/workloads", times=None, json={"workloads": []})
        ibm.script(lost_response(), hidden, Fault("POST", "/v1/sessions", status=403, times=None))
        create()
        first = run(dag)
        second = next_try(first, dag, "create")
        assert second.state_of("create") == "failed"
        ibm.clear_faults()
        third = next_try(second, dag, "create")
        assert ibm.state()["accepting"] == list(ibm.sessions) == [third.xcom("create")]

    def test_jobs_are_run_in_the_session_of_the_attempt_before_and_it_is_on_the_list(
        self, ibm, dag, run, monkeypatch
    ):
        fails_once(monkeypatch, IBMQuantumRunJobsOperator, "take_session")
        vanishes(monkeypatch)
        listed = []
        monkeypatch.setattr(IBMQuantumRunJobsOperator, "_clean_up_after_error", lambda *_: None)
        drain = IBMQuantumHook.update_session
        monkeypatch.setattr(
            IBMQuantumHook,
            "update_session",
            lambda self, *args, **kwargs: (
                listed.append(registered_sessions()) or drain(self, *args, **kwargs)
            ),
        )
        run_jobs(retries=1, poll_interval=0.1, timeout=20, **AT_ONCE)
        run(dag)
        assert len(ibm.sessions) == 1
        assert set(ibm.sessions) <= set(*listed)

    def test_after_an_id_that_could_not_be_stored_the_session_is_closed(self, ibm, dag, run, monkeypatch):
        fails_once(monkeypatch, IBMQuantumCreateSessionOperator, "take_session")
        create(retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert ibm.state()["accepting"] == [result.xcom("create")]


class TestOlderAirflow:
    """Before 3.3 there is no task state store: the mark has to be enough."""

    @pytest.fixture(autouse=True)
    def without_store(self, monkeypatch):
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        original = RuntimeTaskInstance.get_template_context

        def context(self):
            return {name: value for name, value in original(self).items() if name != "task_state_store"}

        monkeypatch.setattr(RuntimeTaskInstance, "get_template_context", context)

    def test_a_lost_reply_leaves_one_session(self, ibm, dag, run):
        ibm.script(lost_response())
        create()
        result = run(dag)
        assert ibm.state()["accepting"] == list(ibm.sessions) == [result.xcom("create")]

    def test_a_retry_takes_up_the_session_that_has_no_job(self, ibm, dag, run, monkeypatch):
        fails_once(monkeypatch, IBMQuantumCreateSessionOperator, "take_session")
        vanishes(monkeypatch)
        create(retries=1, **AT_ONCE)
        result = run(dag)
        assert result.tasks["create"].try_number == 2
        assert ibm.state()["accepting"] == list(ibm.sessions) == [result.xcom("create")]

    def test_a_kill_does_not_ask_who_goes_on(self, ibm, dag, terminate, monkeypatch):
        """The question might get the answer to one that the interrupted thread has asked."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        asked = []
        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **kwargs: asked.append(kwargs))
        ibm.settings.job_seconds = 600
        run_jobs(poll_interval=0.1, timeout=20)
        terminate(lambda: ibm.requests("GET", "/v1/jobs"))
        attempted(dag)
        assert asked == []
        assert ibm.state()["jobs"] == {"Cancelled": 2}


def vanishes(monkeypatch):
    """Who fails gets to nothing else, as if it were killed."""
    monkeypatch.setattr("airflow_provider_ibm_sessions.operators.base.close_quietly", lambda *_: None)


BEGUN = ["later attempt", "other session"]
GIVEN_UP = ["queued", "scheduled", None, "up_for_retry", "restarting", *BEGUN]


class TestKilled:
    """SIGTERM strikes a worker: it ends what it has begun, unless another attempt goes on with that."""

    @pytest.fixture
    def kill(self, dag, terminate):
        """Kill the task as soon as something is so, after Airflow has noted why: ``kill(why, when)``."""

        def arm(why, when):
            def noted():
                if not when():
                    return False
                note(dag, why)
                return True

            terminate(noted)

        return arm

    @pytest.mark.parametrize("why", GIVEN_UP[:-1], ids=str)
    def test_jobs_that_another_attempt_goes_on_with_are_left_alone(self, ibm, dag, kill, why):
        ibm.settings.job_seconds = 1.5
        run_jobs(poll_interval=0.1, timeout=20)
        kill(why, lambda: ibm.requests("GET", "/v1/jobs"))
        first = attempted(dag)
        assert_nothing_was_ended(ibm)
        again = next_try(first, dag, "run")
        assert [report["id"] for report in again.xcom("run")] == list(ibm.jobs)
        assert len(ibm.jobs) == 2

    @pytest.mark.parametrize("why", ["failed", "success"])
    def test_jobs_of_a_task_that_a_user_has_ended_are_ended(self, ibm, dag, kill, why):
        ibm.settings.job_seconds = 600
        run_jobs(poll_interval=0.1, timeout=20)
        kill(why, lambda: ibm.requests("GET", "/v1/jobs"))
        attempted(dag)
        assert ibm.state()["sessions"] == {"closed": 1}
        assert ibm.state()["jobs"] == {"Cancelled": 2}

    @pytest.mark.parametrize("why", ["queued", "later attempt"])
    @pytest.mark.parametrize("phase", ["before", "after"])
    def test_jobs_are_not_doubled_by_one_that_was_submitting(self, ibm, dag, kill, why, phase):
        ibm.settings.job_seconds = 1
        ibm.script(Fault("POST", "/v1/jobs", delay=3, phase=phase))
        run_jobs(poll_interval=0.1, timeout=20)
        kill(why, lambda: ibm.requests("POST", "/v1/jobs"))
        first = attempted(dag)
        assert_nothing_was_ended(ibm)
        assert len(ibm.jobs) == 1, "it has begun nothing more"
        again = next_try(first, dag, "run")
        assert [report["id"] for report in again.xcom("run")] == list(ibm.jobs)
        assert ibm.state()["jobs"] == {"Completed": 2}
        assert ibm.state()["sessions"] == {"closed": 1}

    @pytest.mark.parametrize("why", ["queued", "later attempt"])
    @pytest.mark.parametrize("phase", ["before", "after"])
    def test_a_session_that_was_being_opened_is_the_next_attempts(self, ibm, dag, kill, why, phase):
        ibm.script(Fault("POST", "/v1/sessions", delay=3, phase=phase))
        create()
        kill(why, lambda: create_requests(ibm))
        first = attempted(dag)
        assert_nothing_was_ended(ibm)
        again = next_try(first, dag, "create")
        assert ibm.state()["accepting"] == list(ibm.sessions) == [again.xcom("create")]

    @pytest.mark.parametrize("phase", ["before", "after"])
    def test_a_session_that_was_being_opened_is_closed_when_a_user_ends_the_task(self, ibm, dag, kill, phase):
        ibm.script(Fault("POST", "/v1/sessions", delay=3, phase=phase))
        create()
        kill("failed", lambda: create_requests(ibm))
        attempted(dag)
        assert ibm.state()["sessions"] == {"closed": 1}

    @pytest.mark.parametrize(
        ("why", "state"), [("failed", "closed"), ("running", "closed"), ("queued", "open")]
    )
    def test_a_session_that_was_opened_and_not_told_yet(self, ibm, dag, kill, why, state):
        opened = []
        create(post_execute=lambda *_: opened.append(True) or time.sleep(1))
        kill(why, lambda: opened)
        attempted(dag)
        assert ibm.state()["sessions"] == {state: 1}

    @pytest.mark.parametrize(("why", "status"), [("queued", "Completed"), ("failed", "Cancelled")])
    @pytest.mark.parametrize("moment", ["waiting", "submitting"])
    def test_a_job_that_stands_alone(self, ibm, dag, kill, why, status, moment):
        ibm.settings.job_seconds = 1.5 if status == "Completed" else 600
        if moment == "submitting":
            ibm.script(Fault("POST", "/v1/jobs", delay=3, phase="after"))
        IBMQuantumSubmitJobOperator(
            task_id="submit",
            backend="ibm_fez",
            program_id=JOB["program_id"],
            program_params=JOB["params"],
            poll_interval=0.1,
            timeout=20,
        )
        kill(why, lambda: ibm.requests("POST", "/v1/jobs") if moment == "submitting" else looks_at_job(ibm))
        first = attempted(dag)
        if status == "Completed":
            assert_nothing_was_ended(ibm)
            assert next_try(first, dag, "submit").xcom("submit")["id"] in ibm.jobs
        assert [job.status for job in ibm.jobs.values()] == [status]

    def test_who_was_given_up_ends_what_it_alone_has_opened(self, ibm, dag, kill):
        """Its request was under way for so long that the next attempt has opened another session."""
        ibm.script(Fault("POST", "/v1/sessions", delay=3))
        create()
        kill("other session", lambda: create_requests(ibm))
        attempted(dag)
        assert ibm.state()["sessions"] == {"closed": 1}


@pytest.mark.parametrize("why", ["queued", "later attempt"])
def test_who_was_given_up_and_fails_before_a_signal_comes_ends_nothing(ibm, dag, when, why):
    ibm.settings.job_seconds = 1.5
    ibm.script(Fault("POST", "/v1/jobs", skip=1, delay=3, status=403))
    run_jobs(poll_interval=0.1, timeout=20)
    when(lambda: len(ibm.requests("POST", "/v1/jobs")) == 2, lambda: note(dag, why))
    first = attempted(dag)
    assert_nothing_was_ended(ibm)
    assert len(ibm.state()["accepting"]) == 1
    again = next_try(first, dag, "run")
    assert [report["id"] for report in again.xcom("run")] == list(ibm.jobs)
    assert ibm.state()["jobs"] == {"Completed": 2}
    assert ibm.state()["sessions"] == {"closed": 1}


def attempted(dag):
    """The first attempt at the only task; Airflow may know it no more when it is to tell its end."""
    from airflow.sdk.api.client import ServerResponseError
    from airflow.sdk.api.datamodels._generated import TaskInstance as Told
    from airflow.sdk.execution_time.supervisor import run_task_in_process

    serialize(dag)
    dag_run = create_dag_run(dag, "run")
    [ti] = queued(dag)
    names = ("id", "dag_version_id", "task_id", "dag_id", "run_id", "try_number", "map_index")
    told = Told(**{name: getattr(ti, name) for name in names})
    with suppress(ServerResponseError):
        run_task_in_process(ti=told, task=dag.tasks[0])
    return Run(dag_run)


def looks_at_job(ibm):
    return ibm.requests("GET", "/v1/jobs/*")


def assert_nothing_was_ended(ibm):
    assert ibm.requests("DELETE") == []
    assert ibm.requests("POST", "/v1/jobs/*/cancel") == []


def note(dag, why):
    """What Airflow's database says of the task when its worker is killed."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        [ti] = session.scalars(select(TaskInstance).where(TaskInstance.dag_id == dag.dag_id))
        if why in GIVEN_UP:
            ti.prepare_db_for_next_try(session)  # from here on it has another id
        if why not in BEGUN:
            ti.state = why
            return
        ti.state, ti.try_number = "running", 2
        query = select(TaskStateStoreModel).where(TaskStateStoreModel.dag_id == dag.dag_id)
        rows = {row.key: row for row in session.scalars(query)}
        record = json.loads(rows["ibm_quantum_task_state"].value)
        rows["ibm_quantum_task_state"].value = json.dumps({**record, "try_number": 2})
        if why == "other session":
            stored = {**record, "try_number": 2, "session_id": "the-next-attempts"}
            rows["ibm_quantum_task_state"].value = json.dumps(stored)
            owner = {name: getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
            entry = json.dumps({"conn_id": "ibm_quantum_default", **owner})
            session.add(Variable(PREFIX + "the-next-attempts", entry))
