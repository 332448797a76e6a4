# SPDX-License-Identifier: Apache-2.0
"""A Dag run that was deleted, and created again with the same id, runs its jobs itself."""

from __future__ import annotations

import pytest
from airflow.sdk import timezone

from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from testing.airflow_runs import Run, fails_once, serialize
from testing.dag_tasks import AT_ONCE, run_jobs, sampler_job, submit
from testing.fake_ibm import Fault, Outcome
from testing.jobs_seen import statuses

pytestmark = pytest.mark.usefixtures("connection", "airflow_db", "quick", "short_jobs")

HOUR = 3600
makes = pytest.mark.parametrize("make", [run_jobs, submit], ids=["run-jobs", "submit"])


def one_job(make):
    return make(retries=1, **AT_ONCE, **({"jobs": [sampler_job()]} if make is run_jobs else {}))


def id_of(result):
    found = result.xcom("run")
    return found[0]["id"] if isinstance(found, list) else found["id"]


@pytest.fixture
def recreate(ibm, dag):
    """Return what runs the Dag, in a run that is deleted if there is one, and that was some hours ago."""

    def run():
        date = timezone.datetime(2026, 1, 1)
        result = Run(dag.test(logical_date=date, run_after=date))
        for job in ibm.jobs.values():
            job.created -= 3 * HOUR
        return result

    return run


@makes
@pytest.mark.parametrize("status", ["Completed", "Failed"])
def test_a_retry_does_not_take_the_old_job_for_its_own(ibm, dag, recreate, monkeypatch, make, status):
    ibm.next_jobs([Outcome(status=status)])
    one_job(make)
    serialize(dag)
    first = recreate()
    fails_once(monkeypatch, IBMQuantumHook, "submit_job_once")
    second = recreate()
    assert second.dag_run.run_id == first.dag_run.run_id
    assert second.state_of("run") == "success"
    assert statuses(ibm) == [status, "Completed"]
    assert id_of(second) == list(ibm.jobs)[1]


@makes
def test_a_submission_without_a_response_is_not_taken_for_the_old_one(ibm, dag, recreate, make):
    one_job(make)
    serialize(dag)
    recreate()
    ibm.script(Fault("POST", "/v1/jobs", phase="after", status=504))
    second = recreate()
    assert statuses(ibm) == ["Completed", "Completed"]
    assert id_of(second) == list(ibm.jobs)[1]
