# SPDX-License-Identifier: Apache-2.0
"""Jobs that have failed run again, and no others: in the same try by ``job_retries``, or after a clear."""

from __future__ import annotations

import pytest

from airflow_provider_ibm_sessions.cli.metastore import records_of_run
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator
from testing.airflow_runs import cleared, fails_once, next_try
from testing.dag_tasks import AT_ONCE, both_ways, dies, run_jobs, sampler_job
from testing.fake_ibm import Fault, Outcome
from testing.jobs_seen import posts, statuses, widths

pytestmark = pytest.mark.usefixtures("connection", "quick", "short_jobs")

IBM_FAILED = Outcome.failed(9999, seconds=0.1)
USER_FAILED = Outcome.failed(1517, seconds=0.1)


def states(ibm):
    return [session.state for session in ibm.sessions.values()]


def tries(result):
    return result.tasks["run"].try_number


def ids(result):
    return [report["id"] for report in result.xcom("run")]


def attempts(result):
    return [report["attempts"] for report in result.xcom("run")]


def own_tags(ibm):
    """Return the index and the number in each job's own tag, in the order of submission."""
    return [job.tags[-1].split("-", 2)[2] for job in ibm.jobs.values()]


class TestJobRetries:
    @both_ways
    def test_the_same_try_runs_what_has_failed_again_in_another_session(self, ibm, dag, run, deferrable):
        ibm.next_jobs([Outcome(), IBM_FAILED, Outcome()])
        run_jobs(job_retries=1, deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 1
        one, _, three, again = ibm.jobs
        assert ids(result) == [one, again, three]
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert attempts(result) == [1, 2, 1]
        assert own_tags(ibm) == ["0", "1", "2", "1-1"]
        assert states(ibm) == ["closed", "closed"]
        assert [job.session_id for job in ibm.jobs.values()] == [
            *[next(iter(ibm.sessions))] * 3,
            [*ibm.sessions][1],
        ]
        assert all(job.results_read == 1 for job in ibm.jobs.values() if job.status == "Completed")

    @both_ways
    def test_each_job_has_as_many_retries(self, ibm, dag, run, deferrable):
        ibm.next_jobs([IBM_FAILED, Outcome(), IBM_FAILED, IBM_FAILED, Outcome(), IBM_FAILED])
        run_jobs(job_retries=2, deferrable=deferrable)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 1
        assert own_tags(ibm) == ["0", "1", "2", "0-1", "2-1", "0-2"]
        assert attempts(result) == [3, 1, 2]
        assert widths(result.xcom("run")) == [None, 2, 3]
        assert states(ibm) == ["closed"] * 3

    def test_by_default_nothing_is_run_again(self, ibm, dag, run):
        ibm.next_jobs([IBM_FAILED])
        run_jobs()
        result = run(dag)
        assert result.state == "failed"
        assert attempts(result) == [1, 1, 1]
        assert len(posts(ibm)) == 3

    def test_other_reasons_are_not_retried(self, ibm, dag, run):
        ibm.next_jobs([USER_FAILED, IBM_FAILED, Outcome()])
        run_jobs(job_retries=5)
        result = run(dag)
        assert result.state == "failed"
        assert own_tags(ibm) == ["0", "1", "2", "1-1"]
        assert "1517" in str(result.xcom("run")[0]["reason_code"])

    @pytest.mark.parametrize("code", [1517, "1517"], ids=["int", "string"])
    def test_other_reasons_can_be_chosen(self, ibm, dag, run, code):
        ibm.next_jobs([USER_FAILED, IBM_FAILED])
        run_jobs(job_retries=1, retry_on=[code], on_job_failure="collect")
        result = run(dag)
        assert result.state == "success"
        assert own_tags(ibm) == ["0", "1", "2", "0-1"]
        assert attempts(result) == [2, 1, 1]

    def test_jobs_that_somebody_cancelled_or_ibm_refused_are_left_alone(self, ibm, dag, run):
        ibm.next_jobs([Outcome(status="Cancelled"), IBM_FAILED])
        ibm.script(Fault("POST", "/v1/jobs", skip=2, status=400, message="bad circuit"))
        run_jobs(job_retries=1, on_job_failure="collect")
        result = run(dag)
        assert result.state == "success"
        assert own_tags(ibm) == ["0", "1", "1-1"]
        assert widths(result.xcom("run")) == [None, 2, None]
        assert result.xcom("run")[2]["state"] == "Refused"
        assert len(posts(ibm)) == 4

    def test_one_whose_session_closed_before_it_ran_has_no_more_retries_than_others(self, ibm, dag, run):
        ibm.next_jobs([Outcome.failed(1217)] * 9)
        run_jobs(jobs=[sampler_job()], job_retries=2, retry_on=[1217], on_job_failure="collect")
        result = run(dag)
        assert len(posts(ibm)) == 3
        assert attempts(result) == [3]

    @both_ways
    def test_private_results_are_read_once(self, ibm, dag, run, deferrable):
        ibm.next_jobs([Outcome(), IBM_FAILED])
        jobs = [sampler_job(1, private=True), sampler_job(2, private=True)]
        run_jobs(jobs=jobs, job_retries=1, deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        assert widths(result.xcom("run")) == [1, 2]
        assert [job.results_read for job in ibm.jobs.values()] == [1, 0, 1]

    @both_ways
    def test_usage_is_that_of_all_sessions_and_each_has_a_record(self, ibm, dag, run, deferrable, output):
        ibm.next_jobs([Outcome(seconds=0.3), USER_FAILED])
        run_jobs(
            jobs=[sampler_job()] * 2, mode="batch", job_retries=1, retry_on=[1517], deferrable=deferrable
        )
        result = run(dag)
        assert result.state == "success"
        records = {
            record.session_id: record.billed for record in records_of_run(dag.dag_id, result.dag_run.run_id)
        }
        assert records == ibm.bill
        usage = result.xcom("run", "usage")
        assert usage["billed_seconds"] == pytest.approx(sum(ibm.bill.values()))
        assert usage["qpu_seconds"] == pytest.approx(sum(ibm.bill.values()))
        assert usage["settled"] is True
        assert "All 2 sessions of this task" in output()

    @both_ways
    def test_while_airflow_keeps_no_task_state(self, ibm, dag, run, without_task_state, deferrable):
        ibm.next_jobs([Outcome(), IBM_FAILED, Outcome(), IBM_FAILED, IBM_FAILED])
        run_jobs(job_retries=2, deferrable=deferrable)
        result = run(dag)
        assert result.state == "failed"
        assert own_tags(ibm) == ["0", "1", "2", "1-1", "1-2"]
        assert attempts(result) == [1, 3, 1]
        assert states(ibm) == ["closed"] * 3
        assert result.xcom("run", "usage")["billed_seconds"] == pytest.approx(sum(ibm.bill.values()))

    def test_input_that_renders_differently_after_the_deferral_is_not_run_again(
        self, ibm, dag, run, monkeypatch, output
    ):
        ibm.next_jobs([Outcome.failed(9999, seconds=600)])
        defer = IBMQuantumRunJobsOperator.defer
        execute_complete = IBMQuantumRunJobsOperator.execute_complete

        def defer_until_it_has_failed(self, **kwargs):
            ibm.clock.advance(700)
            defer(self, **kwargs)

        def execute_complete_otherwise(self, context, event=None):
            self.jobs = [sampler_job(tags=["as of now"])]
            return execute_complete(self, context, event)

        monkeypatch.setattr(IBMQuantumRunJobsOperator, "defer", defer_until_it_has_failed)
        monkeypatch.setattr(IBMQuantumRunJobsOperator, "execute_complete", execute_complete_otherwise)
        run_jobs(jobs=[sampler_job()], job_retries=1, deferrable=True, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 1
        assert len(posts(ibm)) == 1
        assert "must render the same each time" in output()
        assert attempts(result) == [1]

    def test_if_another_session_is_refused_the_reports_are_kept(self, ibm, dag, run, monkeypatch, output):
        ibm.next_jobs([Outcome(), IBM_FAILED])
        ibm.script(Fault("POST", "/v1/sessions", skip=1, status=403, times=None))
        run_jobs(job_retries=1, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 1
        assert widths(result.xcom("run")) == [1, None, 3]
        assert "Jobs that have failed are not submitted again" in output()
        ibm.clear_faults()
        again = cleared(result, dag, "run")
        assert again.state_of("run") == "success"
        assert attempts(again) == [1, 2, 1]
        assert len(ibm.jobs) == 4

    def test_what_fails_before_the_second_session_is_left_to_a_retry(self, ibm, dag, run, monkeypatch):
        ibm.next_jobs([Outcome(), IBM_FAILED])
        fails_once(monkeypatch, TaskState, "retry_jobs")
        run_jobs(job_retries=1, retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 2
        assert own_tags(ibm) == ["0", "1", "2", "1-1"]

    @both_ways
    def test_the_timeout_holds_for_all_attempts_together(self, ibm, dag, run, deferrable):
        ibm.next_jobs([IBM_FAILED, Outcome(), Outcome(), Outcome(seconds=600)])
        run_jobs(job_retries=1, timeout=5, deferrable=deferrable, retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 1
        assert statuses(ibm) == ["Failed", "Completed", "Completed", "Cancelled"]
        assert widths(result.xcom("run")) == [None, 2, 3]
        assert states(ibm) == ["closed", "closed"]


class TestKills:
    """The worker dies between the first results and the end of the second session."""

    POINTS = (
        (IBMQuantumHook, "ensure_session_closed", 1, False),
        (TaskState, "retry_jobs", 1, False),
        (TaskState, "save_pending_create", 2, False),
        (IBMQuantumHook, "create_pending_session", 2, False),
        (TaskState, "save_session", 2, False),
        (IBMQuantumHook, "submit_job_once", 4, True),
        (IBMQuantumHook, "submit_job_once", 4, False),
        (IBMQuantumHook, "submit_job_once", 5, False),
        (IBMQuantumHook, "update_session", 2, False),
        (IBMQuantumHook, "ensure_session_closed", 2, False),
        (TaskState, "mark_finished", 1, True),
    )
    """Class, method, the call at which the worker dies, and True if it dies before the call."""

    @pytest.mark.parametrize(
        ("point", "deferrable"),
        [*((point, False) for point in POINTS), *((point, True) for point in POINTS[2:9:2])],
        ids=lambda value: value if isinstance(value, bool) else f"{value[1]} {value[2]} {value[3]}",
    )
    def test_the_next_try_goes_on(self, ibm, dag, run, monkeypatch, point, deferrable):
        owner, name, at, before = point
        ibm.next_jobs([IBM_FAILED, Outcome(), IBM_FAILED])
        dies(monkeypatch, owner, name, at=at, before=before)
        run_jobs(job_retries=1, deferrable=deferrable, retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 2
        assert sorted(own_tags(ibm)) == ["0", "0-1", "1", "2", "2-1"]
        assert attempts(result) == [2, 1, 2]
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert ibm.state()["accepting"] == []
        assert result.xcom("run", "usage")["billed_seconds"] == pytest.approx(sum(ibm.bill.values()))

    def test_a_worker_that_is_shut_down_ends_the_second_session_only(self, ibm, dag, run, terminate):
        ibm.next_jobs([IBM_FAILED, Outcome(), Outcome(), Outcome(seconds=600)])
        run_jobs(job_retries=1, deferrable=False, retries=1, **AT_ONCE)
        terminate(lambda: len(posts(ibm)) == 4)
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 2
        assert statuses(ibm) == ["Failed", "Completed", "Completed", "Cancelled", "Completed"]
        assert ibm.requests("POST", "/v1/jobs/*/cancel") == ibm.requests(
            "POST", f"/v1/jobs/{[*ibm.jobs][3]}/cancel"
        )
        assert attempts(result) == [2, 1, 1]
        assert ibm.state()["accepting"] == []


class TestClear:
    def test_repair_runs_what_has_failed_again_with_new_retries(self, ibm, dag, run):
        ibm.next_jobs([IBM_FAILED, Outcome(), Outcome(), IBM_FAILED])
        run_jobs(job_retries=1)
        first = run(dag)
        assert first.state == "failed"
        ibm.next_jobs([IBM_FAILED])
        second = cleared(first, dag, "run")
        assert second.state_of("run") == "success"
        assert own_tags(ibm) == ["0", "1", "2", "0-1", "0-2", "0-3"]
        assert attempts(second) == [4, 1, 1]
        third = cleared(second, dag, "run")
        assert third.xcom("run") == second.xcom("run")
        assert len(posts(ibm)) == 6
        usage = third.xcom("run", "usage")
        assert usage["billed_seconds"] == pytest.approx(sum(ibm.bill.values()))

    def test_repair_runs_all_again_if_the_input_has_changed(self, ibm, dag, run):
        operator = run_jobs(on_clear="repair")
        first = run(dag)
        operator.jobs = [sampler_job(5)]
        again = cleared(first, dag, "run")
        assert widths(again.xcom("run")) == [5]
        assert attempts(again) == [1]

    @both_ways
    def test_rerun_runs_all_again_once_for_each_clear(self, ibm, dag, run, deferrable):
        ibm.next_jobs([Outcome(), USER_FAILED])
        run_jobs(on_clear="rerun", deferrable=deferrable)
        first = run(dag)
        assert first.state == "failed"
        second = cleared(first, dag, "run")
        assert second.state_of("run") == "success"
        assert ids(second) == list(ibm.jobs)[3:]
        third = cleared(second, dag, "run")
        assert ids(third) == list(ibm.jobs)[6:]
        assert len(posts(ibm)) == 9
        assert len({job.tags[-1] for job in ibm.jobs.values()}) == 9
        assert states(ibm) == ["closed"] * 3

    def test_rerun_resumes_in_a_retry(self, ibm, dag, run, monkeypatch):
        run_jobs(on_clear="rerun", retries=1, **AT_ONCE)
        first = run(dag)
        assert tries(first) == 1
        dies(monkeypatch, IBMQuantumHook, "submit_job_once", at=2, before=False)
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "up_for_retry"
        assert next_try(again, dag, "run").state_of("run") == "success"
        assert len(posts(ibm)) == 6
        assert statuses(ibm) == ["Completed"] * 6


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [
        ({"on_clear": "nothing"}, "on_clear must be one of repair, rerun"),
        ({"job_retries": -1}, "job_retries must be a whole number from 0"),
        ({"retry_on": ["soon"]}, "retry_on must have codes from 1000 to 9999"),
        ({"retry_on": 9999}, "retry_on must be a list of IBM's reason codes"),
        ({"retry_on": []}, "retry_on must be a list of IBM's reason codes"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_when_the_dag_is_parsed(wrong, allowed):
    with pytest.raises(ConfigurationError, match=allowed):
        IBMQuantumRunJobsOperator(task_id="run", backend="ibm_fez", jobs=[sampler_job()], **wrong)
