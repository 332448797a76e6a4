# SPDX-License-Identifier: Apache-2.0
"""
A dynamic circuit: it measures, and acts on what it has measured while it runs.

A state is teleported from one qubit to another. Two registers are measured; ``joint_counts`` holds how often
their bits came together, so that the second can be looked at for each outcome of the first. Needs the extra
``qiskit``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task


@task.ibm_quantum_jobs(
    backend="{{ params.backend }}", mode="{{ params.mode }}", max_ttl="10m", deferrable=True, poll_interval=5
)
def teleport(backend: Any, params: dict[str, Any] | None = None) -> None:
    """Teleport a rotated qubit, and measure it at its destination."""
    from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime.executor_sampler import Sampler

    params = params or {}
    qubits = QuantumRegister(3, "q")
    sent, received = ClassicalRegister(2, "sent"), ClassicalRegister(1, "received")
    circuit = QuantumCircuit(qubits, sent, received)
    circuit.ry(params["angle"], 0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure([0, 1], sent)
    with circuit.if_test((sent[1], 1)):
        circuit.x(2)
    with circuit.if_test((sent[0], 1)):
        circuit.z(2)
    circuit.measure(2, received)
    compiler = generate_preset_pass_manager(backend=backend, optimization_level=1)
    Sampler(mode=backend).run([compiler.run(circuit)], shots=params["shots"])


@task
def received_by_outcome(reports: list[dict[str, Any]]) -> dict[str, float]:
    """Return, for each outcome of ``sent``, how often ``received`` was 1: equally often, without noise."""
    ones: dict[str, int] = {}
    shots: dict[str, int] = {}
    for bits, count in reports[0]["results"][0]["joint_counts"].items():
        received, sent = bits[0], bits[1:]  # the bits of the first register are on the right
        shots[sent] = shots.get(sent, 0) + count
        ones[sent] = ones.get(sent, 0) + count * int(received)
    return {sent: ones[sent] / shots[sent] for sent in sorted(shots)}


with DAG(
    dag_id="ibm_quantum_dynamic_circuit",
    description="Teleportation by a dynamic circuit, with its joint counts post-processed",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(hours=8),
    params={
        "backend": Param("ibm_fez", type="string", description="Name of the QPU"),
        "mode": Param("dedicated", enum=["dedicated", "batch"]),
        "angle": Param(1.0, type="number", description="Rotation of the teleported qubit, in radians"),
        "shots": Param(4000, type="integer", minimum=1),
    },
    tags=["ibm-quantum", "example", "qiskit"],
):
    received_by_outcome(teleport())
