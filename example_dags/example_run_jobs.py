# SPDX-License-Identifier: Apache-2.0
"""
A whole experiment in one task: jobs that are prepared beforehand, and need no Python between them.

The session is opened, gets all its jobs, is drained at once, and closes itself with the last of them; the
waiting holds no worker. The circuits are compiled and encoded by Qiskit; needs the extra ``qiskit``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator


@task
def prepare(params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Make one job for each size of an entangled state."""
    import json

    from qiskit import QuantumCircuit
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime import RuntimeEncoder

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

    params = params or {}
    backend = IBMQuantumHook().qiskit_service().backend(params["backend"])
    compiler = generate_preset_pass_manager(backend=backend, optimization_level=1)

    def ghz(size: int) -> QuantumCircuit:
        circuit = QuantumCircuit(size)
        circuit.h(0)
        for qubit in range(1, size):
            circuit.cx(qubit - 1, qubit)
        circuit.measure_all()
        return compiler.run(circuit)

    pubs = [[ghz(size), None, params["shots"]] for size in params["sizes"]]
    jobs = [
        {"program_id": "sampler", "params": {"pubs": [pub], "version": 2, "support_qiskit": True}}
        for pub in pubs
    ]
    encoded: list[dict[str, Any]] = json.loads(json.dumps(jobs, cls=RuntimeEncoder))
    return encoded


@task
def fidelities(reports: list[dict[str, Any]]) -> list[float]:
    """How often all qubits of a state agreed: always, on a QPU without noise."""
    found = []
    for report in reports:
        counts = report["results"][0]["counts"]["meas"]
        agreeing = sum(count for bits, count in counts.items() if len(set(bits)) == 1)
        found.append(agreeing / sum(counts.values()))
    return found


with DAG(
    dag_id="ibm_quantum_run_jobs",
    description="Jobs prepared beforehand, run in an IBM Quantum session of their own by one task",
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
    run_jobs = IBMQuantumRunJobsOperator(
        task_id="run_jobs",
        backend="{{ params.backend }}",
        mode="{{ params.mode }}",
        jobs=prepare(),
        deferrable=True,
        poll_interval=5,
        retries=2,
    )
    fidelities(run_jobs.output)
