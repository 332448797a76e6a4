# SPDX-License-Identifier: Apache-2.0
"""
From the choice of a QPU to the bill: the best QPU that is free soon, within a budget, at a known price.

Nothing is submitted if the instance has less than five minutes of usage left, or if the jobs take more than
two minutes by an estimate. A job that fails by an error of IBM's own is submitted again, and only that one.
The last task returns what was found, and what it cost: set ``price_per_second`` in the connection. Needs the
extra ``qiskit``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_ibm_sessions.operators.backend import IBMQuantumSelectBackendOperator


# [START howto_decorator_jobs_within_a_budget]
@task.ibm_quantum_jobs(
    backend="{{ ti.xcom_pull(task_ids='choose') }}",
    mode="batch",
    max_ttl="30m",
    min_usage_remaining="5m",
    on_low_usage="fail",
    max_estimate="2m",
    job_retries=2,
    settle_usage="5m",
    deferrable=True,
    poll_interval=5,
)
# [END howto_decorator_jobs_within_a_budget]
def measure(backend: Any, params: dict[str, Any] | None = None) -> None:
    """Make one job for each rotation of a qubit."""
    from qiskit import QuantumCircuit
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime.executor_sampler import Sampler

    params = params or {}
    compiler = generate_preset_pass_manager(backend=backend, optimization_level=1)
    for angle in params["angles"]:
        circuit = QuantumCircuit(1)
        circuit.ry(angle, 0)
        circuit.measure_all()
        Sampler(mode=backend).run([compiler.run(circuit)], shots=params["shots"])


@task
def report(reports: list[dict[str, Any]], usage: dict[str, Any], backend: str) -> dict[str, Any]:
    """Return how often each qubit was 1, how often its job was submitted, and what all of it cost."""
    counts = [each["results"][0]["counts"]["meas"] for each in reports]
    return {
        "backend": backend,
        "ones": [each.get("1", 0) / sum(each.values()) for each in counts],
        "attempts": [each["attempts"] for each in reports],
        "usage": usage,
    }


with DAG(
    dag_id="ibm_quantum_budgeted_run",
    description="Choose a QPU, stay within a budget, repeat what IBM has spoiled, report the price",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(hours=12),
    params={
        "angles": Param([0.5, 1.0, 1.5], type="array", description="Rotations, in radians"),
        "shots": Param(1000, type="integer", minimum=1),
    },
    render_template_as_native_obj=True,
    tags=["ibm-quantum", "example", "qiskit"],
):
    # [START howto_operator_select_backend]
    choose = IBMQuantumSelectBackendOperator(
        task_id="choose", min_qubits=5, max_wait="4h", order_by="wait_time", wait=True, deferrable=True
    )
    # [END howto_operator_select_backend]
    measured = measure()
    choose >> measured
    report(measured, "{{ ti.xcom_pull(task_ids='measure', key='usage') }}", choose.output)
