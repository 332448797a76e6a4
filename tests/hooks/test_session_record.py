# SPDX-License-Identifier: Apache-2.0
"""Records of ended sessions: who keeps them, and what they say."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions.cli.metastore import records_of_run
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.session_record import RECORD_PREFIX, SessionRecord
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX
from airflow_provider_ibm_sessions.operators.run_jobs import IBMQuantumRunJobsOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from testing.airflow_runs import next_try
from testing.connections import connection_to
from testing.dag_tasks import registered_sessions, run_jobs, sampler_job, sweep

PRICE = 1.6


@pytest.fixture(autouse=True)
def _nothing_is_registered(airflow_db):
    from airflow.models.variable import Variable

    for session_id in registered_sessions():
        Variable.delete(PREFIX + session_id)


@pytest.fixture(autouse=True)
def _priced(ibm, airflow_db, monkeypatch):
    priced = connection_to(ibm, price_per_second=PRICE)
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", priced)


def rows():
    """Return what Airflow's database keeps of records, by session id."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = select(TaskStateStoreModel).where(TaskStateStoreModel.key.startswith(RECORD_PREFIX))
        return {row.key.removeprefix(RECORD_PREFIX): row for row in session.scalars(found)}


def records(result):
    return records_of_run(result.dag_run.dag_id, result.dag_run.run_id)


def test_it_says_what_the_session_was_for_and_what_was_billed(ibm, dag, run):
    with dag:
        run_jobs()
    result = run(dag)
    [session] = list(ibm.sessions.values())
    [record] = records(result)
    assert record.to_json() | {"spans": None, "opened": None} == {
        "v": 1,
        "session_id": session.id,
        "conn_id": "ibm_quantum_default",
        "backend": "ibm_fez",
        "mode": "dedicated",
        "owner": {
            "dag_id": dag.dag_id,
            "run_id": result.dag_run.run_id,
            "task_id": "run",
            "map_index": -1,
        },
        "try_number": 1,
        "opened": None,
        "spans": None,
        "max_ttl": session.max_ttl,
        "billed": session.billed_seconds,
        "billed_is_final": True,
        "jobs": {"Completed": 3},
        "qpu_seconds": sum(job.charged(0) for job in ibm.jobs.values()),
        "price_per_second": PRICE,
        "currency": "USD",
        "reason": "session_closed_early",
        "closed_by": f"{dag.dag_id}.run of run {result.dag_run.run_id}",
    }
    assert [state for state, _ in record.spans] == ["open", "active", "closed"]
    assert record.opened == record.spans[0][1] == pytest.approx(session.created)
    assert len(json.dumps(record.to_json())) < 1000
    usage = result.xcom("run", "usage")
    assert usage["billed_seconds"] == session.billed_seconds
    assert usage["cost"] == pytest.approx(session.billed_seconds * PRICE)
    assert usage["settled"] is True


def test_it_is_kept_for_as_long_as_the_configuration_says(ibm, dag, run, monkeypatch):
    with dag:
        run_jobs(task_id="default")
    run(dag)
    monkeypatch.setenv("AIRFLOW__IBM_QUANTUM__RECORD_RETENTION_DAYS", "0")
    with DAG("kept_with_its_run", schedule=None) as other:
        run_jobs(task_id="with_its_run")
    run(other)
    expires = {
        row.task_id: row.expires_at for row in rows().values() if row.dag_id in (dag.dag_id, other.dag_id)
    }
    assert timedelta(days=399) < expires["default"] - datetime.now(UTC) < timedelta(days=401)
    assert expires["with_its_run"] is None


def test_a_failed_job_leaves_its_cost(ibm, dag, run):
    ibm.settings.failures = [0, 1517, 9999]
    with dag:
        run_jobs(mode="batch")
    result = run(dag)
    assert result.state == "failed"
    [record] = records(result)
    assert record.jobs == {"Completed": 1, "Failed": 2}
    [bill] = ibm.bill.values()
    assert record.billed == pytest.approx(bill)
    assert result.xcom("run", "usage")["billed_seconds"] == record.billed
    billed = [job.charged(0) for job in ibm.jobs.values()]
    assert billed[2] == 0, "IBM's own error is not billed"


def test_what_a_killed_try_had_open_is_recorded_by_the_next(ibm, dag, run, monkeypatch):
    """The session was closed where nothing could be stored, as in a triggerer."""

    def die(self, context, state, event):
        self.hook.get_conn().close_session(self.session_id)
        raise RuntimeError("as if the worker had died")

    with dag:
        run_jobs()
    ibm.settings.job_seconds = 600
    with monkeypatch.context() as dying:
        dying.setattr(IBMQuantumRunJobsOperator, "wait", lambda *_: {})
        dying.setattr(IBMQuantumRunJobsOperator, "settle_event", lambda *_: {})
        dying.setattr(IBMQuantumRunJobsOperator, "_finish", die)
        first = run(dag)
    [killed] = registered_sessions()
    for job in ibm.jobs.values():
        IBMQuantumHook().cancel_job(job.id)
    ibm.settings.job_seconds = 0.1
    result = next_try(first, dag, "run")
    assert result.state_of("run") == "success"
    found = {record.session_id: record for record in records(result)}
    assert {name: record.billed for name, record in found.items()} == ibm.bill
    assert (found[killed].try_number, found[killed].jobs) == (1, {"Cancelled": 3})
    [other] = set(found) - {killed}
    assert (found[other].try_number, found[other].jobs) == (2, {"Completed": 3})
    assert registered_sessions() == []


