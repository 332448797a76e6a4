# SPDX-License-Identifier: Apache-2.0
"""
A Qiskit experiment in a managed session: a qubit is turned by one angle after the other and measured.

The probability of reading 1 after a turn by ``angle`` is ``sin(angle / 2) ** 2``. Needs the extra ``qiskit``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, task

from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)


@task(execution_timeout=timedelta(hours=7))
def run_sweep(session_id: str, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """
    Submit one job for each angle, drain the session, and collect the counts.

    Holds a worker while the jobs are queued; the example of a nightly batch does not.
    """
    from math import pi

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

    params = params or {}
    # Before Qiskit is imported, so that the task's log is not full of its compiler's lines.
    session = IBMQuantumHook().qiskit_session(session_id, backend=params["backend"])

    from qiskit import QuantumCircuit
    from qiskit.circuit import Parameter
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime.executor_sampler import Sampler

    angle = Parameter("angle")
    circuit = QuantumCircuit(1, 1)
    circuit.ry(angle, 0)
    circuit.measure(0, 0)
    # A QPU runs only what is written in its own gates and for its own qubits.
    compiled = generate_preset_pass_manager(
        backend=session.service.backend(params["backend"]), optimization_level=1
    ).run(circuit)

    points = params["points"]
    angles = [pi * step / (points - 1) for step in range(points)]
    sampler = Sampler(mode=session)
    jobs = [sampler.run([compiled.assign_parameters({angle: a})], shots=params["shots"]) for a in angles]
    # Drain: the session closes itself with its last job, so the QPU is not paid for while nothing runs.
    session.close()

    return [
        {"angle": a, "job_id": job.job_id(), "counts": job.result()[0].data.c.get_counts()}
        for a, job in zip(angles, jobs, strict=True)
    ]


with DAG(
    dag_id="ibm_quantum_qiskit_sweep",
    description="A parameter sweep of Qiskit circuits in one IBM Quantum session",
    doc_md=__doc__,
    schedule=None,
    dagrun_timeout=timedelta(hours=8),
    params={
        "backend": Param("ibm_fez", type="string", description="Name of the QPU"),
        "points": Param(5, type="integer", minimum=2, maximum=50),
        "shots": Param(1000, type="integer", minimum=1),
    },
    tags=["ibm-quantum", "example", "qiskit"],
):
    create = IBMQuantumCreateSessionOperator(
        task_id="create_session",
        backend="{{ params.backend }}",
        max_ttl="15m",
    )
    close = IBMQuantumCloseSessionOperator(task_id="close_session", session_id=create.output, retries=3)

    # A teardown that fails does not fail the run by itself; what comes after it does.
    run_sweep(create.output) >> close.as_teardown(setups=create) >> EmptyOperator(task_id="closed")
