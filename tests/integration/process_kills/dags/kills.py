# SPDX-License-Identifier: Apache-2.0
"""The Dags of the kill tests. A run's conf names the connection, and the point where its task is to hold."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator, IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from tests.integration.process_kills.breakpoints import after, before, hold

BACKEND = "ibm_fez"
MAX_TTL = "10m"
SHORT = timedelta(seconds=45)
# A triggerer's first trigger waits for much to be imported.
LESS_SHORT = timedelta(seconds=100)
ONCE_MORE = {"retries": 1, "retry_delay": timedelta(seconds=1)}
LAST = {"retries": 0}
HELD = {
    "ibm_quantum_conn_id": "{{ dag_run.conf['connection'] }}",
    "pre_execute": before,
    "post_execute": after,
}


def params(width):
    return {"pubs": [[f"OPENQASM 3.0; bit[{width}] meas; qubit[{width}] q;", None, 10]]}


def create_session(max_ttl):
    return IBMQuantumCreateSessionOperator(
        task_id="create", backend=BACKEND, max_ttl=max_ttl, **ONCE_MORE, **HELD
    )


def submit_job(session_id, **kwargs):
    return IBMQuantumSubmitJobOperator(
        task_id="submit",
        session_id=session_id,
        program_id="sampler",
        program_params=params(2),
        poll_interval=1,
        **kwargs,
        **HELD,
    )


def close_session(session_id, **kwargs):
    return IBMQuantumCloseSessionOperator(
        task_id="close", session_id=session_id, poll_interval=1, timeout=300, **kwargs, **ONCE_MORE, **HELD
    )


def session_dag(dag_id, *, submit, close, max_ttl=MAX_TTL, **kwargs):
    with DAG(dag_id, schedule=None, **kwargs):
        create = create_session(max_ttl)
        job = submit_job(create.output, **submit)
        end = close_session(create.output, **close)
        # The run fails if the job does, or the teardown. With `on_failure_fail_dagrun=True` and nothing after
        # it, the teardown alone would decide.
        create >> job >> end.as_teardown(setups=create) >> EmptyOperator(task_id="closed")


def run_jobs_dag(dag_id, *, dagrun_timeout=None, **kwargs):
    with DAG(dag_id, schedule=None, dagrun_timeout=dagrun_timeout):
        jobs = [{"program_id": "sampler", "params": params(width)} for width in (2, 3, 4)]
        IBMQuantumRunJobsOperator(
            task_id="run",
            backend=BACKEND,
            jobs=jobs,
            max_ttl=MAX_TTL,
            poll_interval=1,
            **ONCE_MORE,
            **kwargs,
            **HELD,
        )


def function_dag(dag_id, **kwargs):
    with DAG(dag_id, schedule=None):

        @task.ibm_quantum_session(backend=BACKEND, max_ttl="{{ dag_run.conf['max_ttl'] }}", **kwargs, **HELD)
        def work(session, dag_run, ti):
            from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

            IBMQuantumHook(dag_run.conf["connection"]).submit_job(
                "sampler",
                backend=BACKEND,
                params=params(2),
                session_id=session.session_id,
                tags=[f"try-{ti.try_number}"],
            )
            if ti.try_number == 1:
                hold({"dag_run": dag_run})

        work()


session_dag("kills_session", submit=ONCE_MORE, close={})
session_dag("kills_last_try", submit=LAST, close={})
session_dag("kills_submit_deferred", submit={"deferrable": True, **ONCE_MORE}, close={})
NOT_WAITING = {"wait_for_completion": False, **ONCE_MORE}
session_dag("kills_drain", submit=NOT_WAITING, close={"drain": True})
session_dag("kills_drain_deferred", submit=NOT_WAITING, close={"drain": True, "deferrable": True})
# Without a max_ttl it is the dagrun_timeout.
session_dag("kills_timeout", submit=LAST, close={}, max_ttl=None, dagrun_timeout=SHORT)
run_jobs_dag("kills_run")
run_jobs_dag("kills_run_timeout", dagrun_timeout=SHORT)
run_jobs_dag("kills_run_deferred_timeout", deferrable=True, dagrun_timeout=LESS_SHORT)
run_jobs_dag("kills_run_deferred", deferrable=True)
run_jobs_dag("kills_run_declines", cancel_on_kill=False)
run_jobs_dag("kills_run_deferred_declines", deferrable=True, cancel_on_kill=False)
function_dag("kills_function", **ONCE_MORE)
function_dag("kills_function_last_try", **LAST)
