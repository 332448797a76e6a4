# SPDX-License-Identifier: Apache-2.0
"""Results of the emulator against Aer's own, and failures with IBM's codes."""

from __future__ import annotations

import base64
import io
from collections import Counter

import numpy as np
import pytest

qiskit = pytest.importorskip("qiskit")
pytest.importorskip("qiskit_aer")

from qiskit import QuantumCircuit, qasm3, qpy  # noqa: E402
from qiskit.circuit import Parameter  # noqa: E402
from qiskit.quantum_info import SparsePauliOp  # noqa: E402
from qiskit.transpiler import generate_preset_pass_manager  # noqa: E402
from qiskit_aer import AerSimulator  # noqa: E402
from qiskit_aer.primitives import EstimatorV2 as AerEstimator  # noqa: E402
from qiskit_aer.primitives import SamplerV2 as AerSampler  # noqa: E402
from qiskit_ibm_runtime import Batch, EstimatorV2, Executor, SamplerV2, Session  # noqa: E402
from qiskit_ibm_runtime.executor_estimator import Estimator  # noqa: E402
from qiskit_ibm_runtime.executor_sampler import Sampler  # noqa: E402
from qiskit_ibm_runtime.quantum_program import QuantumProgram  # noqa: E402

from airflow_provider_ibm_sessions.client import Credentials  # noqa: E402
from airflow_provider_ibm_sessions.emulator.emulator import IDENTITY  # noqa: E402
from airflow_provider_ibm_sessions.hooks.qiskit import service as qiskit_service  # noqa: E402

from .conftest import BELL, finished  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BACKEND = "ibm_fez"
SHOTS = 4000


@pytest.fixture(scope="module")
def service(emulator):
    return qiskit_service(
        Credentials(api_key=IDENTITY.api_key, crn=IDENTITY.crn, url=emulator.url, iam_url=emulator.iam_url)
    )


@pytest.fixture(scope="module")
def backend(service):
    return service.backend(BACKEND)


@pytest.fixture(scope="module")
def transpile(backend):
    return generate_preset_pass_manager(backend=backend, optimization_level=1, seed_transpiler=1).run


def rotated():
    """Two entangled qubits with unequal probabilities."""
    circuit = QuantumCircuit(2)
    circuit.ry(1.1, 0)
    circuit.cx(0, 1)
    circuit.rx(0.4, 1)
    return circuit


def measured(circuit):
    copy = circuit.copy()
    copy.measure_all()
    return copy


def assert_same_counts(counts, expected):
    """Compare frequencies within five standard deviations of shot noise."""
    total, other = sum(counts.values()), sum(expected.values())
    for bits in counts | expected:
        here, there = counts.get(bits, 0) / total, expected.get(bits, 0) / other
        middle = (here + there) / 2
        assert abs(here - there) <= 5 * (middle * (1 - middle) * (1 / total + 1 / other)) ** 0.5 + 1e-9, bits


def aer_counts(circuit, shots=SHOTS):
    data = AerSampler(seed=11).run([circuit], shots=shots).result()[0].data
    return dict(data.meas.get_counts())


def run(client, program, params, **optional):
    job = finished(client, client.submit_job(program, backend=BACKEND, params=params, **optional).id)
    assert job.is_completed, job.detail
    return client.job_results(job.id)


# -- IBM's REST form -----------------------------------------------------------------------------------------


