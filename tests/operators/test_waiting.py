# SPDX-License-Identifier: Apache-2.0
"""An error on the triggerer's host is no verdict on the jobs: the worker polls itself."""

from __future__ import annotations

import pytest

from testing.dag_tasks import run_jobs
from testing.fake_ibm import Fault

pytestmark = pytest.mark.usefixtures("connection", "quick")


@pytest.fixture
def triggerer(monkeypatch):
    """Let the first triggers report an error of their host: ``triggerer(times, retryable=...)``."""
    from airflow.sdk.definitions import dag as in_line
    from airflow.triggers.base import TriggerEvent

    original, reported = in_line._run_inline_trigger, []

    def arrange(times, *, retryable):
        def run_in_line(trigger, ti):
            if len(reported) == times:
                return original(trigger, ti)
            event = {"status": "error", "message": "There is no connection here", "retryable": retryable}
            reported.append(trigger)
            return TriggerEvent(trigger.payload(event))

        monkeypatch.setattr(in_line, "_run_inline_trigger", run_in_line)
        return reported

    return arrange


@pytest.mark.parametrize(("times", "retryable"), [(1, True), (99, False)], ids=["triggerer", "worker"])
def test_the_jobs_are_waited_for_again(ibm, dag, run, triggerer, when, times, retryable):
    """In the triggerer where the error may pass, else in the worker."""
    ibm.settings.job_seconds = 100
    reported = triggerer(times, retryable=retryable)
    polls = []

    def is_waiting():
        polls.extend([len(ibm.requests("GET", "/v1/jobs"))] if reported and not polls else [])
        return polls and len(ibm.requests("GET", "/v1/jobs")) > polls[0] + 2

    when(is_waiting, lambda: ibm.clock.advance(1000))
    run_jobs(deferrable=True)
    result = run(dag)
    assert result.state == "success"
    assert len(reported) == 1
    assert ibm.state()["jobs"] == {"Completed": 3}
    assert ibm.requests("POST", "/v1/jobs/*/cancel") == []


@pytest.mark.parametrize("retryable", [True, False])
def test_what_the_worker_may_not_poll_either_ends_the_waiting(
    ibm, dag, run, triggerer, monkeypatch, output, retryable
):
    from airflow_provider_ibm_sessions.operators.base import WaitingOperator

    ibm.settings.job_seconds = 600
    triggerer(99, retryable=retryable)
    settle = WaitingOperator.settle_event

    def revoked(self, event):
        ibm.script(Fault("GET", "/v1/jobs*", status=403, times=None))
        return settle(self, event)

    monkeypatch.setattr(WaitingOperator, "settle_event", revoked)
    run_jobs(deferrable=True)
    assert run(dag).state == "failed"
    assert ibm.state()["accepting"] == []
    assert output().count("Polling from this worker") >= 1
