# SPDX-License-Identifier: Apache-2.0
"""Airflow's API answers 503 for a while: that says nothing of what it has, and loses nothing."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from sqlalchemy.exc import OperationalError

from airflow_provider_ibm_sessions.cli.metastore import MetastoreSessionRegistry, hook_from_database
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from testing.airflow_runs import next_try
from testing.connections import connection_to
from testing.dag_tasks import AT_ONCE, decisions, own, run_jobs, sweep
from testing.fake_ibm import FakeIBM
from testing.secret_scan import remember_secrets
from testing.session_requests import (
    create_requests,
    dropped_request,
    is_open,
    lost_response,
    share_fingerprint,
)
from testing.signatures import classes, make

CONN = "ibm_quantum_default"
HOUR = 3600
A_SECOND = {"retry_delay": timedelta(seconds=1)}


@pytest.mark.parametrize("cls", classes(BaseOperator, "operators", "sensors"), ids=lambda cls: cls.__name__)
def test_with_default_arguments_a_task_outlasts_a_minute_without_airflow(cls):
    task = make(cls)
    delays = [task.retry_delay * 2**number for number in range(task.retries)]
    assert task.retry_exponential_backoff == 2
    assert sum((min(delay, task.max_retry_delay or delay) for delay in delays), timedelta(0)) > timedelta(
        minutes=2
    )


def test_a_function_that_would_be_paid_for_again_is_not_retried_by_default():
    [cls] = [each for each in classes(BaseOperator, "decorators") if "Session" in each.__name__]
    assert make(cls).retries == 0


@pytest.fixture
def stored(ibm, airflow_db):
    """The connection, where most installations have it: in Airflow's database."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    fields = json.loads(connection_to(ibm))
    with create_session() as session:
        session.add(Connection(CONN, **{**fields, "extra": json.dumps(fields["extra"])}))
    yield
    with create_session() as session:
        session.execute(delete(Connection).where(Connection.conn_id == CONN))


@pytest.fixture
def another_account(monkeypatch):
    """The environment has the key of another one."""
    with FakeIBM() as other:
        monkeypatch.setenv("IBM_CLOUD_API_KEY", other.api_key)
        monkeypatch.setenv("IBM_QUANTUM_CRN", other.crn)
        yield other
        remember_secrets(other)


@pytest.mark.usefixtures("stored", "quick")
class TestConnection:
    def closing(self, ibm, dag):
        session_id = ibm.add_session(age=HOUR).id
        with dag:
            IBMQuantumCloseSessionOperator(task_id="close", session_id=session_id, retries=1, **AT_ONCE)
        return session_id

    def test_closing_is_tried_again(self, ibm, dag, run, airflow_fails):
        session_id = self.closing(ibm, dag)
        airflow_fails("Connection", times=6)
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["close"].try_number == 2
        assert not is_open(ibm, session_id)

    def test_the_environment_does_not_stand_in_for_it(self, ibm, another_account, dag, run, airflow_fails):
        session_id = self.closing(ibm, dag)
        airflow_fails("Connection", times=2)
        assert run(dag).state == "success"
        assert not is_open(ibm, session_id)
        assert another_account.journal == []

    def test_a_trigger_gives_nothing_up(self, ibm, dag, run, monkeypatch, airflow_fails):
        from airflow_provider_ibm_sessions.triggers.base import IBMQuantumTrigger

        ibm.settings.job_seconds = 1
        watch, fails = IBMQuantumTrigger.run, iter([True])

        def run_once_without_airflow(self):
            if next(fails, False):
                airflow_fails("Connection", times=2)
            return watch(self)

        monkeypatch.setattr(IBMQuantumTrigger, "run", run_once_without_airflow)
        with dag:
            run_jobs(deferrable=True)
        result = run(dag)
        assert result.state == "success"
        assert {job.status for job in ibm.jobs.values()} == {"Completed"}
        assert ibm.requests("DELETE") == []


