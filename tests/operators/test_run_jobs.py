# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from datetime import timedelta

import pytest
from airflow.sdk import DAG
from airflow.sdk.module_loading import import_string

from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator
from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger
from testing.airflow_runs import cleared, fails_once, failures_of, with_rendered
from testing.connections import connection_to
from testing.dag_tasks import AT_ONCE, both_ways, run_jobs, submit, three_jobs
from testing.dag_tasks import sampler_job as job
from testing.fake_ibm import Fault, Outcome
from testing.jobs_seen import only, posts, statuses, widths
from testing.retry_policies import single_attempt
from testing.session_requests import assert_asked, submit_job

pytestmark = pytest.mark.usefixtures("connection", "short_jobs")


class TestWholeExperiment:
    @both_ways
    @pytest.mark.parametrize("mode", ["dedicated", "batch"])
    def test_three_jobs(self, ibm, dag, run, output, mode, deferrable):
        run_jobs(mode=mode, deferrable=deferrable, max_ttl="2h 30m")
        result = run(dag)
        assert result.state == "success"
        session = only(ibm.sessions)
        assert (session.mode, session.state) == (mode, "closed")
        assert_asked(ibm, 9000)
        reports = result.xcom("run")
        assert [report["id"] for report in reports] == list(ibm.jobs) == session.jobs
        assert {report["state"] for report in reports} == {"Completed"}
        assert widths(reports) == [1, 2, 3]
        assert all("usage" in report for report in reports)
        assert result.xcom("run", "session")["state"] == "closed"
        assert result.xcom("run", "session")["id"] == session.id
        assert session.id in result.xcom("run", "_link_IBMQuantumSessionLink")
        assert ibm.state()["accepting"] == []
        assert session.state_reason == "session_closed_early", "it has closed itself"
        assert ibm.requests("DELETE") == []
        assert f"Session {session.id} is closed" in output()

    @both_ways
    def test_drained_before_the_waiting(self, ibm, dag, run, when, deferrable):
        ibm.settings.job_seconds = 600
        when(lambda: ibm.requests("PATCH") and ibm.requests("GET"), lambda: ibm.clock.advance(700))
        run_jobs(deferrable=deferrable)
        assert run(dag).state == "success"
        assert [entry.operation for entry in ibm.journal[:6]] == [
            "token",
            "create_session",
            "create_job",
            "create_job",
            "create_job",
            "update_session",
        ]
        [drain] = ibm.requests("PATCH")
        assert drain.json == {"accepting_jobs": False}
        session = only(ibm.sessions)
        assert session.closed_at == max(job.finished for job in ibm.jobs.values()), "no idle second"

    @both_ways
    def test_tells_how_far_it_is(self, ibm, dag, run, output, when, deferrable):
        ibm.next_jobs([Outcome(seconds=0.1), Outcome(seconds=0.1), Outcome(seconds=600)])

        def seen_twice():
            """IBM has been asked twice since two jobs were done."""
            done = [job.finished for job in ibm.jobs.values() if job.status == "Completed"]
            polls = [entry for entry in ibm.requests("GET", "/v1/jobs") if done and entry.time > max(done)]
            return len(done) == 2 and len(polls) >= 3

        when(seen_twice, lambda: ibm.clock.advance(700))
        run_jobs(deferrable=deferrable)
        assert run(dag).state == "success"
        used = r"session active, active \d+s, at most [hms0-9 ]+ left"
        assert re.search(f"2 of 3 jobs completed, 1 running, {used}", output())
        assert output().count("2 of 3 jobs completed") <= 2, "once, on each of the two ways to the log"

    def test_polls_do_not_grow_with_the_jobs(self, ibm, dag, run):
        run_jobs(jobs=[job(n) for n in range(1, 9)])
        ibm.next_jobs([Outcome(seconds=1)] * 8)
        assert run(dag).state == "success"
        sent = Counter(entry.operation for entry in ibm.journal)
        assert sent["get_job_results"] == 8
        assert sent["get_job"] <= sent["list_jobs"], "each poll asks for the list, and for one job at most"

    def test_templates_are_rendered_and_circuits_are_not(self, ibm, run):
        params = {"backend": "ibm_torino", "mode": "batch", "ttl": 700}
        with DAG("templated_jobs", schedule=None, params=params) as dag:
            circuit = "OPENQASM 3.0; bit[3] meas; // {{1, 2}, {# no template #}}"
            run_jobs(
                backend="{{ params.backend }}",
                mode="{{ params.mode }}",
                max_ttl="{{ params.ttl }}",
                jobs=[
                    {"program_id": "sampler", "params": {"pubs": [[circuit]]}, "tags": ["{{ dag.dag_id }}"]}
                ],
            )
        result = run(dag)
        assert result.state == "success"
        session = only(ibm.sessions)
        assert (session.backend, session.mode) == ("ibm_torino", "batch")
        assert_asked(ibm, 700)
        assert widths(result.xcom("run")) == [3]
        assert only(ibm.jobs).tags[0] == "templated_jobs"

    def test_jobs_of_another_task(self, ibm, run):
        from airflow.sdk import task

        with DAG("jobs_from_xcom", schedule=None) as dag:

            @task
            def make():
                return three_jobs()

            run_jobs(jobs=make())
        assert widths(run(dag).xcom("run")) == [1, 2, 3]

    def test_mapped_over_modes(self, ibm, dag, run):
        IBMQuantumRunJobsOperator.partial(
            task_id="run", backend="ibm_fez", jobs=three_jobs(), poll_interval=0.1
        ).expand(mode=["dedicated", "batch"])
        result = run(dag)
        assert result.state == "success"
        assert [widths(reports) for reports in result.xcom_of_each("run")] == [[1, 2, 3]] * 2
        assert len({tag for job in ibm.jobs.values() for tag in job.tags}) == 6
        assert len(ibm.sessions) == 2

    def test_max_ttl_follows_the_dags_timeout(self, ibm, run):
        with DAG("max_ttl_of_jobs", schedule=None, dagrun_timeout=timedelta(hours=2)) as dag:
            run_jobs()
        run(dag)
        assert_asked(ibm, 7200)

    def test_other_sessions_are_left_alone(self, ibm, dag, run):
        mine = ibm.add_session(age=1)
        submit_job(ibm, mine.id)
        run_jobs()
        assert run(dag).state == "success"
        assert ibm.state()["accepting"] == [mine.id]

    @both_ways
    def test_large_results_go_to_files(self, ibm, dag, run, tmp_path, deferrable):
        run_jobs(results_threshold=100, results_path=f"file://{tmp_path}/out", deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        for report in result.xcom("run"):
            assert "results" not in report
            [pub] = json.loads((tmp_path / "out" / f"{report['id']}.json").read_text())
            assert sum(pub["counts"]["meas"].values()) == 10


class TestJobsThatFail:
    OUTCOMES = (Outcome(), Outcome(status="Failed", reason="The circuit is odd", reason_code=1517), Outcome())

    @both_ways
    def test_fail(self, ibm, dag, run, output, deferrable):
        ibm.next_jobs(self.OUTCOMES)
        run_jobs(deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["run"].try_number == 1
        self.assert_reports(ibm, result)
        assert "The circuit is odd" in output()
        assert "1517" in output()

    @both_ways
    def test_collect(self, ibm, dag, run, deferrable):
        ibm.next_jobs(self.OUTCOMES)
        run_jobs(on_job_failure="collect", deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        self.assert_reports(ibm, result)

    @staticmethod
    def assert_reports(ibm, result):
        reports = result.xcom("run")
        assert widths(reports) == [1, None, 3]
        assert ["error" in report for report in reports] == [False, True, False]
        assert "The circuit is odd" in reports[1]["error"]
        assert len(posts(ibm)) == 3
        assert ibm.state()["accepting"] == []

    @both_ways
    @pytest.mark.parametrize("on_job_failure", ["fail", "collect"])
    def test_a_job_that_ibm_refuses(self, ibm, dag, run, deferrable, on_job_failure):
        jobs = [job(1), {"program_id": "nosuch", "params": {}}, job(3)]
        run_jobs(jobs=jobs, on_job_failure=on_job_failure, deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == ("failed" if on_job_failure == "fail" else "success")
        assert result.tasks["run"].try_number == 1
        reports = result.xcom("run")
        assert widths(reports) == [1, None, 3]
        assert reports[1]["id"] is None
        assert reports[1]["state"] == "Refused"
        assert "Program not found: nosuch" in reports[1]["error"]
        assert statuses(ibm) == ["Completed", "Completed"]
        assert ibm.state()["accepting"] == []

    @both_ways
    @pytest.mark.parametrize("on_job_failure", ["fail", "collect"])
    def test_all_are_refused(self, ibm, dag, run, deferrable, on_job_failure):
        run_jobs(
            jobs=[{"program_id": "nosuch", "params": {}}] * 2,
            on_job_failure=on_job_failure,
            deferrable=deferrable,
        )
        result = run(dag)
        assert result.state == ("failed" if on_job_failure == "fail" else "success")
        assert [report["state"] for report in result.xcom("run")] == ["Refused", "Refused"]
        assert only(ibm.sessions).state == "closed"
        assert ibm.state()["accepting"] == []

    def test_a_job_over_its_cost(self, ibm, dag, run, output):
        ibm.next_jobs([Outcome(), Outcome(seconds=60), Outcome()])
        run_jobs(jobs=[job(1), job(2, cost=1), job(3)], on_job_failure="collect")
        reports = run(dag).xcom("run")
        assert [report["state"] for report in reports] == [
            "Completed",
            "Cancelled - Ran too long",
            "Completed",
        ]
        assert "Cancelled - Ran too long" in reports[1]["error"]

    def test_private_jobs_results_survive_a_failure(self, ibm, dag, run, monkeypatch):
        fails_once(monkeypatch, TaskState, "mark_finished")
        run_jobs(jobs=[job(1, private=True), job(2), job(3, private=True)], retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["run"].try_number == 2
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert [job.results_read for job in ibm.jobs.values()] == [1, 2, 1]

    @both_ways
    def test_clearing_after_results_that_were_too_large_runs_nothing_again(
        self, ibm, dag, run, tmp_path, output, deferrable
    ):
        operator = run_jobs(results_threshold=100, deferrable=deferrable)
        first = run(dag)
        assert first.state == "failed"
        assert "clear the task, which does not run the job again" in output()
        operator.results_path = f"file://{tmp_path}/out"
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "success"
        assert len(posts(ibm)) == 3

    def test_clearing_after_a_failed_job_runs_that_job_again(self, ibm, dag, run):
        ibm.next_jobs(self.OUTCOMES)
        run_jobs()
        again = cleared(run(dag), dag, "run")
        assert again.state_of("run") == "success"
        assert len(posts(ibm)) == 4
        assert [session.state for session in ibm.sessions.values()] == ["closed", "closed"]
        assert widths(again.xcom("run")) == [1, 2, 3]


class TestBadInput:
    JOBS = (
        ([job(), job(cost=-1)], "jobs[1]: cost must be"),
        ([job(), job(cost=10801)], "jobs[1]: cost: "),
        ([job(), job(tags=list("abcdefgh"))], "jobs[1]: tags must be a list of at most 7"),
        ([job(), job(tags=["x" * 87])], "jobs[1]: tags[0] must be a string of 1 to 86"),
        ([job(), job(params={"pubs": []})], "jobs[1]: params: pubs must be a list"),
        ([job(), job(params=None)], "jobs[1]: params: "),
        ([job(), job(private="no")], "jobs[1]: private: "),
        ([job(), job(log_level="loud")], "jobs[1]: log_level: "),
        ([job(), job(program_id=None)], "jobs[1]: program_id: "),
        ([job(), job(backend="ibm_fez")], "jobs[1]: backend: unknown field; allowed are program_id"),
        ([job(), {**job(), "shots": 10}], "jobs[1]: shots: unknown field"),
        ([job(), "sampler"], "jobs[1] must be a mapping"),
        ([job(), None], "jobs[1] must be a mapping"),
        ([], "jobs must be a list of at least one job"),
        ("jobs", "jobs must be a list"),
        ({"program_id": "sampler"}, "jobs must be a list"),
    )
    FIELDS = (
        {"backend": ""},
        {"backend": None},
        {"mode": "interactive"},
        {"max_ttl": 0},
        {"max_ttl": "soon"},
        {"results_path": "nosuch://x"},
    )

    def test_it_fails_at_once_and_sends_nothing(self, ibm, dag, run):
        said = {}
        wrong = [({"jobs": jobs}, text) for jobs, text in self.JOBS]
        wrong += [(fields, next(iter(fields))) for fields in self.FIELDS]
        for number, (fields, text) in enumerate(wrong):
            said[f"run_{number}"] = text
            with_rendered(run_jobs(task_id=f"run_{number}", retries=2, **AT_ONCE), **fields)
        told = failures_of(dag, run)
        assert [text for name, text in said.items() if text not in told[name]] == []
        assert ibm.journal == []

    @pytest.mark.parametrize(
        "wrong",
        [{"on_job_failure": "x"}, {"timeout": 0}, {"poll_interval": "often"}, {"results_threshold": -1}],
        ids=str,
    )
    def test_what_needs_no_rendering_is_an_import_error(self, wrong):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            run_jobs(**wrong)

    def test_several_outputs_are_refused_before_jobs_are_paid_for(self):
        with pytest.raises(ValueError, match="multiple_outputs cannot be set: IBMQuantumRunJobsOperator"):
            run_jobs(multiple_outputs=True)
        assert submit(multiple_outputs=True).multiple_outputs, "its report is a dictionary"

    def test_a_plan_without_dedicated_sessions_is_told(self, ibm, dag, run, output):
        ibm.settings.plan = "open"
        run_jobs(retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["run"].try_number == 1
        assert "mode='batch'" in output()
        assert ibm.jobs == {}


class TestTrouble:
    @both_ways
    def test_the_timeout_ends_all(self, ibm, dag, run, output, deferrable):
        ibm.settings.lanes = 1
        ibm.next_jobs([Outcome(), Outcome(seconds=600), Outcome(seconds=600)])
        run_jobs(timeout=1, deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["run"].try_number == 1
        assert only(ibm.sessions).state == "closed"
        assert statuses(ibm) == ["Completed", "Cancelled", "Failed"]
        assert "not final in time" in output()
        reports = result.xcom("run")
        assert widths(reports) == [1, None, None]
        assert [report["state"] for report in reports] == ["Completed", "Cancelled", "Failed"]

    def test_its_own_timeout_ends_all(self, ibm, dag, run, time_out):
        ibm.settings.job_seconds = 600
        run_jobs(execution_timeout=timedelta(minutes=10))
        time_out(lambda: ibm.requests("GET", "/v1/jobs"))
        assert run(dag).state == "failed"
        assert only(ibm.sessions).state == "closed"
        assert statuses(ibm) == ["Cancelled"] * 3

    def test_its_own_timeout_while_jobs_are_being_submitted(self, ibm, dag, run, time_out):
        ibm.settings.job_seconds = 600
        ibm.script(Fault(method="POST", path="/v1/jobs", skip=1, delay=20, phase="after"))
        run_jobs(execution_timeout=timedelta(minutes=10))
        time_out(lambda: len(posts(ibm)) == 2)
        assert run(dag).state == "failed"
        assert only(ibm.sessions).state == "closed"
        assert statuses(ibm)[0] == "Cancelled"

    def test_a_retry_after_it_was_ended_runs_all(self, ibm, dag, run, time_out):
        ibm.next_jobs([Outcome(), Outcome(seconds=600), Outcome(seconds=600)])
        run_jobs(execution_timeout=timedelta(minutes=10), retries=1, **AT_ONCE)
        time_out(lambda: ibm.requests("GET", "/v1/jobs") and "Completed" in statuses(ibm))
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["run"].try_number == 2
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert statuses(ibm) == ["Completed", "Cancelled", "Cancelled", "Completed", "Completed"]
        assert ibm.state()["accepting"] == []

    def test_a_key_that_may_submit_no_more_closes_the_session(self, ibm, dag, run):
        ibm.settings.job_seconds = 600
        ibm.script(Fault(method="POST", path="/v1/jobs", skip=1, status=403, times=None))
        run_jobs(retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["run"].try_number == 1
        assert only(ibm.sessions).state == "closed"
        assert statuses(ibm) == ["Cancelled"]

    def test_a_key_that_is_revoked_says_what_is_left_open(self, ibm, dag, run, output):
        ibm.script(Fault(path="/v1/*", skip=2, status=401, times=None))
        run_jobs(retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["run"].try_number == 1
        assert f"Session {only(ibm.sessions).id} is still open. Close it at https://" in output()

    @both_ways
    def test_a_key_that_is_revoked_while_waiting(self, ibm, dag, run, deferrable):
        ibm.settings.job_seconds = 600
        ibm.script(Fault(method="GET", status=401, times=None))
        run_jobs(deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["run"].try_number == 1
        assert ibm.state()["accepting"] == []
        assert statuses(ibm) == ["Cancelled"] * 3

    @both_ways
    def test_a_drain_that_fails_does_not_keep_it_from_going_on(
        self, ibm, dag, run, monkeypatch, output, deferrable
    ):
        single_attempt(monkeypatch)
        ibm.script(Fault(method="PATCH", path="/v1/sessions/*", status=500, times=None))
        run_jobs(deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert result.xcom("run", "session")["state"] == "closed"
        assert only(ibm.sessions).state == "closed"
        assert "will be closed when its jobs are final" in output()

    def test_a_session_that_cannot_be_closed_is_loud(self, ibm, dag, run, monkeypatch, output):
        single_attempt(monkeypatch)
        monkeypatch.setattr("airflow_provider_ibm_sessions.client.closing._DELAY", 0.01)
        ibm.script(
            Fault(method="PATCH", path="/v1/sessions/*", status=500, times=None),
            Fault(method="DELETE", path="/v1/sessions/*", status=500, times=None),
        )
        run_jobs()
        result = run(dag)
        assert result.state == "failed"
        assert "is still not closed" in output()
        assert widths(result.xcom("run")) == [1, 2, 3], "the results are told all the same"

    @pytest.mark.parametrize("fault", [{"status": 504}, {"drop": True}], ids=str)
    def test_a_session_whose_reply_was_lost_runs_the_jobs(self, ibm, dag, run, quick, fault):
        ibm.script(Fault(method="POST", path="/v1/sessions", phase="after", **fault))
        run_jobs()
        assert run(dag).state == "success"
        assert (only(ibm.sessions).state, only(ibm.sessions).jobs) == ("closed", list(ibm.jobs))
        assert statuses(ibm) == ["Completed"] * 3

    def test_a_retry_brings_what_was_missing(self, ibm, dag, run, monkeypatch, output):
        """IBM takes one job and then none for a while: the task is retried, and the first job is not."""
        single_attempt(monkeypatch)
        ibm.script(Fault(method="POST", path="/v1/jobs", skip=1, status=503, times=5))
        run_jobs(retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["run"].try_number == 2
        assert statuses(ibm) == ["Completed"] * 3
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert ibm.state()["accepting"] == []
        assert "Earlier tries have submitted 1 of 3 jobs" in output()

    def test_the_last_attempt_ends_what_nobody_will_collect(self, ibm, dag, run, monkeypatch):
        single_attempt(monkeypatch)
        ibm.settings.job_seconds = 600
        ibm.script(Fault(method="POST", path="/v1/jobs", skip=1, status=503, times=None))
        run_jobs()
        assert run(dag).state == "failed"
        assert statuses(ibm) == ["Cancelled"]
        assert only(ibm.sessions).state == "closed"

    def test_jobs_that_max_ttl_cuts_off(self, ibm, dag, run, when):
        ibm.settings.lanes = 1
        ibm.next_jobs([Outcome(seconds=0.3), Outcome(queue_seconds=6000), Outcome(queue_seconds=6000)])
        run_jobs(on_job_failure="collect", max_ttl=1200)
        when(lambda: "Completed" in statuses(ibm), lambda: ibm.clock.advance(1300))
        result = run(dag)
        assert result.state == "success"
        reports = result.xcom("run")
        assert widths(reports) == [1, None, None]
        assert [report.get("reason_code") for report in reports] == [None, 1217, 1217]


class TestAcceptance:
    @both_ways
    def test_twenty_jobs_survive_everything(self, ibm, dag, run, quick, monkeypatch, deferrable):
        slow = connection_to(ibm, timeout=3)
        monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", slow)
        ibm.settings.job_seconds = 0.3
        ibm.script(*self.faults())
        run_jobs(mode="batch", jobs=[job(width) for width in range(1, 21)], deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["run"].try_number == 1
        assert [str(fault) for fault in ibm.faults.left] == []
        assert widths(result.xcom("run")) == list(range(1, 21))
        recorded = ibm.state()
        assert recorded["jobs_run"] == 20
        assert recorded["duplicates"] == []
        assert recorded["accepting"] == []
        assert recorded["sessions"] == {"closed": 1}

    @staticmethod
    def faults():
        again = {"status": 429, "headers": {"Retry-After": "1"}}
        submitting = [
            {"drop": "rst"},
            {"drop": "rst", "phase": "after"},
            {"drop": "fin"},
            {"drop": "fin", "phase": "after"},
            *(
                {"status": status, "phase": when}
                for status in (500, 502, 503)
                for when in ("before", "after")
            ),
            again,
            {"truncate": True, "phase": "after"},
            {"truncate": "length", "phase": "after"},
            {"html": True, "phase": "after"},
            {"empty": True, "phase": "after"},
            {"delay": 0.5},
            {"status": 401},
        ]
        reading = [{"status": 503}, {"drop": "rst"}, {"truncate": True}, {"delay": 4}]
        results = [*reading[:3], again, {"status": 500, "phase": "after"}, {"truncate": "length"}]
        return [
            Fault(path="/identity/token", status=503),
            Fault(method="POST", path="/v1/sessions", **again),
            *(Fault("POST", "/v1/jobs", skip=n // 2, **fault) for n, fault in enumerate(submitting)),
            *(Fault("GET", "/v1/jobs", skip=n, **fault) for n, fault in enumerate(reading)),
            *(Fault("GET", "/v1/sessions/*", **fault) for fault in [*reading[:3], again]),
            Fault("PATCH", "/v1/sessions/*", status=500),
            Fault("PATCH", "/v1/sessions/*", drop="rst", phase="after"),
            *(Fault("GET", "/v1/jobs/*/results", skip=n, **fault) for n, fault in enumerate(results)),
        ]


class TestKilledWhileDeferred:
    """Airflow 3.3+ calls the trigger's ``on_kill`` when a user ends a deferred task."""

    @pytest.fixture
    def deferred(self, ibm, dag, run, monkeypatch):
        """The trigger with which the operator has deferred."""
        caught = []

        def build(**kwargs):
            run_jobs(deferrable=True, **kwargs)
            monkeypatch.setattr(
                "airflow_provider_ibm_sessions.operators.base.WaitingOperator.wait",
                lambda task, end_time: caught.append(task.trigger(end_time)) or 1 / 0,
            )
            run(dag)
            path, arguments = caught[0].serialize()
            return import_string(path)(**json.loads(json.dumps(arguments)))

        return build

    def test_all_is_ended(self, ibm, deferred):
        ibm.settings.job_seconds = 600
        ibm.settings.lanes = 2
        trigger = deferred()
        assert statuses(ibm) == ["Running", "Running", "Queued"]
        asyncio.run(trigger.on_kill())
        assert only(ibm.sessions).state == "closed"
        assert statuses(ibm) == ["Cancelled", "Cancelled", "Failed"]

    def test_nothing_is_ended_where_it_shall_not_be(self, ibm, deferred):
        ibm.settings.job_seconds = 600
        trigger = deferred(cancel_on_kill=False)
        seen = len(ibm.journal)
        asyncio.run(trigger.on_kill())
        assert [entry.operation for entry in ibm.journal[seen:]] == ["update_session"], "drained, once more"
        assert statuses(ibm) == ["Running"] * 3

    def test_what_has_ended_is_no_trouble(self, ibm, deferred, output):
        trigger = deferred()
        ibm.clock.advance(1)
        asyncio.run(trigger.on_kill())
        assert statuses(ibm) == ["Completed"] * 3

    def test_one_that_cannot_be_ended_does_not_keep_the_others(self, ibm, deferred, monkeypatch, output):
        ibm.settings.job_seconds = 600
        trigger = deferred()
        single_attempt(monkeypatch)
        ibm.script(
            Fault("DELETE", "/v1/sessions/*", status=403),
            Fault("POST", "/v1/jobs/*/cancel", skip=1, status=403),
        )
        asyncio.run(trigger.on_kill())
        assert statuses(ibm) == ["Cancelled", "Running", "Cancelled"]
        assert output().count("HTTP 403") >= 2

    def test_the_trigger_survives_serialization(self, ibm, deferred):
        trigger = deferred()
        path, arguments = trigger.serialize()
        assert path == "airflow_provider_ibm_sessions.triggers.job.IBMQuantumJobTrigger"
        assert import_string(path)(**arguments).serialize() == (path, arguments)
        assert arguments["job_ids"] == list(ibm.jobs)
        assert ibm.api_key not in repr(arguments)
        assert not [token for token in ibm.tokens if token.value in repr(arguments)]

        async def first():
            return await anext(trigger.run())

        event = asyncio.run(first())
        assert event.payload["status"] == "success"
        assert event.payload["resume_data"] == arguments["resume_data"]
        assert event.payload["end_time"] == arguments["end_time"]
        json.dumps(event.payload)

    def test_a_job_that_stands_alone(self, ibm, airflow_db):
        ibm.settings.job_seconds = 600
        session = ibm.add_session(age=1)
        job_id = submit_job(ibm, session.id)
        waiting = {
            "end_time": time.time() + 60,
            "poll_interval": 1,
            "ibm_quantum_conn_id": "ibm_quantum_default",
        }
        trigger = IBMQuantumJobTrigger(
            job_ids=[job_id], session_id=session.id, cancel_on_kill=True, **waiting
        )
        asyncio.run(trigger.on_kill())
        assert statuses(ibm) == ["Cancelled"]
        assert ibm.state()["accepting"] == [session.id], "its session is another's"


class TestKilledWhileRunning:
    """Airflow calls ``on_kill`` from its handler of SIGTERM, and the task runs on for some seconds."""

    def test_all_is_ended(self, ibm, dag, run, terminate, output):
        ibm.settings.job_seconds = 600
        run_jobs(timeout=20)
        terminate(lambda: ibm.requests("GET", "/v1/jobs"))
        result = run(dag)
        assert result.state == "failed"
        assert only(ibm.sessions).state == "closed"
        assert statuses(ibm) == ["Cancelled"] * 3
        assert "Closing session" in output()

    def test_nothing_is_ended_where_it_shall_not_be(self, ibm, dag, run, terminate, when, monkeypatch):
        ibm.settings.job_seconds = 600
        run_jobs(cancel_on_kill=False)
        killed, on_kill = [], IBMQuantumRunJobsOperator.on_kill
        monkeypatch.setattr(IBMQuantumRunJobsOperator, "on_kill", lambda self: killed.append(on_kill(self)))
        terminate(lambda: ibm.requests("GET", "/v1/jobs"))
        when(lambda: killed, lambda: ibm.clock.advance(700))
        assert run(dag).state == "success"
        assert statuses(ibm) == ["Completed"] * 3

    @pytest.mark.parametrize("phase", ["before", "after"])
    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_while_jobs_are_being_submitted(self, ibm, dag, run, terminate, number, phase):
        ibm.settings.job_seconds = 600
        ibm.script(Fault("POST", "/v1/jobs", skip=number - 1, delay=1, phase=phase))
        run_jobs(timeout=2)
        terminate(lambda: len(posts(ibm)) == number)
        assert run(dag).state == "failed"
        assert only(ibm.sessions).state == "closed"
        # A request that is on its way may be carried out before the session is closed.
        assert len(ibm.jobs) in ({number} if phase == "after" else {number - 1, number})
        assert set(statuses(ibm)) <= {"Cancelled"}

    @pytest.mark.parametrize("count", [3, 20], ids=["one by one", "several at once"])
    def test_while_airflow_does_not_answer_jobs_run_on_and_the_retry_collects(
        self, ibm, dag, run, terminate, when, monkeypatch, output, count
    ):
        def no_answer(context):
            raise ConnectionError("Airflow's API server is away")

        monkeypatch.setattr("airflow_provider_ibm_sessions.lifecycle.kill.another_try_is_active", no_answer)
        ibm.settings.job_seconds = 600
        ibm.script(Fault("POST", "/v1/jobs", skip=1, delay=1, phase="after"))
        when(lambda: len(ibm.sessions) == 2 and len(ibm.jobs) >= count, lambda: ibm.clock.advance(20_000))
        run_jobs(jobs=[job(1)] * count, retries=1, **AT_ONCE)
        terminate(lambda: len(posts(ibm)) >= 2)
        assert run(dag).state == "success"
        assert statuses(ibm) == ["Completed"] * count
        assert "leaving its jobs to the retry" in output()
        assert ibm.state()["accepting"] == []

    @pytest.mark.parametrize("phase", ["before", "after"])
    def test_while_the_session_is_being_opened(self, ibm, dag, run, terminate, phase):
        ibm.script(Fault("POST", "/v1/sessions", delay=1, phase=phase))
        run_jobs(timeout=20)
        terminate(lambda: ibm.requests("POST", "/v1/sessions"))
        assert run(dag).state == "failed"
        assert only(ibm.sessions).state == "closed"
        assert ibm.jobs == {}
