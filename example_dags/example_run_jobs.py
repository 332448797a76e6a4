# SPDX-License-Identifier: Apache-2.0
"""
A whole experiment in one function: it compiles circuits and calls Qiskit's primitives, as in a notebook.

Nothing is sent while the function runs. Then a session is opened, gets all jobs, is drained at once, and
closes itself with the last of them; the waiting holds no worker. Needs the extra ``qiskit``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task


# [START howto_decorator_jobs]
@task.ibm_quantum_jobs(
    backend="{{ params.backend }}",
    mode="{{ params.mode }}",
    max_ttl="10m",  # limits the bill, even if Airflow dies
    deferrable=True,
    poll_interval=5,
    retries=2,
)
def entangle(backend: Any, params: dict[str, Any] | None = None) -> None:
    """Make one job for each size of an entangled state."""
    from qiskit import QuantumCircuit
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime.executor_sampler import Sampler

    params = params or {}
    compiler = generate_preset_pass_manager(backend=backend, optimization_level=1)
    sampler = Sampler(mode=backend)
    for size in params["sizes"]:
        circuit = QuantumCircuit(size)
        circuit.h(0)
        for qubit in range(1, size):
            circuit.cx(qubit - 1, qubit)
        circuit.measure_all()
        sampler.run([compiler.run(circuit)], shots=params["shots"])


# [END howto_decorator_jobs]


@task
def fidelities(reports: list[dict[str, Any]]) -> list[float]:
    """Return how often all qubits of a state agreed: always, on a QPU without noise."""
    found = []
    for report in reports:
        counts = report["results"][0]["counts"]["meas"]
        agreeing = sum(count for bits, count in counts.items() if len(set(bits)) == 1)
        found.append(agreeing / sum(counts.values()))
    return found


with DAG(
    dag_id="ibm_quantum_run_jobs",
    description="Jobs of Qiskit's primitives, run in an IBM Quantum session of their own by one task",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(hours=8),
    params={
        "backend": Param("ibm_fez", type="string", description="Name of the QPU"),
        "mode": Param("dedicated", enum=["dedicated", "batch"]),
        "sizes": Param([2, 3, 4], type="array", items={"type": "integer", "minimum": 2}),
        "shots": Param(1000, type="integer", minimum=1),
    },
    tags=["ibm-quantum", "example", "qiskit"],
):
    fidelities(entangle())
