# SPDX-License-Identifier: Apache-2.0
"""``@task.ibm_quantum_jobs``: the runs of primitives become jobs, each submitted exactly once."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions.client.errors import ConfigurationError

ARGUMENTS = {"backend": "ibm_fez", "max_ttl": "10m", "poll_interval": 0.1}


def bell(backend, *, measured=True):
    """Return a Bell pair in the instructions of the backend."""
    from qiskit import QuantumCircuit, transpile

    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    if measured:
        circuit.measure_all()
    return transpile(circuit, backend, optimization_level=1)


@pytest.mark.parametrize("deferrable", [False, True])
def test_both_generations_of_primitives(qpu, dag, run, deferrable):
    with dag:

        @task.ibm_quantum_jobs(**ARGUMENTS, deferrable=deferrable)
        def work(backend):
            from qiskit.quantum_info import SparsePauliOp
            from qiskit_ibm_runtime import EstimatorV2, SamplerV2
            from qiskit_ibm_runtime.executor_estimator import Estimator
            from qiskit_ibm_runtime.executor_sampler import Sampler

            circuit, state = bell(backend), bell(backend, measured=False)
            correlation = SparsePauliOp("ZZ").apply_layout(state.layout)
            Sampler(mode=backend).run([circuit], shots=100)
            SamplerV2(mode=backend).run([circuit], shots=200)
            Estimator(mode=backend).run([(state, correlation)])
            EstimatorV2(mode=backend).run([(state, correlation)])
            return {"qubits": 2}

        work()
    result = run(dag)
    assert result.state == "success"
    reports = result.xcom("work")
    assert [report["format"] for report in reports] == ["sampler", "sampler", "estimator", "estimator"]
    for report, shots in zip(reports, (100, 200), strict=False):
        counts = report["results"][0]["joint_counts"]
        assert set(counts) == {"00", "11"}
        assert sum(counts.values()) == shots
    for report in reports[2:]:
        assert report["results"][0]["evs"] == pytest.approx(1, abs=0.1)
    assert result.xcom("work", "returned") == {"qubits": 2}
    assert result.xcom("work", "session")["state"] == "closed"
