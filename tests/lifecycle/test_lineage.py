# SPDX-License-Identifier: Apache-2.0
"""What a task tells OpenLineage, through Airflow's own provider for it: its events are read from a file."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
from airflow.sdk import Asset, task

from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from airflow_provider_ibm_sessions.sensors.job import IBMQuantumJobSensor
from testing.connections import connection_to
from testing.dag_tasks import both_ways, run_jobs, submit
from testing.fake_ibm import Outcome
from testing.jobs_seen import only

pytestmark = [
    pytest.mark.usefixtures("airflow_db", "short_jobs"),
    pytest.mark.skipif(
        find_spec("openlineage") is None, reason="apache-airflow-providers-openlineage is not installed"
    ),
]

SCHEMA = Path(__file__).parents[2] / "docs" / "IBMQuantumRunFacet.json"


@pytest.fixture(autouse=True)
def _priced(ibm, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm, price_per_second=1.6))


@pytest.fixture
def events(monkeypatch, tmp_path):
    """Let OpenLineage listen as where it is set up; return the events of a task by their type."""
    from airflow.providers.openlineage.plugins.listener import OpenLineageListener
    from airflow.sdk.listener import get_listener_manager

    path = tmp_path / "events.jsonl"
    # It loads the plugins: before anything is set up, so that none of theirs listens to other tests.
    manager = get_listener_manager()
    transport = {"type": "file", "log_file_path": str(path), "append": True}
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
    listener = OpenLineageListener()
    manager.add_listener(listener)

    def read(task_id):
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return {
            event["eventType"]: event for event in found if event["job"]["name"].rpartition(".")[2] == task_id
        }

    yield read
    manager.pm.unregister(listener)


def facet_of(event):
    """Return our facet, without what each facet has, after checking it against its schema."""
    facet = dict(event["run"]["facets"]["ibmQuantum"])
    schema = json.loads(SCHEMA.read_text())
    assert facet["_schemaURL"] == f"{schema['$id']}#/$defs/IBMQuantumRunFacet"
    assert facet["_producer"]
    known = schema["$defs"]["IBMQuantumRunFacet"]["allOf"][1]
    own = {name: value for name, value in facet.items() if not name.startswith("_")}
    jsonschema.validate(own, {**known, "additionalProperties": False})
    return own


def qpu(ibm):
    return {"namespace": f"ibm-quantum://{urlsplit(ibm.url).netloc}", "name": "ibm_fez"}


def names(datasets):
    return [{"namespace": each["namespace"], "name": each["name"]} for each in datasets]


@both_ways
def test_of_run_jobs(ibm, dag, run, events, tmp_path, deferrable):
    with dag:
        run_jobs(deferrable=deferrable, results_path=f"file://{tmp_path}/results", results_threshold=1)
    result = run(dag)
    assert result.state == "success"
    started, completed = events("run")["START"], events("run")["COMPLETE"]
    session = only(ibm.sessions)
    about = {"connectionId": "ibm_quantum_default", "backend": "ibm_fez", "mode": "dedicated"}
    assert facet_of(started) == about
    assert names(started["inputs"]) == names(completed["inputs"]) == [qpu(ibm)]
    assert facet_of(completed) == {
        **about,
        "sessionId": session.id,
        "jobIds": list(ibm.jobs),
        "jobCount": 3,
        "qpuSeconds": result.xcom("run", "usage")["qpu_seconds"],
        "billedSeconds": pytest.approx(session.billed_seconds),
        "cost": pytest.approx(session.billed_seconds * 1.6, abs=1e-6),
        "currency": "USD",
        "settled": True,
    }
    assert completed["run"]["facets"]["externalQuery"]["externalQueryId"] == session.id
    assert started["outputs"] == []
    assert names(completed["outputs"]) == [{"namespace": "file", "name": f"{tmp_path}/results"}]


def test_a_failed_job_is_told_with_its_bill_and_its_error(ibm, dag, run, events):
    ibm.next_jobs([Outcome.failed(1517, seconds=0.2)])
    with dag:
        submit()
    assert run(dag).state == "failed"
    failed = events("run")["FAIL"]
    [job_id] = ibm.jobs
    facet = facet_of(failed)
    assert facet["jobIds"] == [job_id]
    assert facet["billedSeconds"] == pytest.approx(sum(ibm.bill.values()))
    assert failed["run"]["facets"]["externalQuery"]["externalQueryId"] == job_id
    assert "1517" in failed["run"]["facets"]["errorMessage"]["message"]


def test_of_tasks_that_share_a_session(ibm, dag, run, events):
    with dag:
        create = IBMQuantumCreateSessionOperator(
            task_id="create", backend="ibm_fez", max_ttl="10m", outlets=[Asset("file:///made/by/hand")]
        )
        job = submit(task_id="job", session_id=create.output, backend=None)
        sensor = IBMQuantumJobSensor(task_id="sensor", job_id="{{ ti.xcom_pull('job')['id'] }}")
        close = IBMQuantumCloseSessionOperator(task_id="close", session_id=create.output)
        job >> sensor >> close
    assert run(dag).state == "success"
    session, [job_id] = only(ibm.sessions), ibm.jobs
    ended = {name: events(name)["COMPLETE"] for name in ("create", "job", "sensor", "close")}
    facets = {name: facet_of(event) for name, event in ended.items()}
    assert facets["create"]["sessionId"] == facets["job"]["sessionId"] == facets["close"]["sessionId"]
    assert facets["create"]["sessionId"] == session.id
    assert facets["job"]["jobIds"] == facets["sensor"]["jobIds"] == [job_id]
    assert facets["close"]["billedSeconds"] == pytest.approx(session.billed_seconds)
    # What the Dag's author has declared is there as well.
    assert names(ended["create"]["outputs"]) == [{"namespace": "file", "name": "/made/by/hand"}]


def test_what_is_declared_is_kept_though_the_connection_cannot_be_read(dag, run, events, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", '{"conn_type": "ibm_quantum"}')
    with dag:
        IBMQuantumCreateSessionOperator(
            task_id="create",
            backend="ibm_fez",
            ibm_quantum_conn_id="wrong",
            inlets=[Asset("file:///by/hand")],
        )
    assert run(dag).state == "failed"
    assert names(events("create")["FAIL"]["inputs"]) == [{"namespace": "file", "name": "/by/hand"}]


def test_of_a_decorated_function(ibm, dag, run, events):
    with dag:

        @task.ibm_quantum_session(backend="ibm_fez", max_ttl="10m", mode="batch")
        def work(session):
            return session.session_id

        work()
    assert run(dag).state == "success"
    facet = facet_of(events("work")["COMPLETE"])
    assert facet["sessionId"] == only(ibm.sessions).id
    assert facet["mode"] == "batch"
    assert names(events("work")["START"]["inputs"]) == [qpu(ibm)]
