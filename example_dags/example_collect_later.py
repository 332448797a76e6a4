# SPDX-License-Identifier: Apache-2.0
"""
Submit a job now and collect its results later: other tasks run while the job is in IBM's queue.

The task that submits ends at once. A sensor waits for the job without a worker, and the last task fetches the
results. It could be in another Dag, which knows the job's id or its tag. Needs no Qiskit.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airflow_provider_ibm_sessions.operators.job import (
    IBMQuantumJobResultsOperator,
    IBMQuantumSubmitJobOperator,
)
from airflow_provider_ibm_sessions.sensors.job import IBMQuantumJobSensor

COIN = 'OPENQASM 3.0; include "stdgates.inc"; bit[1] side; sx $0; side[0] = measure $0;'


@task
def prepare() -> str:
    """Do what needs no results, while the job waits for the QPU."""
    return "the analysis is ready"


with DAG(
    dag_id="ibm_quantum_collect_later",
    description="Submit an IBM Quantum job, do other work, and collect its results",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(hours=12),
    params={"backend": Param("ibm_fez", type="string", description="Name of the QPU")},
    tags=["ibm-quantum", "example"],
):
    submit = IBMQuantumSubmitJobOperator(
        task_id="submit",
        backend="{{ params.backend }}",
        program_id="sampler",
        program_params={"pubs": [[COIN, None, 1000]]},
        wait_for_completion=False,
    )
    # [START howto_sensor_job]
    job_is_final = IBMQuantumJobSensor(
        task_id="job_is_final",
        job_id=submit.output["job_id"],
        deferrable=True,
        timeout=timedelta(hours=8),
    )
    # [END howto_sensor_job]
    fetch = IBMQuantumJobResultsOperator(task_id="fetch", job_ids=[submit.output["job_id"]])
    submit >> prepare() >> job_is_final >> fetch
