# SPDX-License-Identifier: Apache-2.0
"""Jobs of ``@task.ibm_quantum_session``, and what its function returns: on the emulator, by real circuits."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import task

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from testing.airflow_runs import with_rendered
from testing.fake_ibm import Fault

pytest.importorskip("qiskit_aer")

BACKEND = "ibm_fez"


@pytest.fixture(scope="module")
def simulated():
    """The package's emulator, for all tests of this file."""
    from airflow_provider_ibm_sessions.emulator.emulator import Emulator

    with Emulator(port=0, speed=20, seed=7) as running:
        yield running


@pytest.fixture
def service(simulated, monkeypatch, airflow_db):
    """What the emulator knows, with the connection ``ibm_quantum_default`` to it."""
    from airflow_provider_ibm_sessions.emulator.emulator import connection

    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", json.dumps(connection(simulated.port)))
    return simulated.service.scheduler


class Unprintable:
    """A key whose own methods fail."""

    def __repr__(self):
        raise RuntimeError("no repr")


def in_session(function, **kwargs):
    """Make a task of a function whose first argument is ``session``."""
    arguments = {"backend": BACKEND, "max_ttl": "8h", "task_id": "work", **kwargs}
    return task.ibm_quantum_session(**arguments)(function)()


def compiled(session, circuit):
    from qiskit.transpiler import generate_preset_pass_manager

    backend = session.service.backend(BACKEND)
    return generate_preset_pass_manager(backend=backend, optimization_level=1, seed_transpiler=1).run(circuit)


def bell(session):
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return compiled(session, circuit)


def sampled(session, shots=100):
    from qiskit_ibm_runtime.executor_sampler import Sampler

    return Sampler(mode=session).run([bell(session)], shots=shots)


def jobs_of(service, result):
    """The jobs of the task's session, and the session."""
    session = service.sessions[result.xcom("work", "session")["id"]]
    return [service.jobs[job_id] for job_id in session.jobs], session


# -- jobs ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_flow_of_a_variational_eigensolver(service, dag, run):
    """Each step's angle depends on the energies of the step before; the deprecated primitive does as well."""

    def work(session):
        from math import pi

        from qiskit import QuantumCircuit
        from qiskit.circuit import Parameter
        from qiskit.quantum_info import SparsePauliOp
        from qiskit_ibm_runtime import EstimatorV2

        circuit = QuantumCircuit(1)
        circuit.ry(Parameter("angle"), 0)
        circuit = compiled(session, circuit)
        energy = SparsePauliOp.from_list([("Z", 1.0), ("X", 0.5)]).apply_layout(circuit.layout)
        estimator, angle, data = EstimatorV2(mode=session), 2.0, None
        for _ in range(3):
            pub = (circuit, energy, [[angle], [angle + pi / 2], [angle - pi / 2]])
            data = estimator.run([pub], precision=0.02).result()[0].data
            angle -= 0.9 * float(data.evs[1] - data.evs[2]) / 2
        return {"angle": angle, "last": data, "evs": data.evs}

    with dag:
        in_session(work, mode="batch")
    result = run(dag)
    assert result.state == "success"
    found = result.xcom("work")
    assert found["last"]["evs"] == found["evs"]
    assert found["evs"][0] == pytest.approx(-(5**0.5) / 2, abs=0.15)
    assert len(found["last"]["stds"]) == 3
    jobs, session = jobs_of(service, result)
    assert len(jobs) == 3
    assert not session.accepts_jobs
    assert all(any(tag.startswith("airflow-") for tag in job.tags) for job in jobs)


# -- what the function returns -------------------------------------------------------------------------------


