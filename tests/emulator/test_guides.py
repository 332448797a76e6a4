# SPDX-License-Identifier: Apache-2.0
"""
Qiskit's guides on sessions, batches, VQE and the executor, call by call.

Of the account only, which the guides have saved, each gets the service from a connection.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("qiskit_aer")

from qiskit import QuantumCircuit
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import Batch, Executor, Session
from qiskit_ibm_runtime import EstimatorV2 as Estimator
from qiskit_ibm_runtime import SamplerV2 as Sampler
from qiskit_ibm_runtime.quantum_program import QuantumProgram
from samplomatic import build
from samplomatic.transpiler import generate_boxing_pass_manager
from scipy.optimize import minimize

from airflow_provider_ibm_sessions.client import Credentials
from airflow_provider_ibm_sessions.emulator.emulator import IDENTITY
from airflow_provider_ibm_sessions.hooks.qiskit import service as qiskit_service

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def backend(emulator):
    service = qiskit_service(
        Credentials(api_key=IDENTITY.api_key, crn=IDENTITY.crn, url=emulator.url, iam_url=emulator.iam_url)
    )
    return service.least_busy(operational=True, simulator=False)


def bell():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return circuit


def test_a_session(backend):
    isa_circuit = generate_preset_pass_manager(backend=backend, optimization_level=1).run(bell())
    with Session(backend=backend, max_time="7h") as session:
        sampler = Sampler(mode=session)
        first = sampler.run([isa_circuit])
        assert session.status() in ("Pending", "In progress, accepting new jobs")
        counts = first.result()[0].data.meas.get_counts()
        second = sampler.run([isa_circuit], shots=100)
        second.result()
    assert set(counts) == {"00", "11"}
    details = session.details()
    assert (details["max_time"], details["accepting_jobs"]) == (25_200, False)
    assert first.metrics()["usage"]["qpu_charge_time_seconds"] > 0
    assert second.session_id == first.session_id == session.session_id
    assert backend.service.job(first.job_id()).status() == "DONE"


def test_a_batch(backend):
    manager = generate_preset_pass_manager(backend=backend, optimization_level=1)
    circuits = [manager.run(bell()) for _ in range(4)]
    partitions = [circuits[at : at + 2] for at in range(0, len(circuits), 2)]
    jobs = []
    with Batch(backend=backend):
        sampler = Sampler()
        for partition in partitions:
            jobs.append(sampler.run(partition))
    results = [job.result() for job in jobs]
    assert [len(result) for result in results] == [2, 2]
    assert all(set(pub.data.meas.get_counts()) == {"00", "11"} for result in results for pub in result)


def test_vqe(backend):
    hamiltonian = SparsePauliOp.from_list([("YZ", 0.3980), ("ZI", -0.3980), ("ZZ", -0.0113), ("XX", 0.1810)])
    ansatz = efficient_su2(hamiltonian.num_qubits)
    manager = generate_preset_pass_manager(target=backend.target, optimization_level=3)
    isa_ansatz = manager.run(ansatz)
    isa_hamiltonian = hamiltonian.apply_layout(layout=isa_ansatz.layout)
    costs = []

    def cost(params, ansatz, hamiltonian, estimator):
        result = estimator.run(pubs=[(ansatz, [hamiltonian], [params])]).result()
        costs.append(result[0].data.evs[0])
        return costs[-1]

    start = 2 * np.pi * np.random.default_rng(4).random(ansatz.num_parameters)
    with Session(backend=backend) as session:
        estimator = Estimator(mode=session)
        estimator.options.default_shots = 10000
        minimize(
            cost,
            start,
            args=(isa_ansatz, isa_hamiltonian, estimator),
            method="cobyla",
            options={"maxiter": 40},
        )
    lowest = min(np.linalg.eigvalsh(hamiltonian.to_matrix()))
    assert lowest - 0.1 < min(costs) < costs[0]
    assert session.details()["accepting_jobs"] is False


def test_an_executor_with_twirling(backend):
    circuit = bell()
    isa_circuit = generate_preset_pass_manager(backend=backend, optimization_level=0).run(circuit)
    boxed = generate_boxing_pass_manager(enable_gates=True, enable_measures=True).run(isa_circuit)
    template, samplex = build(boxed)
    program = QuantumProgram(shots=256)
    program.append_circuit_item(isa_circuit)
    program.append_samplex_item(template, samplex=samplex, shape=(8,))
    result = Executor(mode=backend).run(program).result()
    plain, twirled = result
    assert plain["meas"].shape == (256, 2)
    # What twirling has flipped is flipped back with the flips that come along.
    bits = np.logical_xor(twirled["meas"], twirled["measurement_flips.meas"])
    assert bits.shape == (8, 256, 2)
    for measured in (plain["meas"], bits):
        assert np.array_equal(measured[..., 0], measured[..., 1])
        assert 0.3 < measured[..., 0].mean() < 0.7
