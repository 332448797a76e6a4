# SPDX-License-Identifier: Apache-2.0
"""
Candidate: our decorator, on the same function as that of Qiskit's candidate, without its waiting.

The benchmark's environment does not have this package installed, so that ``task`` does not know it by name.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_ibm_sessions.decorators.jobs import ibm_quantum_jobs_task
from benchmarks.idle.experiment import BACKEND, JOBS, MAX_TTL, SHOTS


@ibm_quantum_jobs_task(
    ibm_quantum_conn_id="jobs_decorator",
    backend=BACKEND,
    mode="dedicated",
    max_ttl=MAX_TTL,
    deferrable=True,
)
def experiment(backend):
    """Run the sampler once for each job."""
    from qiskit import QuantumCircuit
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime import SamplerV2

    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    compiled = generate_preset_pass_manager(backend=backend, optimization_level=1).run(circuit)
    sampler = SamplerV2(mode=backend)
    for _ in range(JOBS):
        sampler.run([compiled], shots=SHOTS)


with DAG("jobs_decorator", schedule=None):
    experiment()