def test_results_are_plain_at_any_depth(service, dag, run):
    def work(session):
        import numpy

        result = sampled(session).result()
        pub = result[0]
        return {
            "deep": [1, {"result": result}],
            "tuple": (pub.data, 2),
            "pub": pub,
            "data": pub.data,
            "bits": pub.data.meas,
            "array": numpy.array([[1 + 2j, numpy.inf]]),
            "number": numpy.float64(0.5),
            "nan": float("nan"),
            "text": "half \ud800, nul \x00",
            "\ud800": 1,
            10**5000: 2,
        }

    with dag:
        in_session(work)
    result = run(dag)
    assert result.state == "success"
    found = result.xcom("work")
    counts = found["bits"]
    assert sum(counts.values()) == 100
    assert found["deep"][1]["result"]["results"][0]["counts"] == {"meas": counts}
    assert found["tuple"]["__data__"] == [found["data"], 2], "as Airflow writes a tuple"
    assert found["pub"]["joint_counts"] == found["data"]["joint_counts"] == counts
    assert found["array"] == [[[1.0, 2.0], ["Infinity", 0.0]]]
    assert (found["number"], found["nan"]) == (0.5, "NaN")
    assert (found["text"], found["?"], found[hex(10**5000)]) == ("half ?, nul ?", 1, 2)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda job: {"jobs": [job]}, "['jobs'][0] of it is of the type qiskit_ibm_runtime.runtime_job_v2"),
        (lambda job: bell, "it is of the type function"),
        (lambda job: [2**70], "[0] of it is of the type int (more than 64 bits"),
        (lambda job: {2**70}, "it is of the type set (it holds 1180591620717411303424 (int)"),
        (lambda job: {10**5000}, "it is of the type set ("),
        (lambda job: (each for each in [job]), "it is of the type generator"),
        (lambda job: b"bytes", "it is of the type bytes"),
        (
            lambda job: {"a": {"__id__": 1}},
            "['a'] of it is of the type dict (Airflow reserves",
        ),
        (
            lambda job: {"__type": "x", "__var": 1},
            "it is of the type dict (Airflow reserves its key __var",
        ),
        (lambda job: {Unprintable(): [job]}, "[<Unprintable instance at "),
    ],
    ids=[
        "job",
        "function",
        "integer",
        "in a set",
        "huge in a set",
        "generator",
        "bytes",
        "key",
        "old key",
        "odd key",
    ],
)
def test_what_xcom_cannot_hold_fails_once_and_says_how_to_get_the_results(
    service, dag, run, output, made, said
):
    calls = []

    def work(session):
        calls.append(session.session_id)
        job = sampled(session)
        return made(job)

    with dag:
        in_session(work, retries=2)
    result = run(dag)
    assert (result.state, len(calls)) == ("failed", 1)
    jobs, session = jobs_of(service, result)
    log = output()
    assert f"XCom cannot hold what work returned: {said}" in log
    assert f"The jobs {jobs[0].id} of session {session.id} are paid for" in log
    assert not session.accepts_jobs
    assert jobs[0].status in ("Queued", "Running", "Completed"), "it was not cancelled"


def test_what_is_not_pushed_may_be_anything(service, dag, run):
    with dag:
        in_session(lambda session: bell(session), do_xcom_push=False)
    assert run(dag).state == "success"


def test_several_outputs_need_a_dictionary(service, dag, run, output):
    with dag:
        in_session(lambda session: [1], multiple_outputs=True)
    assert run(dag).state == "failed"
    assert "it is of the type list (multiple_outputs needs a dictionary)" in output()


def test_several_outputs_are_plain_each(service, dag, run):
    with dag:
        in_session(lambda session: {"a": sampled(session).result(), "b": 2}, multiple_outputs=True)
    result = run(dag)
    assert result.xcom("work", "a")["format"] == "sampler"
    assert result.xcom("work", "b") == 2


# -- exactly once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 504}], ids=str)
def test_a_lost_response_runs_no_job_twice(ibm, connection, dag, run, quick, fault):
    """Of the fake, since an emulator loses nothing."""
    ibm.settings.job_seconds = 0.0
    ibm.script(Fault(method="POST", path="/v1/jobs", phase="after", **fault))

    def work(session):
        client = session.service._active_api_client
        params = {"pubs": [["OPENQASM 3.0; bit[2] c;"]], "version": 2}
        ran = client.program_run("sampler", BACKEND, params, None, None, session.session_id)
        return ran["id"]

    with dag:
        in_session(work)
    result = run(dag)
    assert result.state == "success"
    assert [result.xcom("work")] == list(ibm.jobs)
    assert len(ibm.requests("POST", "/v1/jobs")) == 1
    assert ibm.state()["accepting"] == []


def test_bad_arguments_are_import_errors(dag):
    with pytest.raises(ConfigurationError, match="use_fractional_gates must be true or false"), dag:
        in_session(lambda session: 1, use_fractional_gates="maybe")
    with pytest.raises(ConfigurationError, match="calibration_id must be a string"), dag:
        in_session(lambda session: 1, calibration_id="x" * 101)


def test_a_calibration_that_cannot_be_one_opens_nothing(ibm, connection, dag, run, output):
    with dag:
        with_rendered(in_session(lambda session: 1).operator, calibration_id="x" * 101)
    assert run(dag).state == "failed"
    assert "calibration_id must be a string" in output()
    assert ibm.journal == []
