# SPDX-License-Identifier: Apache-2.0
"""Each example Dag, run by Airflow: with real circuits on localqpu and, where no circuit is run, the fake."""

from __future__ import annotations

from math import cos, pi, sin
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
        "ibm_quantum_openqasm_jobs",
        "ibm_quantum_single_job",
        "ibm_quantum_collect_later",
        "ibm_quantum_budgeted_run",
        "ibm_quantum_dynamic_circuit",
        "ibm_quantum_results_of_last_month",
        "ibm_quantum_sweep_sessions",
        "ibm_quantum_variational_loop",
    }


def test_each_describes_itself(dagbag):
    assert [name for name, dag in dagbag.dags.items() if not dag.doc_md] == []


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


def test_scheduled_batch_runs_all_experiments_in_one_batch(dagbag, run, localqpu):
    dag = dagbag.dags["ibm_quantum_scheduled_batch"]
    result = run(dag, backend=localqpu.backend, sizes=[2, 3], shots=500)
    assert result.state == "success"
    session = result.xcom("experiments", "session")
    assert (session["mode"], session["state"]) == ("batch", "closed")
    jobs = [job for job in localqpu.jobs() if job["session_id"] == session["id"]]
    assert [job["status"] for job in jobs] == ["Completed", "Completed"]
    found = result.xcom("collect")
    assert [each["name"] for each in found] == ["ghz-2", "ghz-3"]
    assert [set(each["counts"]) for each in found] == [{"00", "11"}, {"000", "111"}]


@pytest.mark.parametrize("mode", ["dedicated", "batch"])
def test_run_jobs_runs_real_circuits(dagbag, run, localqpu, mode):
    dag = dagbag.dags["ibm_quantum_run_jobs"]
    result = run(dag, backend=localqpu.backend, mode=mode, sizes=[2, 3], shots=200)
    assert result.state == "success"
    reports = result.xcom("entangle")
    assert [report["state"] for report in reports] == ["Completed", "Completed"]
    assert [set(report["results"][0]["counts"]["meas"]) for report in reports] == [
        {"00", "11"},
        {"000", "111"},
    ]
    assert result.xcom("fidelities") == [1, 1]
    session = result.xcom("entangle", "session")
    assert session["state"] == "closed"
    jobs = [job for job in localqpu.jobs() if job["session_id"] == session["id"]]
    assert {job["id"] for job in jobs} == {report["id"] for report in reports}


@pytest.mark.parametrize("mode", ["dedicated", "batch"])
def test_openqasm_jobs_run_without_qiskit_on_the_worker(dagbag, run, qpu, mode):
    result = run(dagbag.dags["ibm_quantum_openqasm_jobs"], mode=mode)
    assert result.state == "success"
    angles = [float(report["tags"][0].removeprefix("angle=")) for report in result.xcom("run")]
    expected = [pytest.approx(cos(angle / 2) ** 2, abs=0.08) for angle in angles]
    assert result.xcom("ones") == expected
    session = result.xcom("run", "session")
    assert (session["mode"], session["state"]) == (mode, "closed")


def test_a_single_job_runs_without_a_session(dagbag, run, qpu):
    result = run(dagbag.dags["ibm_quantum_single_job"])
    assert result.state == "success"
    assert result.xcom("qpu_is_free")["queue_length"] <= 20
    assert result.xcom("toss").get("session_id") is None
    assert result.xcom("heads") == pytest.approx(0.5, abs=0.08)


def test_results_are_collected_later(dagbag, run, qpu):
    result = run(dagbag.dags["ibm_quantum_collect_later"])
    assert result.state == "success"
    submitted, [report] = result.xcom("submit"), result.xcom("fetch")
    assert submitted["id"] == result.xcom("job_is_final")["id"] == report["id"]
    assert sum(report["results"][0]["counts"]["side"].values()) == 1000


def test_a_dynamic_circuit_teleports(dagbag, run, qpu):
    result = run(dagbag.dags["ibm_quantum_dynamic_circuit"], angle=2.0)
    assert result.state == "success"
    found = result.xcom("received_by_outcome")
    assert set(found) == {"00", "01", "10", "11"}
    assert list(found.values()) == [pytest.approx(sin(1.0) ** 2, abs=0.08)] * 4


def test_a_budgeted_run_repeats_only_what_ibm_has_spoiled(dagbag, run, qpu):
    qpu.settings.failures[:] = [0, 9999]
    result = run(dagbag.dags["ibm_quantum_budgeted_run"], angles=[0.0, pi, 0.0])
    assert result.state == "success"
    found = result.xcom("report")
    assert found["backend"] == result.xcom("choose")
    assert found["ones"] == [0, 1, 0]
    assert found["attempts"] == [1, 2, 1]
    assert found["usage"]["settled"]
    assert found["usage"]["qpu_seconds"] == found["usage"]["billed_seconds"] > 0


def test_results_of_last_month(dagbag, run, ibm, connection):
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

    ibm.settings.job_seconds = 0.0
    pub = ["OPENQASM 3.0; bit[1] a; bit[2] b;", None, 40]
    hook = IBMQuantumHook()
    ids = [
        hook.submit_job("sampler", backend="ibm_fez", params={"pubs": [pub]}, tags=[tag]).id
        for tag in ("mine", "another", "mine")
    ]
    result = run(dagbag.dags["ibm_quantum_results_of_last_month"], tag="mine")
    assert result.state == "success"
    lines = result.xcom("summarise")
    assert [line["job"] for line in lines] == [ids[0], ids[2]]
    assert all(0 <= line["agreeing"] <= 1 for line in lines)


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
