# SPDX-License-Identifier: Apache-2.0
"""
A small variational loop: the lowest energy of a spin in a field, found by gradient descent on the QPU.

Each job depends on the result of the one before, so Python runs between them: the function gets a live Qiskit
session, which is drained when it returns and closed when it raises. The energy of a spin that is turned by
``angle`` is ``cos(angle) + sin(angle) / 2``; its lowest is ``-sqrt(5) / 2``. Needs the extra ``qiskit``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Param, task

if TYPE_CHECKING:
    from qiskit_ibm_runtime import Session


# [START howto_decorator_session]
@task.ibm_quantum_session(
    backend="{{ params.backend }}",
    mode="{{ params.mode }}",
    max_ttl="20m",
    execution_timeout=timedelta(hours=7),
)
def minimise(session: Session, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Follow the gradient downhill, one job for each step."""
    from math import pi

    from qiskit import QuantumCircuit
    from qiskit.circuit import Parameter
    from qiskit.quantum_info import SparsePauliOp
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime.executor_estimator import Estimator

    params = params or {}
    angle = Parameter("angle")
    circuit = QuantumCircuit(1)
    circuit.ry(angle, 0)
    backend = session.service.backend(params["backend"])
    compiled = generate_preset_pass_manager(backend=backend, optimization_level=1).run(circuit)
    energy = SparsePauliOp.from_list([("Z", 1.0), ("X", 0.5)]).apply_layout(compiled.layout)

    estimator = Estimator(mode=session)
    at, path = params["start"], []
    for _ in range(params["steps"]):
        # The energy here, and a quarter turn to each side: half the difference of those is the slope.
        values = [[at], [at + pi / 2], [at - pi / 2]]
        data = estimator.run([(compiled, energy, values)]).result()[0].data
        here, ahead, behind = data.evs.tolist()
        path.append({"angle": at, "energy": here, "std": float(data.stds[0])})
        at -= params["rate"] * (ahead - behind) / 2
    return {"best": min(path, key=lambda step: step["energy"]), "path": path}


# [END howto_decorator_session]


with DAG(
    dag_id="ibm_quantum_variational_loop",
    description="A variational loop in an IBM Quantum session: each job depends on the last",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(hours=8),
    params={
        "backend": Param("ibm_fez", type="string", description="Name of the QPU"),
        "mode": Param("dedicated", enum=["dedicated", "batch"]),
        "start": Param(2.0, type="number", description="Angle to begin with, in radians"),
        "steps": Param(5, type="integer", minimum=1),
        "rate": Param(0.9, type="number", description="How far to go down the slope"),
    },
    tags=["ibm-quantum", "example", "qiskit"],
):
    minimise()
