# SPDX-License-Identifier: Apache-2.0
"""Many jobs in one task: several submissions at once, each exactly once; a trigger that MySQL can keep."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from airflow.models.trigger import Trigger

from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.operators._submissions import Submission, from_resume_data, to_resume_data
from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger
from testing.airflow_runs import cleared, fails_once, next_try
from testing.dag_tasks import AT_ONCE, both_ways, dies, run_jobs
from testing.dag_tasks import sampler_job as job
from testing.fake_ibm import Fault
from testing.jobs_seen import only, posts, statuses, widths
from testing.session_requests import is_open

pytestmark = pytest.mark.usefixtures("connection", "quick", "short_jobs")

MANY = 40


def many_jobs(count=MANY):
    """Jobs that are told apart by the width of their register."""
    return [job(width) for width in range(1, count + 1)]


def in_flight(monkeypatch):
    """How many submissions were under way whenever one started."""
    now, seen, submit = set(), [], IBMQuantumHook.submit_job_once

    def note(self, tag, **fields):
        now.add(tag)
        seen.append(len(now))
        try:
            return submit(self, tag, **fields)
        finally:
            now.discard(tag)

    monkeypatch.setattr(IBMQuantumHook, "submit_job_once", note)
    return seen


class TestSubmission:
    @both_ways
    def test_eight_are_submitted_at_once_and_reported_in_their_order(
        self, ibm, dag, run, monkeypatch, deferrable
    ):
        seen = in_flight(monkeypatch)
        # One that waits lets those behind it overtake.
        ibm.script(*(Fault("POST", "/v1/jobs", skip=number, delay=0.3) for number in (2, 9, 16, 23)))
        run_jobs(jobs=many_jobs(), deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        assert widths(result.xcom("run")) == list(range(1, MANY + 1))
        assert len(posts(ibm)) == len(ibm.jobs) == MANY
        assert only(ibm.sessions).state == "closed"
        assert 1 < max(seen) <= 8
        assert seen[0] == 1, "the first goes alone"

    def test_few_are_submitted_one_by_one_in_their_order(self, ibm, dag, run, monkeypatch):
        seen = in_flight(monkeypatch)
        ibm.script(*(Fault("POST", "/v1/jobs", skip=number, delay=0.1) for number in (2, 5)))
        run_jobs(jobs=many_jobs(16))
        result = run(dag)
        assert [report["id"] for report in result.xcom("run")] == list(ibm.jobs)
        assert set(seen) == {1}

    @pytest.mark.parametrize("phase", ["before", "after"])
    def test_lost_responses_submit_nothing_twice(self, ibm, dag, run, phase):
        ibm.script(
            *(Fault("POST", "/v1/jobs", skip=number, drop=True, phase=phase) for number in range(0, 30, 3))
        )
        run_jobs(jobs=many_jobs())
        result = run(dag)
        assert result.state == "success"
        assert widths(result.xcom("run")) == list(range(1, MANY + 1))
        assert ibm.state()["duplicates"] == []
        assert len({tuple(each.tags) for each in ibm.jobs.values()}) == len(ibm.jobs) == MANY

    def test_what_is_wrong_with_one_stops_the_rest(self, ibm, dag, run):
        ibm.script(Fault("POST", "/v1/jobs", skip=10, status=423, times=None))
        run_jobs(jobs=many_jobs(100))
        result = run(dag)
        assert result.state == "failed"
        assert len(ibm.jobs) == 10
        assert len(posts(ibm)) < 40, "each of those in flight, and few more"
        assert not is_open(ibm, only(ibm.sessions).id)

    def test_a_job_that_is_refused_takes_no_other_with_it(self, ibm, dag, run):
        ibm.script(*(Fault("POST", "/v1/jobs", skip=number, status=400) for number in (0, 11, 20)))
        run_jobs(jobs=many_jobs(), on_job_failure="collect")
        reports = run(dag).xcom("run")
        refused = [index for index, report in enumerate(reports) if report["state"] == "Refused"]
        assert len(refused) == 3
        assert [width for width in widths(reports) if width] == [
            width for width in range(1, MANY + 1) if width - 1 not in refused
        ]

    def test_a_kill_in_the_middle_leaves_nothing_running(self, ibm, dag, run, terminate):
        ibm.settings.job_seconds = 600
        ibm.script(Fault("POST", "/v1/jobs", skip=12, delay=3, times=None))
        run_jobs(jobs=many_jobs(100), timeout=60)
        terminate(lambda: len(posts(ibm)) >= 18)
        assert run(dag).state == "failed"
        assert only(ibm.sessions).state == "closed"
        assert len(posts(ibm)) < 100
        wait_until_calm(ibm)
        # IBM lets those fail that were in its queue, and not known by id yet.
        assert set(statuses(ibm)) <= {"Cancelled", "Failed"}

    def test_a_timeout_in_the_middle_leaves_nothing_running(self, ibm, dag, run, time_out):
        ibm.settings.job_seconds = 600
        ibm.script(Fault("POST", "/v1/jobs", skip=12, delay=0.5, times=None))
        run_jobs(jobs=many_jobs(100), execution_timeout=timedelta(minutes=10))
        time_out(lambda: len(posts(ibm)) >= 18)
        assert run(dag).state == "failed"
        assert only(ibm.sessions).state == "closed"
        wait_until_calm(ibm)
        # IBM lets those fail that were in its queue, and not known by id yet.
        assert set(statuses(ibm)) <= {"Cancelled", "Failed"}


def wait_until_calm(ibm):
    """Wait until no submission is under way any more."""
    while any(thread.name.startswith("ibm-quantum-submit") for thread in threading.enumerate()):
        time.sleep(0.05)


class TestRetry:
    def test_finds_its_jobs_by_one_list(self, ibm, dag, run, monkeypatch):
        """A worker vanishes while it submits. What was in flight then is found as well."""
        run_jobs(jobs=many_jobs())
        with monkeypatch.context() as dying:
            dies(dying, IBMQuantumHook, "submit_job_once", at=20)
            first = run(dag)
        assert first.state == "failed"
        submitted = len(ibm.jobs)
        assert 15 < submitted < MANY
        before = len(ibm.requests("GET", "/v1/jobs"))
        second = next_try(first, dag, "run")
        assert second.state_of("run") == "success"
        assert widths(second.xcom("run")) == list(range(1, MANY + 1))
        assert len(ibm.jobs) == MANY
        looked = ibm.requests("GET", "/v1/jobs")[before:]
        by_tag = [entry for entry in looked if entry.query.get("tags")]
        assert len(by_tag) == MANY - submitted, "once for each that it submits itself"

    def test_that_lacks_nothing_asks_no_more_than_for_few(self, ibm, dag, run, monkeypatch):
        fails_once(monkeypatch, TaskState, "mark_finished")
        run_jobs(jobs=many_jobs(), **AT_ONCE, retries=1)
        result = run(dag)
        assert result.state == "success"
        assert len(ibm.jobs) == MANY
        assert not [entry for entry in ibm.requests("GET", "/v1/jobs") if entry.query.get("tags")]

    def test_without_a_record_the_jobs_are_found_by_their_tags(self, ibm, dag, run, monkeypatch):
        """Airflow has removed the record, and with it the ids of the sessions."""
        from airflow.models.task_state_store import TaskStateStoreModel
        from airflow.utils.session import create_session
        from sqlalchemy import delete

        fails_once(monkeypatch, TaskState, "mark_finished")
        run_jobs(jobs=many_jobs(20))
        first = run(dag)
        assert first.state == "failed"
        with create_session() as session:
            session.execute(delete(TaskStateStoreModel))
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "success"
        assert len(ibm.jobs) == 20


class TestTriggerRow:
    LIMIT = 60_000

    def row(self, submissions, awaited, sessions=("s" * 36,)):
        """The trigger as it stands in the database, encrypted."""
        trigger = IBMQuantumJobTrigger(
            job_ids=awaited,
            session_id=sessions[0],
            cancel_on_kill=True,
            owns_session=True,
            settle_seconds=900.0,
            resume_data=to_resume_data(submissions, awaited, sessions),
            end_time=time.time(),
            poll_interval=10,
            ibm_quantum_conn_id="ibm_quantum_default",
        )
        return Trigger.encrypt_kwargs(trigger.serialize()[1])

    def ids(self, count=1000):
        return [f"d859{number:016x}" for number in range(count)]

    @pytest.mark.parametrize(
        "fields", [{}, {"private": True}, {"attempts": 3}, {"private": True, "attempts": 9}]
    )
    def test_a_thousand_jobs_fit_into_mysqls_64_kb(self, fields):
        submissions = [Submission(job_id, **fields) for job_id in self.ids()]
        assert len(self.row(submissions, self.ids())) < self.LIMIT

    def test_with_many_that_were_refused_or_are_final_they_fit_as_well(self):
        ids = self.ids()
        refused = [Submission(None, error="x" * 400) for _ in range(400)]
        final = [Submission(job_id, is_awaited=False) for job_id in ids[:300]]
        awaited = [Submission(job_id) for job_id in ids[300:600]]
        assert len(self.row([*refused, *final, *awaited], ids[300:600])) < self.LIMIT

    def test_what_a_task_wants_back_it_gets(self):
        submissions = [
            Submission("a"),
            Submission(None, error="no circuit"),
            Submission("b", private=True, attempts=2),
            Submission("c", is_awaited=False),
            Submission("d", private=True),
        ]
        awaited = ["a", "b", "d"]
        data = to_resume_data(submissions, awaited, ["s", "t"])
        assert from_resume_data(data, awaited) == submissions
        assert data["session_ids"] == ["s", "t"]


class TestRetention:
    def kept(self, dag):
        """When the record of the task expires."""
        from airflow.models.task_state_store import TaskStateStoreModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            rows = select(TaskStateStoreModel).where(
                TaskStateStoreModel.dag_id == dag.dag_id, TaskStateStoreModel.key == "ibm_quantum_task_state"
            )
            return session.scalars(rows).one().expires_at

    def test_the_record_of_a_task_that_has_delivered_expires(self, ibm, dag, run):
        run_jobs()
        assert run(dag).state == "success"
        assert 399 < (self.kept(dag).timestamp() - time.time()) / 86400 <= 400

    def test_that_of_one_that_has_not_does_not(self, ibm, dag, run, monkeypatch):
        fails_once(monkeypatch, TaskState, "mark_finished")
        run_jobs()
        assert run(dag).state == "failed"
        assert self.kept(dag) is None

    def test_it_may_be_kept_as_long_as_the_run(self, ibm, dag, run, monkeypatch):
        monkeypatch.setenv("AIRFLOW__IBM_QUANTUM__RECORD_RETENTION_DAYS", "0")
        run_jobs()
        assert run(dag).state == "success"
        assert self.kept(dag) is None
