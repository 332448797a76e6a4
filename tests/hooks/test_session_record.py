# SPDX-License-Identifier: Apache-2.0
"""Records of ended sessions: where they are kept, and what they say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import task

from airflow_provider_ibm_sessions.cli.metastore import records_of_run
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.session_record import RECORD_PREFIX, SessionRecord
from airflow_provider_ibm_sessions.hooks.session_registry import SessionOwner
from testing.connections import connection_to
from testing.dag_tasks import registered_sessions, run_jobs, sampler_job

PRICE = 1.6


@pytest.fixture(autouse=True)
def priced(ibm, airflow_db, monkeypatch):
    """The connection ``ibm_quantum_default``, with a price."""
    connection = json.loads(connection_to(ibm))
    connection["extra"]["price_per_second"] = PRICE
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", json.dumps(connection))


def rows():
    """Return what Airflow keeps of records, in its database."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = select(TaskStateStoreModel).where(TaskStateStoreModel.key.startswith(RECORD_PREFIX))
        return {row.key.removeprefix(RECORD_PREFIX): row for row in session.scalars(found)}


def records(result):
    return records_of_run(result.dag_run.dag_id, result.dag_run.run_id)


def test_a_session_of_run_jobs_leaves_a_record(ibm, dag, run):
    with dag:
        run_jobs()
    result = run(dag)
    [session] = [each for each in ibm.sessions.values()]
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
        "qpu_seconds": 3.0,
        "price_per_second": PRICE,
        "currency": "USD",
        "reason": "session_closed_early",
        "closed_by": f"{dag.dag_id}.run of run {result.dag_run.run_id}",
    }
    assert [state for state, _ in record.spans] == ["open", "active", "closed"]
    assert record.opened == record.spans[0][1] == pytest.approx(session.created)
