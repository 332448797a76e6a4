# SPDX-License-Identifier: Apache-2.0
"""Sessions that a user's own code opens and closes with the hook, in a task and outside of one."""

from __future__ import annotations

import time

import pytest
from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions.client.errors import NotFoundError, OutcomeUnknownError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX
from airflow_provider_ibm_sessions.operators.session import IBMQuantumCreateSessionOperator
from airflow_provider_ibm_sessions.operators.sweep import IBMQuantumSweepSessionsOperator
from testing.fake_ibm import Fault

pytestmark = pytest.mark.usefixtures("connection", "airflow_db")


@pytest.fixture(autouse=True)
def registry():
    """Return the registry's entries by session id: ``registry()``; it is empty before and after the test."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    def entries():
        with create_session() as session:
            found = session.scalars(select(Variable).where(Variable.key.startswith(PREFIX)))
            return {each.key.removeprefix(PREFIX): each.val for each in found}

    def clear():
        with create_session() as session:
            session.execute(delete(Variable).where(Variable.key.startswith(PREFIX)))

    clear()
    yield entries
    clear()


@task
def create(max_ttl=3600):
    return IBMQuantumHook().create_session("ibm_fez", max_ttl=max_ttl).id


@task
def close(session_id):
    session = IBMQuantumHook().close_session(session_id)
    return None if session is None else session.state


def max_ttls(ibm):
    return [post.json["max_ttl"] for post in ibm.requests("POST", "/v1/sessions")]


class TestFingerprint:
    def test_below_272_seconds_there_is_none(self, dag, run):
        asked = [40, 271, 272, 3600]

        @task
        def prepare():
            pending = [IBMQuantumHook().prepare_session("ibm_fez", max_ttl=each) for each in asked]
            return [each.to_json() for each in pending]

        with dag:
            prepare()
        found = run(dag).xcom("prepare")
        assert [each["has_fingerprint"] for each in found] == [False, False, True, True]
        assert [each["max_ttl"] for each in found[:2]] == asked[:2]
        assert all(each["max_ttl"] < seconds for each, seconds in zip(found[2:], asked[2:], strict=True))

    def test_mapped_tasks_have_one_each(self, ibm, dag, run):
        with dag:
            create.expand(max_ttl=[3600] * 5)
        assert run(dag).state == "success"
        assert len(set(max_ttls(ibm))) == 5

    def test_operators_of_a_dag_have_one_each(self, ibm, dag, run):
        with dag:
            for name in "abc":
                IBMQuantumCreateSessionOperator(task_id=name, backend="ibm_fez", max_ttl=3600)
        assert run(dag).state == "success"
        assert len(set(max_ttls(ibm))) == 3

    def test_a_users_tasks_have_one_each(self, ibm, dag, run):
        with dag:
            create.override(task_id="first")()
            create.override(task_id="second")()
        assert run(dag).state == "success"
        assert len(set(max_ttls(ibm))) == 2

    def test_a_users_task_has_not_that_of_an_operator_beside_it(self, ibm, dag, run):
        with dag:
            create.override(task_id="a")()
            IBMQuantumCreateSessionOperator(task_id="b", backend="ibm_fez", max_ttl=3600)
        assert run(dag).state == "success"
        assert len(set(max_ttls(ibm))) == 2

    def test_a_callback_of_a_task_that_opens_none_has_none(self, ibm, dag, run):
        def create_one(_context):
            IBMQuantumHook().create_session("ibm_fez", max_ttl=3600)

        with dag:
            IBMQuantumSweepSessionsOperator(task_id="sweep", on_execute_callback=create_one)
        assert run(dag).state == "success"
        assert max_ttls(ibm) == [3600]

    def test_outside_of_a_task_there_is_none(self, ibm):
        IBMQuantumHook().create_session("ibm_fez", max_ttl=3600)
        assert max_ttls(ibm) == [3600]


class TestInATask:
    def test_a_session_is_registered_for_the_task_and_signed(self, ibm, dag, run, registry):
        with dag:
            create()
        result = run(dag)
        [(session_id, entry)] = registry().items()
        assert session_id == result.xcom("create")
        owner = SessionOwner.parse(entry)
        assert (owner.dag_id, owner.run_id, owner.task_id) == (dag.dag_id, result.dag_run.run_id, "create")
        assert owner.is_signed(session_id, ibm.api_key)
        assert not owner.is_signed(session_id, ibm.api_key[::-1])

    def test_what_its_run_leaves_open_is_swept_as_that_runs(self, ibm, dag, run, registry):
        with dag:
            create()
        result = run(dag)
        time.sleep(1.1)  # until the session is old enough to be swept
        with DAG(f"sweep_{dag.dag_id}", schedule=None, default_args={"retries": 0}) as sweeper:
            IBMQuantumSweepSessionsOperator(task_id="sweep", dry_run=False, min_age=1)
        [report] = run(sweeper).xcom("sweep")["sessions"]
        assert (report["session_id"], report["closed"]) == (result.xcom("create"), True)
        assert f"{dag.dag_id}.create of run {result.dag_run.run_id}" in str(report["owner"])
        assert registry() == {}

    def test_what_it_closes_is_registered_no_more(self, dag, run, registry):
        with dag:
            close(create())
        assert run(dag).xcom("close") == "closed"
        assert registry() == {}

    def test_an_id_that_nobody_knows_is_an_error(self, dag, run, output):
        with dag:
            close("no-such-session")
        assert run(dag).state == "failed"
        assert "session_id no-such-session is unknown" in output()

    def test_a_registered_session_that_ibm_does_not_know_is_closed(self, dag, run, registry):
        @task
        def register():
            IBMQuantumHook().register_session("not-yet-known")
            return "not-yet-known"

        with dag:
            close(register())
        result = run(dag)
        assert (result.state, result.xcom("close")) == ("success", None)


class TestOutsideOfATask:
    """In a notebook, say: there is no registry."""

    def test_a_session_is_opened_and_closed(self, ibm, registry):
        hook = IBMQuantumHook()
        session_id = hook.create_session("ibm_fez").id
        assert registry() == {}
        assert hook.close_session(session_id).is_closed
        assert ibm.sessions[session_id].state == "closed"

    def test_an_id_that_nobody_knows_is_an_error(self):
        with pytest.raises(NotFoundError, match="session_id no-such-session is unknown"):
            IBMQuantumHook().close_session("no-such-session")

    def test_a_session_whose_create_response_was_lost_is_named(self, ibm, quick):
        ibm.script(Fault("POST", "/v1/sessions", phase="after", drop=True))
        with pytest.raises(OutcomeUnknownError) as caught:
            IBMQuantumHook().create_session("ibm_fez", max_ttl=3600)
        assert list(caught.value.candidates) == list(ibm.sessions)
