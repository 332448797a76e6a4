# SPDX-License-Identifier: Apache-2.0
"""
A nightly batch: all experiments of a night are jobs of one batch, and no worker waits for it.

IBM bills a batch for QPU time only, and runs its jobs one after the other. What the function returns is the
XCom ``returned``, which the next task reads beside the reports on the jobs. Needs the extra ``qiskit``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task


@task.ibm_quantum_jobs(
    backend="{{ params.backend }}",
    mode="batch",
    max_ttl="30m",
    on_job_failure="collect",
    timeout=timedelta(hours=7),
    deferrable=True,
)
def experiments(backend: Any, params: dict[str, Any] | None = None) -> list[str]:
    """Make a job for each experiment of this night, and return their names."""
    from qiskit import QuantumCircuit
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime.executor_sampler import Sampler

    params = params or {}
    compiler = generate_preset_pass_manager(backend=backend, optimization_level=1)
    sampler = Sampler(mode=backend)
    sampler.options.environment.job_tags = ["nightly"]
    names = []
    for size in params["sizes"]:
        circuit = QuantumCircuit(size)
        circuit.h(0)
        for qubit in range(1, size):
            circuit.cx(qubit - 1, qubit)
        circuit.measure_all()
        sampler.run([compiler.run(circuit)], shots=params["shots"])
        names.append(f"ghz-{size}")
    return names


@task
def collect(names: list[str], reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return name and counts of each experiment, or why it has none."""
    return [
        {"name": name, "job_id": report["id"], "error": report["error"]}
        if "error" in report
        else {"name": name, "job_id": report["id"], "counts": report["results"][0]["counts"]["meas"]}
        for name, report in zip(names, reports, strict=True)
    ]


with DAG(
    dag_id="ibm_quantum_scheduled_batch",
    description="Experiments of one night, in one IBM Quantum batch",
    doc_md=__doc__,
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=8),
    params={
        "backend": Param("ibm_fez", type="string", description="Name of the QPU"),
        "sizes": Param([2, 3, 4], type="array", items={"type": "integer", "minimum": 2}),
        "shots": Param(1000, type="integer", minimum=1),
    },
    tags=["ibm-quantum", "example", "qiskit"],
):
    reports = experiments()
    collect(reports["returned"], reports)
