# SPDX-License-Identifier: Apache-2.0
"""
Candidate: Qiskit's session in a PythonOperator, as its documentation shows it.

Nothing of this package is used. The service is on loopback, which needs what is before ``experiment``.
"""

from __future__ import annotations

import os

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, BaseHook

from benchmarks.idle.experiment import BACKEND, JOBS, MAX_TTL, SHOTS


def loopback_service():
    """Qiskit's service, with the addresses and the one instance of a service on this machine."""
    from qiskit_ibm_runtime import QiskitRuntimeService

    connection = BaseHook.get_connection("qiskit_session")
    extra = connection.extra_dejson

    class LoopbackService(QiskitRuntimeService):
        def instances(self):
            """In place of IBM Cloud's global search: one request less."""
            crn = extra["crn"]
            return [{"crn": crn, "plan": "premium", "name": crn, "tags": [], "pricing_type": "paid"}]

    os.environ["IAM_URL"] = extra["iam_url"]
    return LoopbackService(
        channel="ibm_quantum_platform",
        token=connection.password,
        instance=extra["crn"],
        url_resolver=lambda *_: f"{connection.host}/v1",
    )


def experiment() -> list[dict[str, int]]:
    """Submit all jobs, then wait for their results, inside the session."""
    from qiskit import QuantumCircuit
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime import SamplerV2, Session

    backend = loopback_service().backend(BACKEND)
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    compiled = generate_preset_pass_manager(backend=backend, optimization_level=1).run(circuit)
    with Session(backend=backend, max_time=MAX_TTL) as session:
        sampler = SamplerV2(mode=session)
        jobs = [sampler.run([compiled], shots=SHOTS) for _ in range(JOBS)]
        results = [job.result() for job in jobs]
    return [result[0].data.meas.get_counts() for result in results]


with DAG("qiskit_session", schedule=None):
    PythonOperator(task_id="experiment", python_callable=experiment)