def test_a_sampler_over_openqasm_3(client):
    results = run(client, "sampler", {"pubs": [[BELL, None, SHOTS]], "version": 2})
    pair = results["results"][0]["data"]["pair"]
    counts = Counter(int(sample, 16) for sample in pair["samples"])
    assert pair["num_bits"] == 2
    assert set(counts) == {0, 3}
    assert_same_counts(counts, {0: SHOTS // 2, 3: SHOTS // 2})


def test_a_sampler_over_an_array_of_parameters(client):
    text = 'OPENQASM 3.0; include "stdgates.inc"; input float a; bit[1] c; '
    text += "sx $0; rz(a) $0; sx $0; c[0] = measure $0;"
    results = run(client, "sampler", {"pubs": [[text, [[0.0], [np.pi]], 50]]})
    flipped, same = results["results"][0]["data"]["c"]["samples"]
    assert set(flipped) == {"0x1"}
    assert set(same) == {"0x0"}


def test_an_estimator_over_openqasm_3(client):
    text = 'OPENQASM 3.0; include "stdgates.inc"; qubit[2] q; sx q[0];'
    pub = [text, ["ZZ", "IY", {"IY": 0.5, "ZI": 2.0}], None, 0.01]
    data = run(client, "estimator", {"pubs": [pub]})["results"][0]["data"]
    assert data["evs"] == pytest.approx([0.0, -1.0, 1.5], abs=0.1)
    assert data["stds"] == data["ensemble_standard_error"] == pytest.approx([0.01] * 3)


def test_a_circuit_as_qpy_in_base64(client, transpile):
    file = io.BytesIO()
    qpy.dump(transpile(measured(rotated())), file)
    results = run(client, "sampler", {"pubs": [[base64.b64encode(file.getvalue()).decode(), None, SHOTS]]})
    counts = Counter(f"{int(sample, 16):02b}" for sample in results["results"][0]["data"]["meas"]["samples"])
    assert_same_counts(counts, aer_counts(measured(rotated())))


def test_qiskits_own_openqasm_3(client, transpile):
    text = qasm3.dumps(transpile(measured(rotated())))
    results = run(client, "sampler", {"pubs": [[text, None, SHOTS]]})
    counts = Counter(f"{int(sample, 16):02b}" for sample in results["results"][0]["data"]["meas"]["samples"])
    assert_same_counts(counts, aer_counts(measured(rotated())))


# -- Qiskit's primitives, of both generations ----------------------------------------------------------------


@pytest.mark.parametrize("primitive", [SamplerV2, Sampler])
@pytest.mark.parametrize("mode", [Session, Batch, None])
def test_a_sampler_equals_aers(backend, transpile, primitive, mode):
    circuit = transpile(measured(rotated()))
    if mode is None:
        counts = primitive(mode=backend).run([circuit], shots=SHOTS).result()[0].data.meas.get_counts()
    else:
        with mode(backend=backend) as opened:
            counts = primitive(mode=opened).run([circuit], shots=SHOTS).result()[0].data.meas.get_counts()
    assert_same_counts(counts, aer_counts(measured(rotated())))


@pytest.mark.parametrize("primitive", [EstimatorV2, Estimator])
def test_an_estimator_equals_aers(backend, transpile, primitive):
    observable = SparsePauliOp.from_list([("ZZ", 1.0), ("XI", 0.5), ("IZ", -0.3)])
    circuit = transpile(rotated())
    with Session(backend=backend) as session:
        pub = (circuit, observable.apply_layout(circuit.layout))
        result = primitive(mode=session).run([pub], precision=0.01).result()[0].data
    exact = (
        AerEstimator(options={"default_precision": 0.0}).run([(rotated(), observable)]).result()[0].data.evs
    )
    assert float(result.evs) == pytest.approx(float(exact), abs=0.1)


@pytest.mark.parametrize("primitive", [EstimatorV2, Estimator])
def test_a_variational_loop(backend, transpile, primitive):
    """One job per step inside one session, as in Qiskit's VQE guide."""
    angle = Parameter("a")
    circuit = QuantumCircuit(1)
    circuit.ry(angle, 0)
    circuit = transpile(circuit)
    observable = SparsePauliOp("Z").apply_layout(circuit.layout)
    with Session(backend=backend) as session:
        estimator = primitive(mode=session)
        energies = [
            float(np.squeeze(estimator.run([(circuit, observable, [value])]).result()[0].data.evs))
            for value in (0.0, np.pi / 2, np.pi)
        ]
    assert energies == pytest.approx([1.0, 0.0, -1.0], abs=0.15)
    assert session.details()["accepting_jobs"] is False


def test_an_executor_equals_aers(backend, transpile):
    circuit = transpile(measured(rotated()))
    program = QuantumProgram(shots=SHOTS)
    program.append_circuit_item(circuit)
    here = Executor(mode=backend).run(program).result()
    there = Executor(mode=AerSimulator(method="matrix_product_state")).run(program).result()
    assert set(here[0]) == set(there[0])
    assert_same_counts(
        *(Counter(map(tuple, result[0]["meas"].reshape(-1, 2).tolist())) for result in (here, there))
    )


def test_a_dynamic_circuit(backend, transpile):
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    circuit.measure(1, 1)
    data = SamplerV2(mode=backend).run([transpile(circuit)], shots=20).result()[0].data
    assert data.c.get_counts() == {"11": 20}


# -- failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "params", "code", "said"),
    [
        (
            "sampler",
            {
                "pubs": [
                    ['OPENQASM 3.0; include "stdgates.inc"; qubit[2] q; bit[2] c; h q[0]; c = measure q;']
                ]
            },
            1517,
            "instruction h",
        ),
        (
            "sampler",
            {"pubs": [['OPENQASM 3.0; include "stdgates.inc"; cz $0, $100;']]},
            1517,
            "instruction cz",
        ),
        ("sampler", {"pubs": [["OPENQASM 3.0; what is this"]]}, 1501, "not valid OpenQASM 3"),
        ("sampler", {"pubs": [["bm90IGEgY2lyY3VpdA=="]]}, 1501, "neither OpenQASM 3 nor QPY"),
        ("sampler", {"pubs": [[BELL, [1.0]]]}, 1501, "cannot be read"),
        (
            "sampler",
            {"pubs": [[BELL]], "options": {"execution": {"meas_type": "kerneled"}}},
            1501,
            "classified",
        ),
        ("estimator", {"pubs": [[BELL, "Q"]]}, 1501, "cannot be read"),
        ("executor", {"schema_version": "v0.1"}, 1501, "v2.0"),
        ("executor", {"schema_version": "v2.0"}, 1501, "cannot be read"),
        (
            "sampler",
            {
                "pubs": [['OPENQASM 3.0; include "stdgates.inc"; bit[1] c; rx(0.3) $0; c[0] = measure $0;']],
                "options": {"twirling": {"enable_gates": True}},
            },
            1519,
            "Fractional gates cannot be used with twirling",
        ),
        ("noise-learner", {}, 1501, "not 'noise-learner': without noise there is nothing to learn"),
        ("calibrate", {}, 1501, "not 'calibrate'"),
    ],
)
def test_a_job_that_cannot_run_fails_with_ibms_code(client, program, params, code, said):
    job = finished(client, client.submit_job(program, backend=BACKEND, params=params).id)
    assert (job.detail.status, job.detail.reason_code) == ("Failed", code)
    assert said in job.detail.reason


def test_failures_can_be_ordered(client, settings):
    settings.failures = [9999, 0]
    jobs = [
        client.submit_job("sampler", backend=BACKEND, params={"pubs": [[BELL, None, 5]]}) for _ in range(2)
    ]
    failed, completed = [finished(client, job.id) for job in jobs]
    assert (failed.detail.status, failed.detail.reason_code) == ("Failed", 9999)
    assert (
        client.job_metrics(failed.id).usage.qpu_charge_time_seconds == 0
    )  # IBM does not bill its own errors
    assert completed.is_completed