class TestNoConnection:
    def test_the_environment_stands_in_for_one_that_airflow_has_not(self, another_account, dag, run):
        @dag.task
        def which():
            return IBMQuantumHook().credentials.crn

        which()
        assert run(dag).xcom("which") == another_account.crn

    def create(self, dag):
        with dag:
            IBMQuantumCreateSessionOperator(
                task_id="create", backend="ibm_fez", ibm_quantum_conn_id="typo", retries=1, **AT_ONCE
            )

    def test_one_that_airflow_has_not_is_wrong_input(self, airflow_db, dag, run, output):
        self.create(dag)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["create"].try_number == 1
        assert "There is no Airflow connection 'typo'" in output()

    def test_one_that_a_secrets_backend_may_have_is_looked_for_again(
        self, airflow_db, dag, run, monkeypatch, output
    ):
        backend = "airflow.secrets.environment_variables.EnvironmentVariablesBackend"
        monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", backend)
        self.create(dag)
        result = run(dag)
        assert result.tasks["create"].try_number == 2
        assert "'typo', or the secrets backend does not answer" in output()

    def test_a_database_that_fails_is_none_without_it(self, another_account, monkeypatch):
        def fail(*_, **__):
            raise OperationalError("SELECT", {}, Exception("the database is down"))

        monkeypatch.setattr("airflow_provider_ibm_sessions.cli.metastore.create_session", fail)
        with pytest.raises(AirflowApiUnavailableError, match="the database is down"):
            hook_from_database(CONN)


@pytest.mark.usefixtures("connection", "quick")
class TestVariables:
    @pytest.fixture(autouse=True)
    def _empty_ledger(self, airflow_db):
        registry = MetastoreSessionRegistry()
        for session_id in registry.read_entries([]):
            registry.unregister(session_id, None)

    def test_a_sweep_leaves_alone_what_may_belong_to_a_live_run(self, ibm, run, airflow_fails, output):
        session_id = ibm.add_session(age=HOUR).id
        with DAG("live", schedule=None, default_args={"retries": 0}) as dag:
            own([session_id]) >> sweep(scope="user")
        airflow_fails("Variable")
        result = run(dag)
        assert result.state_of("sweep") == "failed"
        assert is_open(ibm, session_id)
        assert "Airflow did not say if it has the variable" in output()

    def test_a_sweep_closes_the_rest(self, ibm, run, airflow_fails):
        unknown, orphan = (ibm.add_session(age=age).id for age in (2 * HOUR, HOUR))
        with DAG("alone", schedule=None, default_args={"retries": 0}) as dag:
            sweep(scope="user")
        asked = airflow_fails("Variable", times=2)
        result = run(dag)
        assert result.state_of("sweep") == "failed"
        assert len(asked) == 6, "whose each is, and once more when one is closed"
        assert sorted(decisions(result).values()) == ["its owner cannot be found out", "orphaned"]
        assert sorted([is_open(ibm, unknown), is_open(ibm, orphan)]) == [False, True]

    def test_a_sweep_leaves_alone_what_may_be_live(self, ibm, run, monkeypatch):
        planted = {}
        for name in ("silent", "ended"):
            planted[name] = ibm.add_session(age=HOUR).id
            with DAG(name, schedule=None, default_args={"retries": 0}) as dag:
                own([planted[name]])
            run(dag)
        ask = RuntimeTaskInstance.get_dr_count

        def fail_for_one(dag_id, **which):
            if dag_id == "silent":
                raise RuntimeError("Airflow's API: 503")
            return ask(dag_id=dag_id, **which)

        monkeypatch.setattr(RuntimeTaskInstance, "get_dr_count", staticmethod(fail_for_one))
        with DAG("sweeper", schedule=None, default_args={"retries": 0}) as sweeper:
            sweep()
        result = run(sweeper)
        assert result.state == "failed"
        assert decisions(result) == {
            planted["silent"]: "its owner cannot be found out",
            planted["ended"]: "orphaned",
        }
        assert (is_open(ibm, planted["silent"]), is_open(ibm, planted["ended"])) == (True, False)

    def test_what_may_be_ours_is_not_opened_twice(self, ibm, dag, run, airflow_fails, output):
        with dag:
            IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
        ibm.script(lost_response())
        airflow_fails("Variable", times=2)
        first = run(dag)
        assert first.state == "failed"
        [name] = ibm.sessions
        assert "Airflow did not say if it has the variable" in output()
        assert next_try(first, dag, "create").xcom("create") == name
        assert len(create_requests(ibm)) == 1

    def test_what_is_anothers_is_not_taken_up(self, ibm, dag, run, monkeypatch, airflow_fails):
        share_fingerprint(monkeypatch)
        with DAG("other", schedule=None, default_args={"retries": 0}) as other:
            IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
        anothers = run(other).xcom("create")
        with dag:
            IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", retries=3, **A_SECOND)
        ibm.script(dropped_request())
        airflow_fails("Variable", times=5)
        assert run(dag).xcom("create") not in (anothers, None)
        assert str(MetastoreSessionRegistry().get_owner(anothers)).startswith("other.create")
