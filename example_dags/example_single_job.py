# SPDX-License-Identifier: Apache-2.0
"""
One job without a session: wait until a QPU has a short queue, submit, and wait for the result.

Neither waiting holds a worker. The job is billed for QPU time only, a minute at most. Needs no Qiskit.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_ibm_sessions.operators.job import IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.sensors.backend import IBMQuantumBackendSensor

COIN = 'OPENQASM 3.0; include "stdgates.inc"; bit[1] side; sx $0; side[0] = measure $0;'


@task
def heads(report: dict[str, Any]) -> float:
    """Return how often the coin showed 1."""
    counts = report["results"][0]["counts"]["side"]
    return counts.get("1", 0) / sum(counts.values())


with DAG(
    dag_id="ibm_quantum_single_job",
    description="Wait for a short queue, and run one IBM Quantum job without a session",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(hours=12),
    params={
        "backend": Param("ibm_fez", type="string", description="Name of the QPU"),
        "max_queue_length": Param(20, type="integer", minimum=0, description="The most jobs in its queue"),
    },
    tags=["ibm-quantum", "example"],
):
    # [START howto_sensor_backend]
    qpu_is_free = IBMQuantumBackendSensor(
        task_id="qpu_is_free",
        backend="{{ params.backend }}",
        max_queue_length="{{ params.max_queue_length }}",
        deferrable=True,
        timeout=timedelta(hours=6),
    )
    # [END howto_sensor_backend]
    # [START howto_operator_submit_job]
    toss = IBMQuantumSubmitJobOperator(
        task_id="toss",
        backend="{{ params.backend }}",
        program_id="sampler",
        # A circuit, its parameters, and the number of shots.
        program_params={"pubs": [[COIN, None, 1000]]},
        cost="1m",  # longest QPU time
        deferrable=True,
    )
    # [END howto_operator_submit_job]
    qpu_is_free >> toss
    heads(toss.output)