def test_a_try_with_other_input_keeps_the_record_of_the_one_before(ibm, dag, run, monkeypatch):
    with dag:
        operator = run_jobs()
    with monkeypatch.context() as dying:
        dying.setattr(IBMQuantumRunJobsOperator, "wait", lambda *_: 1 / 0)
        first = run(dag)
    operator.jobs = [sampler_job(5)]
    result = next_try(first, dag, "run")
    assert result.state_of("run") == "success"
    assert {record.session_id: record.billed for record in records(result)} == ibm.bill
    assert [record.try_number for record in records(result)] == [1, 2]


def test_what_the_sweep_closes_is_its_owners(ibm, dag, run):
    with dag:
        IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
    owner = run(dag)
    time.sleep(1.1)
    with DAG("sweeps_one", schedule=None, default_args={"retries": 0}) as sweeper:
        sweep(min_age=1)
    swept = run(sweeper)
    [record] = records(owner)
    assert (record.billed, record.billed_is_final, record.jobs) == (0, True, {})
    assert record.owner["task_id"] == "create"
    assert record.closed_by == f"sweeps_one.sweep of run {swept.dag_run.run_id}"
    assert rows()[record.session_id].dag_id == "sweeps_one"
    assert records(swept) == []


def test_what_the_command_closes_is_kept_by_the_owner(ibm, dag, run, monkeypatch):
    from airflow_provider_ibm_sessions.cli.main import main

    with dag:
        IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
    owner = run(dag)
    time.sleep(1.1)
    assert main(["sweep", "--close", "--min-age", "1"]) == 0
    [record] = records(owner)
    assert record.closed_by == "ibm-quantum-sessions sweep"
    assert rows()[record.session_id].task_id == "create"
    assert registered_sessions() == []


def test_the_sweep_leaves_the_record_to_an_owner_that_is_active(ibm, run):
    """Such as a task that waits for the usage of its closed session to be final."""

    @task
    def own_a_closed_one():
        hook = IBMQuantumHook()
        session_id = hook.create_session("ibm_fez", max_ttl="10m").id
        hook.get_conn().close_session(session_id)

    with DAG("sweeps_itself", schedule=None, default_args={"retries": 0}) as dag:
        own_a_closed_one() >> sweep()
    result = run(dag)
    assert registered_sessions() == list(ibm.sessions)
    assert records(result) == []


def test_outside_of_a_task_a_session_stays_registered_until_a_sweep_records_it(ibm, dag, run):
    with dag:
        IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
    owner = run(dag)
    session_id = owner.xcom("create")
    assert IBMQuantumHook().close_session(session_id).is_closed
    assert registered_sessions() == [session_id]
    with DAG("sweeps_the_rest", schedule=None, default_args={"retries": 0}) as sweeper:
        sweep()
    run(sweeper)
    assert [record.session_id for record in records(owner)] == [session_id]
    assert registered_sessions() == []


def test_a_record_that_airflow_does_not_store_leaves_the_session_registered(ibm, dag, run, monkeypatch):
    from airflow.sdk.execution_time.context import TaskStateStoreAccessor

    write = TaskStateStoreAccessor.set

    def fail(self, key, value, **kwargs):
        if key.startswith(RECORD_PREFIX):
            raise RuntimeError("as if the database were full")
        write(self, key, value, **kwargs)

    with dag:
        run_jobs()
    with monkeypatch.context() as failing:
        failing.setattr(TaskStateStoreAccessor, "set", fail)
        result = run(dag)
    assert result.state == "success"
    assert records(result) == []
    assert registered_sessions() == list(ibm.sessions)
    with DAG("sweeps_after_that", schedule=None, default_args={"retries": 0}) as sweeper:
        sweep()
    run(sweeper)
    assert {record.session_id: record.billed for record in records(result)} == ibm.bill


def test_a_session_is_recorded_when_it_is_closed_and_not_when_it_is_drained(ibm, dag, run):
    ibm.settings.job_seconds = 600

    @task
    def work():
        hook = IBMQuantumHook()
        session_id = hook.create_session("ibm_fez", max_ttl="20m").id
        hook.submit_job(backend="ibm_fez", session_id=session_id, **sampler_job())
        hook.drain_session(session_id)
        return session_id

    with dag:
        IBMQuantumCloseSessionOperator(task_id="close", session_id=work())
    monitored = run(dag)
    [record] = records(monitored)
    assert record.owner["task_id"] == "work"
    assert record.closed_by.startswith(f"{dag.dag_id}.close ")


class TestParse:
    def test_fields_of_newer_versions_are_ignored(self):
        value = {"session_id": "s", "conn_id": "c", "v": 2, "colour": "blue"}
        assert SessionRecord.parse(json.dumps(value)).session_id == "s"

    @pytest.mark.parametrize(
        "value",
        [
            "x",
            "[]",
            "{}",
            {"session_id": 1, "conn_id": "c"},
            {"session_id": "s", "conn_id": "c", "billed": "12"},
            {"session_id": "s", "conn_id": "c", "owner": "me"},
            None,
        ],
    )
    def test_what_is_none_is_refused(self, value):
        with pytest.raises(ValueError):
            SessionRecord.parse(value)


def test_an_unreadable_entry_of_a_session_that_is_closed_is_removed(ibm, dag, run):
    from airflow.models.variable import Variable

    session_id = ibm.add_session(age=1).id
    Variable.set(PREFIX + session_id, "x")
    with dag:
        IBMQuantumCloseSessionOperator(task_id="close", session_id=session_id)
    result = run(dag)
    assert result.state == "success"
    assert result.xcom("close", "usage")["billed_seconds"] == 0
    assert registered_sessions() == []
