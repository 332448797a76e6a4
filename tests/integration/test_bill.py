# SPDX-License-Identifier: Apache-2.0
"""
Over many runs, with all that goes wrong in them, the records say to the second what IBM bills.

``RUNS_TO_BILL=200`` in the environment lets more run than the eleven of the suite.
"""

from __future__ import annotations

import itertools
import os
import time
from decimal import Decimal

import pytest
from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions.cli.main import main
from airflow_provider_ibm_sessions.cli.metastore import records_of_run
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.operators.job import IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.run_jobs import IBMQuantumRunJobsOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from testing.airflow_runs import cleared, next_try
from testing.connections import connection_to
from testing.dag_tasks import AT_ONCE, registered_sessions, run_jobs, sampler_job, sweep
from testing.fake_ibm import Outcome

RUNS = int(os.environ.get("RUNS_TO_BILL", "11"))


@pytest.fixture(autouse=True)
def _priced(ibm, airflow_db, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm, price_per_second=1.6))


@pytest.fixture
def new_dag():
    numbers = itertools.count()

    def make():
        return DAG(f"billed_{next(numbers)}", schedule=None, default_args={"retries": 0})

    return make


def succeeds(ibm, dag, run, monkeypatch):
    with dag:
        run_jobs(mode="batch")
    return run(dag)


def fails(ibm, dag, run, monkeypatch):
    """Clearing it runs all jobs again, in a second session."""
    ibm.next_jobs(
        [Outcome.failed(1517, seconds=0.3), Outcome.failed(9999, seconds=0.2), Outcome(seconds=0.1)]
    )
    with dag:
        run_jobs()
    return cleared(run(dag), dag, "run")


def repeats_what_has_failed(ibm, dag, run, monkeypatch):
    """The same try opens a second session, and a third."""
    ibm.next_jobs(
        [Outcome(), Outcome.failed(9999, seconds=0.2), Outcome(), Outcome.failed(1999, seconds=0.1)]
    )
    with dag:
        run_jobs(job_retries=2)
    return run(dag)


def is_killed_and_retried(ibm, dag, run, monkeypatch):
    """Its session is closed where nothing could be stored, and its jobs are cancelled while they run."""
    with dag:
        run_jobs()
    with monkeypatch.context() as dying:
        dying.setattr(ibm.settings, "job_seconds", 600)

        def wait(self, end_time):
            time.sleep(0.2)
            with self.hook.short_lived_client() as client:
                client.close_session(self.session_id)
                for job_id in self._job_ids:
                    client.cancel_job(job_id)
            raise RuntimeError("as if the worker had died")

        dying.setattr(IBMQuantumRunJobsOperator, "wait", wait)
        first = run(dag)
    return next_try(first, dag, "run")


def is_killed_for_good(ibm, dag, run, monkeypatch):
    """Only the sweep sees the end."""
    with dag:
        run_jobs(mode="batch")
    with monkeypatch.context() as dying:
        dying.setattr(IBMQuantumRunJobsOperator, "wait", lambda *_: 1 / 0)
        return run(dag)


def changes_its_input(ibm, dag, run, monkeypatch):
    with dag:
        operator = run_jobs()
    with monkeypatch.context() as dying:
        dying.setattr(IBMQuantumRunJobsOperator, "wait", lambda *_: 1 / 0)
        first = run(dag)
    operator.jobs = [sampler_job(5)]
    return next_try(first, dag, "run")


def is_given_up(ibm, dag, run, monkeypatch):
    with monkeypatch.context() as slow, dag:
        slow.setattr(ibm.settings, "job_seconds", 600)
        run_jobs(timeout=0.3)
        return run(dag)


def is_cleared_when_it_is_done(ibm, dag, run, monkeypatch):
    with dag:
        run_jobs(deferrable=True)
    return cleared(run(dag), dag, "run")


def is_closed_while_a_job_runs(ibm, dag, run, monkeypatch):
    @task
    def work(session_id):
        IBMQuantumHook().submit_job(backend="ibm_fez", session_id=session_id, **sampler_job())

    with dag:
        create = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
        close = IBMQuantumCloseSessionOperator(
            task_id="close", session_id=create.output, settle_usage="1m", poll_interval=0.1
        )
        work(create.output) >> close
    return run(dag)


def submits_one_job_and_fails(ibm, dag, run, monkeypatch):
    ibm.next_jobs([Outcome.failed(1517, seconds=0.2)])
    with dag:
        IBMQuantumSubmitJobOperator(
            task_id="submit",
            program_id="sampler",
            program_params=sampler_job()["params"],
            backend="ibm_fez",
            poll_interval=0.1,
        )
    return cleared(run(dag), dag, "submit")


def leaves_it_open(ibm, dag, run, monkeypatch):
    """A user's own code raises between opening and closing, at each of two tries."""

    @task(retries=1, **AT_ONCE)
    def work():
        IBMQuantumHook().create_session("ibm_fez", max_ttl="10m")
        raise ValueError

    with dag:
        work()
    return run(dag)


SCENARIOS = [
    succeeds,
    fails,
    repeats_what_has_failed,
    is_killed_and_retried,
    is_killed_for_good,
    changes_its_input,
    is_given_up,
    is_cleared_when_it_is_done,
    is_closed_while_a_job_runs,
    submits_one_job_and_fails,
    leaves_it_open,
]


def test_the_records_of_all_runs_are_the_bill(ibm, run, new_dag, monkeypatch, capfd):
    ibm.settings.job_seconds = 0.2
    ibm.settings.usage_settle_seconds = 1
    results = []
    for scenario in itertools.islice(itertools.cycle(SCENARIOS), RUNS):
        results.append(scenario(ibm, new_dag(), run, monkeypatch))
    time.sleep(1.1)
    with DAG("sweeps_all", schedule=None, default_args={"retries": 0}) as sweeper:
        sweep(min_age=1)
    assert run(sweeper).state == "success"
    time.sleep(1.1)
    for result in results:
        names = ["--dag-id", result.dag_run.dag_id, "--run-id", result.dag_run.run_id]
        assert main(["usage", *names, "--settle"]) == 0
    capfd.readouterr()
    found = [
        record
        for result in results
        for record in records_of_run(result.dag_run.dag_id, result.dag_run.run_id)
    ]
    assert {record.session_id: record.billed for record in found} == pytest.approx(ibm.bill)
    assert len(found) == len(ibm.bill)
    assert all(record.billed_is_final for record in found)
    bill = sum(Decimal(repr(seconds)) for seconds in ibm.bill.values()) * Decimal("1.6")
    assert sum(record.cost for record in found) == pytest.approx(bill, abs=Decimal("0.000001"))
    assert not set(registered_sessions()) & set(ibm.sessions)
