# SPDX-License-Identifier: Apache-2.0
"""What one attempt at a job task leaves to the next: each job runs once, and nothing is left running."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import task

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.submission import validate_job
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.links import IBMQuantumLink
from airflow_provider_ibm_sessions.operators import _job_results
from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator, IBMQuantumSubmitJobOperator
from testing.airflow_runs import cleared, fails_once
from testing.dag_tasks import AT_ONCE, both_ways, dies, run_jobs, submit
from testing.dag_tasks import sampler_job as job
from testing.fake_ibm import Fault, Outcome
from testing.jobs_seen import posts, statuses, width, widths
from testing.retry_policies import single_attempt

pytestmark = pytest.mark.usefixtures("connection", "quick", "short_jobs")

LONG = Outcome(seconds=600)


def states(ibm):
    return [session.state for session in ibm.sessions.values()]


def tries(result):
    return result.tasks["run"].try_number


class TestChangedInput:
    """A task is cleared whose last attempt had begun something, and told nothing."""

    CHANGES = ({"jobs": [job(5), job(6)]}, {"backend": "ibm_torino"}, {"mode": "batch"})

    @pytest.mark.parametrize("change", CHANGES, ids=["jobs", "backend", "mode"])
    def test_other_jobs_are_run_and_what_the_old_ones_have_is_not_told(
        self, ibm, dag, run, monkeypatch, change
    ):
        fails_once(monkeypatch, TaskState, "mark_finished")
        operator = run_jobs(jobs=[job(1), job(2)])
        first = run(dag)
        assert first.state == "failed"
        for name, value in change.items():
            setattr(operator, name, value)
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "success"
        assert widths(again.xcom("run")) == ([5, 6] if "jobs" in change else [1, 2])
        assert [report["id"] for report in again.xcom("run")] == list(ibm.jobs)[2:]
        assert len(posts(ibm)) == 4
        assert list(ibm.jobs.values())[3].backend == change.get("backend", "ibm_fez")

    def test_a_session_that_runs_the_old_jobs_still_is_ended(self, ibm, dag, run, monkeypatch):
        ibm.next_jobs([LONG] * 3)
        dies(monkeypatch, IBMQuantumHook, "update_session")
        operator = run_jobs()
        first = run(dag)
        assert states(ibm) == ["active"], "with all of its jobs running"
        operator.jobs = [job(5)]
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "success"
        assert widths(again.xcom("run")) == [5]
        assert states(ibm) == ["closed", "closed"]
        assert statuses(ibm) == ["Cancelled"] * 3 + ["Completed"]

    def test_the_sessions_of_all_that_went_before_are_ended(self, ibm, dag, run, monkeypatch):
        ibm.next_jobs([LONG] * 3)
        operator = run_jobs()
        with monkeypatch.context() as dying:
            dies(dying, IBMQuantumHook, "update_session")
            first = run(dag)
        operator.jobs = [job(5)]
        ibm.script(Fault("DELETE", "*", status=403, times=10), Fault("PATCH", "*", status=403, times=10))
        assert cleared(first, dag, "run").state_of("run") == "failed"
        assert states(ibm) == ["active"]
        ibm.clear_faults()
        operator.jobs = [job(6)]
        again = cleared(first, dag, "run")
        assert widths(again.xcom("run")) == [6]
        assert states(ibm) == ["closed", "closed"]
        assert statuses(ibm) == ["Cancelled"] * 3 + ["Completed"]

    @pytest.mark.parametrize(
        "change",
        [{"program_params": job(7)["params"]}, {"backend": "ibm_torino"}],
        ids=["circuit", "backend"],
    )
    def test_a_job_of_its_own_is_cancelled_and_run_anew(self, ibm, dag, run, monkeypatch, change):
        ibm.next_jobs([LONG])
        dies(monkeypatch, IBMQuantumSubmitJobOperator, "_take_job")
        operator = submit()
        first = run(dag)
        assert statuses(ibm) == ["Running"]
        for name, value in change.items():
            setattr(operator, name, value)
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "success"
        assert statuses(ibm) == ["Cancelled", "Completed"]
        report = again.xcom("run")
        assert report["id"] == list(ibm.jobs)[1]
        assert width(report) == (7 if "program_params" in change else 2)
        assert report["backend"] == change.get("backend", "ibm_fez")

    def test_a_job_of_its_own_that_cannot_be_cancelled_is_not_forgotten(self, ibm, dag, run, monkeypatch):
        ibm.next_jobs([LONG])
        dies(monkeypatch, IBMQuantumSubmitJobOperator, "_take_job")
        operator = submit()
        first = run(dag)
        operator.program_params = job(7)["params"]
        ibm.script(Fault("POST", "/v1/jobs/*/cancel", status=403, times=1))
        assert cleared(first, dag, "run").state_of("run") == "failed"
        assert statuses(ibm) == ["Running"]
        assert width(cleared(first, dag, "run").xcom("run")) == 7
        assert statuses(ibm) == ["Cancelled", "Completed"]

    def test_a_completed_job_of_its_own_is_run_anew(self, ibm, dag, run, monkeypatch):
        fails_once(monkeypatch, TaskState, "mark_finished")
        operator = submit()
        first = run(dag)
        operator.program_params = job(7)["params"]
        again = cleared(first, dag, "run")
        assert width(again.xcom("run")) == 7
        assert len(posts(ibm)) == 2

    def test_the_same_input_is_adopted(self, ibm, dag, run, monkeypatch):
        dies(monkeypatch, IBMQuantumHook, "update_session")
        operator = run_jobs()
        first = run(dag)
        operator.poll_interval, operator.timeout = 0.2, 100
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "success"
        assert [report["id"] for report in again.xcom("run")] == list(ibm.jobs)
        assert len(posts(ibm)) == 3
        assert states(ibm) == ["closed"]

    def test_input_that_each_retry_renders_anew_is_new_input(self, ibm, dag, run, monkeypatch):
        ibm.next_jobs([LONG])
        dies(monkeypatch, IBMQuantumHook, "update_session")
        run_jobs(jobs=[job(tags=["try {{ ti.try_number }}"])], retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert "try 2" in result.xcom("run")[0]["tags"]
        assert statuses(ibm) == ["Cancelled", "Completed"]
        assert states(ibm) == ["closed", "closed"]


class TestResultsThatAreMissing:
    EMPTY = Fault("GET", "/v1/jobs/*/results", no_content=True)

    @staticmethod
    def error_of_one(reports):
        """Return the error of the one job that misses its results: any, as all are read at once."""
        [(missed, report)] = [each for each in enumerate(reports) if "error" in each[1]]
        assert widths(reports) == [None if index == missed else index + 1 for index in range(len(reports))]
        return report["error"]

    @both_ways
    def test_a_completed_job_without_results_fails_the_task(self, ibm, dag, run, deferrable):
        ibm.script(self.EMPTY)
        run_jobs(deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 1
        assert "IBM has no results of it" in self.error_of_one(result.xcom("run"))

    def test_who_collects_lives_with_it(self, ibm, dag, run):
        ibm.script(self.EMPTY)
        run_jobs(on_job_failure="collect")
        result = run(dag)
        assert result.state == "success"
        assert "IBM has no results of it" in self.error_of_one(result.xcom("run"))

    def test_a_job_of_its_own_fails_the_task(self, ibm, dag, run):
        ibm.script(self.EMPTY)
        submit(retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 1
        assert "IBM has no results of it" in result.xcom("run")["error"]

    def test_results_that_ibm_does_not_know_are_missed_by_their_job_only(self, ibm, dag, run):
        ibm.script(Fault("GET", "/v1/jobs/*/results", skip=1, status=404, message="results not found"))
        run_jobs(on_job_failure="collect")
        result = run(dag)
        assert result.state == "success"
        assert "results not found" in self.error_of_one(result.xcom("run"))

    @pytest.mark.parametrize(
        "odd",
        [
            {"__type__": "PrimitiveResult", "__value__": {"pub_results": 3}},
            {"__type__": "ndarray", "__value__": "AAAA"},
            {"__type__": "PrimitiveResult"},
            {"__type__": "settings", "__module__": "gone", "__class__": "X", "__value__": {}},
        ],
        ids=["wrong value", "no array", "no value", "no such class"],
    )
    def test_what_qiskit_cannot_decode_comes_raw(self, ibm, dag, run, odd):
        ibm.next_jobs([Outcome(results=odd)])
        submit()
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("run")["results"] == odd


class TestPrivateResults:
    """They can be read once, so nothing may lose them after that."""

    @pytest.fixture
    def secretive(self, monkeypatch):
        """IBM's replies do not say whether a job is private."""
        from airflow_provider_ibm_sessions.emulator.service.jobs import Jobs

        view = Jobs.view

        def without(*args, **kwargs):
            return {name: value for name, value in view(*args, **kwargs).items() if name != "private"}

        monkeypatch.setattr(Jobs, "view", without)

    @pytest.fixture
    def store_fails(self, monkeypatch):
        """Airflow's state store takes no results: ``store_fails(times)``."""
        from airflow.sdk.execution_time.context import TaskStateStoreAccessor

        monkeypatch.setattr(_job_results, "time", SimpleNamespace(sleep=lambda _: None))
        original, failed = TaskStateStoreAccessor.set, []

        def arrange(times, what=lambda value: "results" in value):
            def put(self, key, value, **kwargs):
                if isinstance(value, dict) and what(value) and len(failed) < times:
                    failed.append(key)
                    raise RuntimeError("Airflow's API: 503")
                return original(self, key, value, **kwargs)

            monkeypatch.setattr(TaskStateStoreAccessor, "set", put)
            return failed

        return arrange

    def assert_read_once(self, ibm, result, tries_made=1):
        assert result.state == "success"
        assert tries(result) == tries_made
        assert width(result.xcom("run")) == 2
        assert [job.results_read for job in ibm.jobs.values()] == [1]
        assert len(posts(ibm)) == 1

    @pytest.mark.parametrize("make", [run_jobs, submit], ids=["run-jobs", "submit"])
    def test_while_airflow_does_not_say_what_is_stored_they_are_left_to_a_retry(
        self, ibm, dag, run, monkeypatch, make
    ):
        from airflow.sdk.execution_time.context import TaskStateStoreAccessor

        original, failed = TaskStateStoreAccessor.get, []

        def get(self, key, *args):
            if key.startswith("ibm_quantum_results") and not failed:
                failed.append(key)
                raise RuntimeError("Airflow's API: 503")
            return original(self, key, *args)

        monkeypatch.setattr(TaskStateStoreAccessor, "get", get)
        arguments = {"private": True} if make is submit else {"jobs": [job(private=True)]}
        make(retries=1, **AT_ONCE, **arguments)
        result = run(dag)
        assert (result.state, tries(result), len(failed)) == ("success", 2, 1)
        assert [each.results_read for each in ibm.jobs.values()] == [1]

    def test_jobs_of_which_ibm_does_not_say_that_they_are_private(
        self, ibm, dag, run, monkeypatch, secretive
    ):
        fails_once(monkeypatch, TaskState, "mark_finished")
        run_jobs(jobs=[job(1, private=True), job(2), job(3, private=True)], retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 2
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert [job.results_read for job in ibm.jobs.values()] == [1, 2, 1]

    @both_ways
    def test_a_job_of_its_own_of_which_ibm_does_not_say_it(
        self, ibm, dag, run, monkeypatch, secretive, deferrable
    ):
        fails_once(monkeypatch, TaskState, "mark_finished")
        submit(private=True, deferrable=deferrable, retries=1, **AT_ONCE)
        self.assert_read_once(ibm, run(dag), tries_made=2)

    def test_too_large_ones_come_though_ibm_does_not_say_it(self, ibm, dag, run, secretive):
        submit(private=True, results_threshold=10)
        self.assert_read_once(ibm, run(dag))

    def test_a_store_that_fails_once_is_tried_again(self, ibm, dag, run, monkeypatch, store_fails):
        assert store_fails(1) == []
        fails_once(monkeypatch, TaskState, "mark_finished")
        submit(private=True, retries=1, **AT_ONCE)
        self.assert_read_once(ibm, run(dag), tries_made=2)

    def test_a_store_that_takes_no_results_does_not_keep_them_from_the_task(
        self, ibm, dag, run, store_fails, output
    ):
        failed = store_fails(99)
        submit(private=True, retries=1, **AT_ONCE)
        self.assert_read_once(ibm, run(dag))
        assert len(failed) > 1
        assert "The results of private job" in output()

    def test_a_store_that_takes_nothing_any_more_does_not_either(self, ibm, dag, run, store_fails):
        store_fails(99, lambda value: "results" in value or value.get("finished"))
        submit(private=True, retries=1, **AT_ONCE)
        self.assert_read_once(ibm, run(dag))

    def test_a_timeout_between_reading_and_keeping_strikes_after_it(self, ibm, dag, run, monkeypatch):
        save, slow = TaskState.save_results, []

        def slowly(self, job_id, results):
            if not slow:
                slow.append(job_id)
                os.kill(os.getpid(), signal.SIGALRM)
            return save(self, job_id, results)

        monkeypatch.setattr(TaskState, "save_results", slowly)
        submit(private=True, deferrable=False, execution_timeout=timedelta(minutes=10), retries=1, **AT_ONCE)
        self.assert_read_once(ibm, run(dag), tries_made=2)

    def test_a_storage_that_fails_does_not_keep_them_from_the_task(
        self, ibm, dag, run, monkeypatch, tmp_path, output
    ):
        def store(*_):
            raise OSError("the disk is full")

        monkeypatch.setattr(_job_results.ResultStorage, "store", store)
        submit(private=True, results_threshold=10, results_path=f"file://{tmp_path}/o", retries=1, **AT_ONCE)
        self.assert_read_once(ibm, run(dag))
        assert "XCom carries the results of private job" in output()


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_function_is_not_called_whose_task_was_killed_while_the_session_was_opened(
    ibm, dag, run, terminate, monkeypatch, phase
):
    monkeypatch.setattr(IBMQuantumHook, "qiskit_session", lambda self, session_id, **_: session_id)
    ibm.script(Fault("POST", "/v1/sessions", delay=2, phase=phase))
    called = []
    with dag:

        @task.ibm_quantum_session(backend="ibm_fez", max_ttl="20m")
        def work(session):
            called.append(session)

        work()
    terminate(lambda: ibm.requests("POST", "/v1/sessions"))
    assert run(dag).state == "failed"
    assert called == []
    assert states(ibm) == ["closed"]


class TestLastSubmissionThatShowsLate:
    """IBM's list of jobs lags behind, just when the successor asks what its predecessor has submitted."""

    @staticmethod
    def lagging(**when):
        return Fault("GET", "/v1/jobs", json={"jobs": [], "count": 0, "offset": 0, "limit": 200}, **when)

    def test_of_two_jobs_one_is_left(self, ibm, dag, run, monkeypatch):
        ibm.next_jobs([Outcome(seconds=1), Outcome(queue_seconds=600)])
        ibm.script(self.lagging())
        dies(monkeypatch, IBMQuantumHook, "submit_job_once", before=False)
        submit(retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert statuses(ibm) == ["Completed", "Cancelled"]
        assert result.xcom("run")["id"] == next(iter(ibm.jobs))

    def test_of_several_jobs_in_a_session_each_is_left_once(self, ibm, dag, run, monkeypatch):
        ibm.settings.lanes = 3
        ibm.next_jobs([Outcome(seconds=1)] * 3 + [Outcome(queue_seconds=600)] * 3)
        ibm.script(self.lagging())
        dies(monkeypatch, IBMQuantumHook, "submit_job_once", at=3, before=False)
        run_jobs(retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert statuses(ibm) == ["Completed"] * 3 + ["Cancelled"] * 3
        assert [report["id"] for report in result.xcom("run")] == list(ibm.jobs)[:3]
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert states(ibm) == ["closed"]


class TestTimeout:
    @both_ways
    @pytest.mark.parametrize("path", ["/v1/jobs*", "/v1/*"])
    def test_trouble_with_the_report_does_not_make_a_retry_run_the_jobs_again(
        self, ibm, dag, run, monkeypatch, output, path, deferrable
    ):
        single_attempt(monkeypatch)
        monkeypatch.setattr("airflow_provider_ibm_sessions.client.closing._DELAY", 0.01)
        ibm.settings.job_seconds = 600
        ensure_closed = IBMQuantumRunJobsOperator._ensure_closed

        def away(*args):
            ibm.script(Fault(path=path, status=503, times=None))
            return ensure_closed(*args)

        monkeypatch.setattr(IBMQuantumRunJobsOperator, "_ensure_closed", away)
        run_jobs(timeout=0.5, deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 1
        assert len(posts(ibm)) == 3
        assert states(ibm) == ["closed"]
        assert statuses(ibm) == ["Cancelled"] * 3
        assert "not final in time" in output()

    def test_jobs_that_an_earlier_attempt_left_in_another_session_are_ended_too(
        self, ibm, dag, run, monkeypatch
    ):
        single_attempt(monkeypatch)
        ibm.settings.job_seconds = 600
        ibm.script(Fault("POST", "/v1/jobs", skip=1, status=503, times=5))
        run_jobs(timeout=1, retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 2
        assert len(ibm.sessions) == 2, "the first takes no more jobs"
        assert statuses(ibm) == ["Cancelled"] * 3
        assert ibm.state()["accepting"] == []


class TestSignal:
    """A worker that is shut down kills its tasks: the next try does the work."""

    @pytest.fixture
    def ended(self, ibm):
        """What IBM was asked to end: ``ended()``."""
        ibm.settings.job_seconds = 600
        ending = ("close_session", "cancel_job")
        return lambda: [entry.operation for entry in ibm.journal if entry.operation in ending]

    def test_the_next_try_runs_the_jobs_that_were_ended(self, ibm, dag, run, terminate):
        ibm.next_jobs([LONG] * 3)
        run_jobs(deferrable=False, retries=2, **AT_ONCE)
        terminate(lambda: ibm.requests("GET", "/v1/jobs"))
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 2
        assert statuses(ibm) == ["Cancelled"] * 3 + ["Completed"] * 3
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert states(ibm) == ["closed", "closed"]

    @pytest.mark.parametrize("phase", ["before", "after"])
    def test_the_next_try_submits_what_this_one_was_submitting(self, ibm, dag, run, terminate, phase):
        ibm.next_jobs([LONG] * (2 if phase == "after" else 1))
        ibm.script(Fault("POST", "/v1/jobs", skip=1, delay=2, phase=phase))
        run_jobs(deferrable=False, retries=2, **AT_ONCE)
        terminate(lambda: len(posts(ibm)) == 2)
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 2
        assert sorted(statuses(ibm)) == ["Cancelled"] * (len(ibm.jobs) - 3) + ["Completed"] * 3
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert ibm.state()["accepting"] == []

    def test_the_next_try_runs_the_job_that_was_cancelled(self, ibm, dag, run, terminate):
        ibm.next_jobs([LONG])
        submit(deferrable=False, retries=2, **AT_ONCE)
        terminate(lambda: ibm.requests("GET", "/v1/jobs/*"))
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 2
        assert statuses(ibm) == ["Cancelled", "Completed"]

    @pytest.mark.parametrize("phase", ["before", "after"])
    def test_the_next_try_submits_the_job_that_this_one_was_submitting(self, ibm, dag, run, terminate, phase):
        ibm.next_jobs([LONG])
        ibm.script(Fault("POST", "/v1/jobs", delay=2, phase=phase))
        submit(deferrable=False, retries=2, **AT_ONCE)
        terminate(lambda: posts(ibm))
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 2
        assert statuses(ibm) == ["Cancelled", "Completed"]

    def test_a_kill_makes_few_requests(self, ibm, dag, run, terminate, ended):
        ibm.settings.lanes = 2
        run_jobs(deferrable=False, jobs=[job(n) for n in range(1, 13)], timeout=20)
        terminate(lambda: ibm.requests("GET", "/v1/jobs"))
        assert run(dag).state == "failed"
        assert ended() == ["close_session", "cancel_job", "cancel_job"]
        assert statuses(ibm) == ["Cancelled"] * 2 + ["Failed"] * 10

    def test_a_kill_sends_each_request_once_though_ibm_fails(self, ibm, dag, run, terminate, ended):
        ibm.script(Fault("DELETE", "*", status=503, times=None))
        run_jobs(deferrable=False, timeout=20)
        terminate(lambda: ibm.requests("GET", "/v1/jobs"))
        assert run(dag).state == "failed"
        assert ended() == ["close_session", *["cancel_job"] * 3]
        assert statuses(ibm) == ["Cancelled"] * 3

    def test_a_timeout_sends_them_until_they_are_done(self, ibm, dag, run, time_out, ended):
        ibm.script(Fault("DELETE", "/v1/sessions/*", status=503, times=1))
        ibm.script(Fault("POST", "/v1/jobs/*/cancel", status=503, times=2))
        run_jobs(deferrable=False, execution_timeout=timedelta(minutes=10))
        time_out(lambda: ibm.requests("GET", "/v1/jobs"))
        assert run(dag).state == "failed"
        assert ended().count("close_session") == 2
        assert statuses(ibm) == ["Cancelled"] * 3
        assert states(ibm) == ["closed"]


@pytest.mark.parametrize("make", [run_jobs, submit], ids=["run-jobs", "submit"])
def test_a_qpu_that_is_reserved_is_left_to_a_retry(ibm, dag, run, monkeypatch, make):
    """IBM's code 1233 says nothing of the job that it refuses, and passes."""
    single_attempt(monkeypatch)
    ibm.script(Fault("POST", "/v1/jobs", status=423, code=1233))
    make(retries=1, **AT_ONCE)
    result = run(dag)
    assert (result.state, tries(result)) == ("success", 2)
    assert set(statuses(ibm)) == {"Completed"}


class TestAirflowThatFailsOnce:
    @pytest.fixture
    def adopted(self, ibm, monkeypatch):
        """The first worker vanishes while it waits; the second adopts, and its button is not taken."""
        ibm.settings.queue_seconds = 1.5
        dies(monkeypatch, IBMQuantumRunJobsOperator, "wait")
        persist, calls = IBMQuantumLink.persist.__func__, []

        def failing(cls, context, workload_id):
            calls.append(workload_id)
            if len(calls) == 2:
                raise RuntimeError("Airflow's API: 503")
            return persist(cls, context, workload_id)

        monkeypatch.setattr(IBMQuantumLink, "persist", classmethod(failing))

    def test_with_a_retry_left_the_jobs_go_on(self, ibm, dag, run, adopted):
        run_jobs(retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 3
        assert statuses(ibm) == ["Completed"] * 3
        assert states(ibm) == ["closed"]
        assert widths(result.xcom("run")) == [1, 2, 3]
        assert ibm.requests("DELETE") == []

    def test_without_one_all_is_ended(self, ibm, dag, run, adopted):
        ibm.settings.job_seconds = 600
        run_jobs(retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 2
        assert states(ibm) == ["closed"]
        assert "Running" not in statuses(ibm)
        assert "Queued" not in statuses(ibm)

    @pytest.mark.parametrize(
        ("owner", "name"),
        [
            (TaskState, "load"),
            (TaskState, "resume_or_start"),
            (TaskState, "save_pending_create"),
            (TaskState, "save_session"),
            (IBMQuantumRunJobsOperator, "take_session"),
        ],
        ids=lambda value: getattr(value, "__name__", value),
    )
    @pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
    def test_whatever_fails_each_job_runs_once(self, ibm, dag, run, monkeypatch, owner, name, before):
        fails_once(monkeypatch, owner, name, before=before)
        run_jobs(retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert tries(result) == 2
        assert statuses(ibm) == ["Completed"] * 3
        assert ibm.state()["accepting"] == []

    def test_clearing_a_success_collects_and_runs_nothing_again(self, ibm, dag, run):
        run_jobs()
        first = run(dag)
        assert first.state == "success"
        reports = [first.xcom("run")]
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "success"
        assert len(posts(ibm)) == 3
        reports.append(again.xcom("run"))
        numbers = [each.pop("provenance")["try_number"] for found in reports for each in found]
        assert numbers == [1, 1, 1, 2, 2, 2]
        assert reports[0] == reports[1]

    def test_clearing_a_failure_runs_the_failed_job_again(self, ibm, dag, run):
        ibm.next_jobs([Outcome(status="Failed")])
        run_jobs()
        first = run(dag)
        assert first.state == "failed"
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "success"
        _, second, third, repeated = ibm.jobs
        assert [report["id"] for report in again.xcom("run")] == [repeated, second, third]
        assert states(ibm) == ["closed", "closed"]


class TestBadInputInALaterAttempt:
    WRONG = ({"jobs": [job(cost=-1)]}, {"backend": "two words"}, {"results_path": "nosuch://x"})

    @pytest.mark.parametrize("wrong", WRONG, ids=["jobs", "backend", "path"])
    def test_the_session_of_the_attempt_before_is_ended(self, ibm, dag, run, monkeypatch, wrong):
        ibm.settings.job_seconds = 600
        dies(monkeypatch, IBMQuantumHook, "update_session")
        operator = run_jobs()
        first = run(dag)
        assert states(ibm) == ["active"]
        for name, value in wrong.items():
            setattr(operator, name, value)
        again = cleared(first, dag, "run")
        assert again.state_of("run") == "failed"
        assert states(ibm) == ["closed"]
        assert statuses(ibm) == ["Cancelled"] * 3

    def test_a_retry_that_renders_it_ends_the_session_of_the_attempt_before(self, ibm, dag, run, monkeypatch):
        ibm.settings.job_seconds = 600
        dies(monkeypatch, IBMQuantumHook, "update_session")
        run_jobs(max_ttl="{{ 600 if ti.try_number == 1 else 'soon' }}", retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 2
        assert states(ibm) == ["closed"]
        assert statuses(ibm) == ["Cancelled"] * 3

    def test_a_job_that_stands_alone_is_cancelled(self, ibm, dag, run, monkeypatch):
        ibm.settings.job_seconds = 600
        dies(monkeypatch, IBMQuantumHook, "submit_job_once", before=False)
        submit(cost="{{ 600 if ti.try_number == 1 else 'soon' }}", retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 2
        assert statuses(ibm) == ["Cancelled"]


class TestResultsThatAreTooLarge:
    JOBS = (job(1), job(12, shots=500), job(3))
    """The second's results are some kilobytes."""

    def test_the_task_fails_and_says_so_though_it_collects(self, ibm, dag, run, output):
        run_jobs(jobs=list(self.JOBS), on_job_failure="collect", results_threshold=3000, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert tries(result) == 1
        reports = result.xcom("run")
        assert ["results" in report for report in reports] == [True, False, True], "only the largest"
        assert "Set results_path" in reports[1]["error"]
        assert "more than 3000 bytes" in output()
        assert len(posts(ibm)) == 3

    def test_only_the_largest_go_to_a_file(self, ibm, dag, run, tmp_path):
        run_jobs(jobs=list(self.JOBS), results_threshold=4500, results_path=f"file://{tmp_path}/out")
        result = run(dag)
        assert result.state == "success"
        reports = result.xcom("run")
        assert ["results" in report for report in reports] == [True, False, True]
        assert ["results_path" in report for report in reports] == [False, True, False]
        [file] = (tmp_path / "out").iterdir()
        assert file.name == f"{reports[1]['id']}.json"
        assert sum(json.loads(file.read_text())[0]["counts"]["meas"].values()) == 500
        assert len(json.dumps(reports)) <= 4500


class TestWhatAJobMayBe:
    def test_the_log_level_reaches_ibm(self, ibm, dag, run):
        submit(log_level="debug")
        run_jobs(task_id="other", jobs=[job(log_level="error")])
        assert run(dag).state == "success"
        assert sorted(post.json["log_level"] for post in posts(ibm)) == ["debug", "error"]

    def test_pubs_may_be_tuples(self, ibm, dag, run):
        submit(program_params={"pubs": (tuple(job()["params"]["pubs"][0]),)})
        result = run(dag)
        assert width(result.xcom("run")) == 2
        assert posts(ibm)[0].json["params"] == job()["params"]

    @pytest.mark.parametrize("cost", [0, "0", "0s", " 0 "])
    def test_a_cost_of_nothing_is_a_cost(self, cost):
        assert validate_job(job(cost=cost))["cost"] == 0

    @pytest.mark.parametrize("cost", [False, True, "", -1, 0.5, []], ids=repr)
    def test_what_is_no_length_of_time_is_no_cost(self, cost):
        with pytest.raises(ConfigurationError, match="cost"):
            validate_job(job(cost=cost))
