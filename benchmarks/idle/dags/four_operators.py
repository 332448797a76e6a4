# SPDX-License-Identifier: Apache-2.0
"""Candidate: our operators for sessions and jobs, and the sensor."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_ibm_sessions.operators.job import IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor
from benchmarks.idle.experiment import BACKEND, JOBS, MAX_TTL, sampler_params

with DAG("four_operators", schedule=None, default_args={"ibm_quantum_conn_id": "four_operators"}):
    create = IBMQuantumCreateSessionOperator(task_id="create", backend=BACKEND, max_ttl=MAX_TTL)
    submit = IBMQuantumSubmitJobOperator.partial(
        task_id="submit",
        backend=BACKEND,
        session_id=create.output,
        program_id="sampler",
        wait_for_completion=False,
    ).expand(program_params=[sampler_params() for _ in range(JOBS)])
    drain = IBMQuantumUpdateSessionOperator(task_id="drain", session_id=create.output, accepting_jobs=False)
    wait = IBMQuantumSessionSensor(
        task_id="wait", session_id=create.output, target_state="closed", deferrable=True
    )
    close = IBMQuantumCloseSessionOperator(task_id="close", session_id=create.output, retries=3)
    submit >> drain >> wait >> close.as_teardown(setups=create)
