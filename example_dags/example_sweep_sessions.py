# SPDX-License-Identifier: Apache-2.0
"""
Every quarter of an hour: close the sessions that nobody uses any more.

Teardowns close what runs have opened. The rest is for this: Airflow skips teardowns when a run reaches its
``dagrun_timeout``, and none runs while Airflow is down.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_ibm_sessions.operators.sweep import IBMQuantumSweepSessionsOperator

with DAG(
    dag_id="ibm_quantum_sweep_sessions",
    description="Close IBM Quantum sessions that no live run owns",
    doc_md=__doc__,
    schedule="*/15 * * * *",
    catchup=False,
    max_active_runs=1,
    tags=["ibm-quantum", "example"],
):
    # [START howto_operator_sweep_sessions]
    # Only reports, in its log and its return value. If you agree with the report, set dry_run=False.
    IBMQuantumSweepSessionsOperator(
        task_id="sweep",
        dry_run=True,
        min_age=timedelta(minutes=15),
        retries=2,
        retry_delay=timedelta(minutes=1),
        execution_timeout=timedelta(minutes=10),
    )
    # [END howto_operator_sweep_sessions]
