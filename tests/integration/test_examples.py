# SPDX-License-Identifier: Apache-2.0
"""Each example Dag, run by Airflow: with real circuits on localqpu and, where no circuit is run, the fake."""

from __future__ import annotations

from math import pi, sin
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "example_dags"


@pytest.fixture(scope="module")
def dagbag(airflow_db):
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(EXAMPLES)


def test_a_plain_airflow_loads_them_all(dagbag):
    assert dagbag.import_errors == {}
    assert set(dagbag.dags) == {
        "ibm_quantum_session_lifecycle",
        "ibm_quantum_on_job_final",
        "ibm_quantum_on_qpu_ready",
        "ibm_quantum_qiskit_sweep",
        "ibm_quantum_scheduled_batch",
        "ibm_quantum_run_jobs",
        "ibm_quantum_sweep_sessions",
        "ibm_quantum_variational_loop",
    }


def test_no_example_names_an_account(dagbag):
    for path in EXAMPLES.glob("*.py"):
        assert "crn:" not in path.read_text()


@pytest.mark.parametrize("mode", ["dedicated", "batch"])
def test_lifecycle_against_the_fake(dagbag, run, ibm, connection, mode):
    result = run(dagbag.dags["ibm_quantum_session_lifecycle"], mode=mode)
    assert result.state == "success"
    [session] = ibm.sessions.values()
    assert (session.state, session.mode) == ("closed", mode)
    assert ibm.state()["accepting"] == []
    assert result.xcom("close_session")["state"] == "closed"


def test_lifecycle_against_localqpu(dagbag, run, localqpu):
    result = run(dagbag.dags["ibm_quantum_session_lifecycle"], backend=localqpu.backend)
    assert result.state == "success"
    assert result.xcom("session_has_closed")["state"] == "closed"


def test_sweep_runs_real_circuits(dagbag, run, localqpu):
    result = run(dagbag.dags["ibm_quantum_qiskit_sweep"], backend=localqpu.backend, points=3, shots=2000)
    assert result.state == "success"
    points = result.xcom("run_sweep")
    assert [point["angle"] for point in points] == [0, pi / 2, pi]
    for point in points:
        ones = point["counts"].get("1", 0) / 2000
        assert ones == pytest.approx(sin(point["angle"] / 2) ** 2, abs=0.06)
    session_id = result.xcom("create_session")
    submitted = {job["id"] for job in localqpu.jobs() if job["session_id"] == session_id}
    assert submitted == {point["job_id"] for point in points}


def test_scheduled_batch_maps_experiments(dagbag, run, localqpu):
    dag = dagbag.dags["ibm_quantum_scheduled_batch"]
    result = run(dag, backend=localqpu.backend, sizes=[2, 3], shots=500)
    assert result.state == "success"
    session_id = result.xcom("create_batch")
    jobs = [job for job in localqpu.jobs() if job["session_id"] == session_id]
    assert [job["status"] for job in jobs] == ["Completed", "Completed"]
    counts = result.xcom_of_each("collect")
    assert [set(item["counts"]) for item in counts] == [{"00", "11"}, {"000", "111"}]


@pytest.mark.parametrize("mode", ["dedicated", "batch"])
def test_run_jobs_runs_real_circuits(dagbag, run, localqpu, mode):
    dag = dagbag.dags["ibm_quantum_run_jobs"]
    result = run(dag, backend=localqpu.backend, mode=mode, sizes=[2, 3], shots=200)
    assert result.state == "success"
    reports = result.xcom("run_jobs")
    assert [report["state"] for report in reports] == ["Completed", "Completed"]
    assert [set(report["results"][0]["counts"]["meas"]) for report in reports] == [
        {"00", "11"},
        {"000", "111"},
    ]
    assert result.xcom("fidelities") == [1, 1]
    session = result.xcom("run_jobs", "session")
    assert session["state"] == "closed"
    jobs = [job for job in localqpu.jobs() if job["session_id"] == session["id"]]
    assert {job["id"] for job in jobs} == {report["id"] for report in reports}


def test_a_variational_loop_finds_the_lowest_energy(dagbag, run, localqpu):
    result = run(dagbag.dags["ibm_quantum_variational_loop"], backend=localqpu.backend, steps=4)
    assert result.state == "success"
    found = result.xcom("minimise")
    assert found["best"]["energy"] == pytest.approx(-(5**0.5) / 2, abs=0.1)
    session = result.xcom("minimise", "session")
    assert len([job for job in localqpu.jobs() if job["session_id"] == session["id"]]) == 4


def test_qiskit_binds_to_an_existing_session(localqpu, airflow_db):
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

    hook = IBMQuantumHook()
    for mode, kind in (("dedicated", "Session"), ("batch", "Batch")):
        session = hook.create_session(backend=localqpu.backend, mode=mode, max_ttl=60)
        before = len(localqpu.requests())
        bound = hook.qiskit_session(session.id)
        assert (type(bound).__name__, bound.session_id) == (kind, session.id)
        created = [
            r for r in localqpu.requests()[before:] if r["method"] == "POST" and "sessions" in r["path"]
        ]
        assert created == []
        hook.close_session(session.id)
