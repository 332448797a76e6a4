# SPDX-License-Identifier: Apache-2.0
"""The Dags of the cluster tests. Each scenario has a connection, and so an IBM, of its own."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator, IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from airflow_provider_ibm_sessions.operators.sweep import IBMQuantumSweepSessionsOperator

BACKEND = "ibm_fez"
SOON = {"retries": 8, "retry_delay": timedelta(seconds=5), "max_retry_delay": timedelta(seconds=15)}
"""More retries than the default, and sooner: here a task is hit more often than in a year of production."""


def params(width):
    return {"pubs": [[f"OPENQASM 3.0; bit[{width}] meas; qubit[{width}] q;", None, 10]]}


def run_jobs_dag(dag_id, conn_id, **kwargs):
    with DAG(dag_id, schedule=None):
        IBMQuantumRunJobsOperator(
            task_id="run",
            backend=BACKEND,
            jobs=[{"program_id": "sampler", "params": params(width)} for width in (2, 3)],
            max_ttl="30m",
            ibm_quantum_conn_id=conn_id,
            **kwargs,
        )


def lifecycle_dag(dag_id, conn_id, *, deferrable, **kwargs):
    common = {"ibm_quantum_conn_id": conn_id, **kwargs}
    with DAG(dag_id, schedule=None):
        create = IBMQuantumCreateSessionOperator(task_id="create", backend=BACKEND, max_ttl="30m", **common)
        submit = IBMQuantumSubmitJobOperator(
            task_id="submit",
            session_id=create.output,
            program_id="sampler",
            program_params=params(2),
            deferrable=deferrable,
            **common,
        )
        close = IBMQuantumCloseSessionOperator(task_id="close", session_id=create.output, **common)
        # The run fails if the job does, or the teardown.
        create >> submit >> close.as_teardown(setups=create) >> EmptyOperator(task_id="closed")


class Wait(BaseOperator):
    """A task that the scheduler defers itself, so that hundreds of waits start without a worker."""

    start_from_trigger = True

    def __init__(self, *, conn_id, session_id, job_id, until, **kwargs):
        super().__init__(**kwargs)
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls="airflow_provider_ibm_sessions.triggers.job.IBMQuantumJobTrigger",
            next_method="execute_complete",
            trigger_kwargs={
                "job_ids": [job_id],
                "session_id": session_id,
                "cancel_on_kill": True,
                "owns_session": True,
                "end_time": until,
                "poll_interval": 10.0,
                "ibm_quantum_conn_id": conn_id,
            },
        )

    def execute(self, context):
        raise AssertionError("the scheduler has not deferred this task")

    def execute_complete(self, context, event):
        return event["status"]


def waits_dag(dag_id, conn_id, waits, until):
    with DAG(dag_id, schedule=None):
        for number, (session_id, job_id) in enumerate(waits):
            Wait(
                task_id=f"wait_{number}",
                conn_id=conn_id,
                session_id=session_id,
                job_id=job_id,
                until=until,
            )


def open_dag(dag_id, conn_id, count):
    with DAG(dag_id, schedule=None):

        @task(**SOON)
        def open_sessions():
            from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

            hook = IBMQuantumHook(conn_id)
            for _ in range(count):
                hook.create_session(BACKEND, max_ttl="30m")

        open_sessions()


def sweep_dag(dag_id, conn_id):
    with DAG(dag_id, schedule=None):
        IBMQuantumSweepSessionsOperator(
            task_id="sweep", ibm_quantum_conn_id=conn_id, dry_run=False, min_age="1s"
        )


run_jobs_dag("outage_run_jobs", "ibm_outage")
run_jobs_dag("outage_run_jobs_deferred", "ibm_outage", deferrable=True)
lifecycle_dag("outage_lifecycle", "ibm_outage", deferrable=False)
run_jobs_dag("kills_run_jobs", "ibm_kills", poll_interval=3, **SOON)
run_jobs_dag("kills_run_jobs_deferred", "ibm_kills", poll_interval=3, deferrable=True, **SOON)
lifecycle_dag("kills_lifecycle", "ibm_kills", deferrable=True, **SOON)
run_jobs_dag("no_connection", "ibm_workers_only", poll_interval=3, deferrable=True)
open_dag("sweep_open", "ibm_sweep", 100)
sweep_dag("sweep", "ibm_sweep")
if "CLUSTER_WAITS" in os.environ:
    waiting = json.loads(Path(os.environ["CLUSTER_WAITS"]).read_text())
    for part, waits in enumerate(waiting["parts"]):
        waits_dag(f"waits_{part}", "ibm_waits", waits, waiting["until"])
