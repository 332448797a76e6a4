# SPDX-License-Identifier: Apache-2.0
"""A task of each operator and sensor, and of a decorator where Qiskit is installed; all succeed."""

from __future__ import annotations

from importlib.util import find_spec

from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator, IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from airflow_provider_ibm_sessions.operators.sweep import IBMQuantumSweepSessionsOperator
from airflow_provider_ibm_sessions.sensors.job import IBMQuantumJobSensor
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor

SESSION = {"backend": "ibm_fez", "max_ttl": "1h"}
JOB = {"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0; bit[2] meas; qubit[2] q;", None, 10]]}}

with DAG("green", schedule=None):
    create = IBMQuantumCreateSessionOperator(task_id="create", **SESSION)
    submit = IBMQuantumSubmitJobOperator(
        task_id="submit",
        program_id=JOB["program_id"],
        program_params=JOB["params"],
        session_id=create.output,
        backend="ibm_fez",
    )
    job_sensor = IBMQuantumJobSensor(task_id="job_sensor", job_id="{{ ti.xcom_pull('submit')['id'] }}")
    update = IBMQuantumUpdateSessionOperator(task_id="update", session_id=create.output, accepting_jobs=False)
    session_sensor = IBMQuantumSessionSensor(task_id="session_sensor", session_id=create.output)
    close = IBMQuantumCloseSessionOperator(task_id="close", session_id=create.output)
    submit >> job_sensor >> update >> session_sensor >> close

    IBMQuantumRunJobsOperator(task_id="run_jobs", jobs=[JOB] * 3, **SESSION)
    IBMQuantumRunJobsOperator(
        task_id="run_jobs_deferred",
        jobs=[{**JOB, "tags": ["deferred"]}],
        deferrable=True,
        poll_interval=1,
        **SESSION,
    )
    IBMQuantumSweepSessionsOperator(task_id="sweep")

    if find_spec("qiskit_ibm_runtime"):

        @task.ibm_quantum_session(**SESSION)
        def decorated(session):
            return session.session_id

        decorated()
