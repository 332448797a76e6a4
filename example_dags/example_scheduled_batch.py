# SPDX-License-Identifier: Apache-2.0
"""
A nightly batch: experiments are mapped over tasks, all of them in one session of mode ``batch``.

Tasks submit and end; the waiting is done in the triggerer, and no worker is held while the jobs are queued.
Needs the extra ``qiskit``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, task

from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor


@task
def experiments(params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """List what to run tonight: entangled states of growing size."""
    sizes = (params or {})["sizes"]
    return [{"name": f"ghz-{size}", "qubits": size} for size in sizes]


@task
def submit(
    experiment: dict[str, Any], session_id: str, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Compile one experiment for the QPU and put it into the batch; its result is fetched later."""
    from qiskit import QuantumCircuit
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime.executor_sampler import Sampler

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

    params = params or {}
    batch = IBMQuantumHook().qiskit_session(session_id, backend=params["backend"])

    qubits = experiment["qubits"]
    circuit = QuantumCircuit(qubits)
    circuit.h(0)
    for qubit in range(1, qubits):
        circuit.cx(qubit - 1, qubit)
    circuit.measure_all()
    compiled = generate_preset_pass_manager(
        backend=batch.service.backend(params["backend"]), optimization_level=1
    ).run(circuit)
    return {**experiment, "job_id": Sampler(mode=batch).run([compiled], shots=params["shots"]).job_id()}


@task(execution_timeout=timedelta(minutes=30))
def collect(job: dict[str, Any]) -> dict[str, Any]:
    """Fetch the counts of one experiment."""
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

    result = IBMQuantumHook().qiskit_service().job(job["job_id"]).result()
    return {**job, "counts": result[0].data.meas.get_counts()}


with DAG(
    dag_id="ibm_quantum_scheduled_batch",
    description="Experiments mapped over tasks, in one IBM Quantum batch each night",
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
    create = IBMQuantumCreateSessionOperator(
        task_id="create_batch",
        backend="{{ params.backend }}",
        mode="batch",
    )
    jobs = submit.partial(session_id=create.output).expand(experiment=experiments())
    drain = IBMQuantumUpdateSessionOperator(
        task_id="drain_batch", session_id=create.output, accepting_jobs=False
    )
    done = IBMQuantumSessionSensor(
        task_id="batch_has_closed", session_id=create.output, deferrable=True, timeout=timedelta(hours=7)
    )
    close = IBMQuantumCloseSessionOperator(task_id="close_batch", session_id=create.output, retries=3)

    (
        jobs
        >> drain
        >> done
        >> collect.expand(job=jobs)
        # A teardown that fails does not fail the run by itself; what comes after it does.
        >> close.as_teardown(setups=create)
        >> EmptyOperator(task_id="closed")
    )
