# SPDX-License-Identifier: Apache-2.0
"""Candidate: our run-jobs operator."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_ibm_sessions.operators.run_jobs import IBMQuantumRunJobsOperator
from benchmarks.idle.experiment import BACKEND, JOBS, MAX_TTL, sampler_params

with DAG("run_jobs", schedule=None):
    IBMQuantumRunJobsOperator(
        task_id="run",
        ibm_quantum_conn_id="run_jobs",
        backend=BACKEND,
        mode="dedicated",
        max_ttl=MAX_TTL,
        jobs=[{"program_id": "sampler", "params": sampler_params()} for _ in range(JOBS)],
        deferrable=True,
    )
