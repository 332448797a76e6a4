# SPDX-License-Identifier: Apache-2.0
"""
A clear never pays twice, on any claimed version of Airflow.

Airflow 3.4 empties the task state store when a task is cleared; before 3.3 there is no such store.
"""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import Variable, task

from airflow_provider_ibm_sessions.decorators.jobs import IBMQuantumJobsDecoratedOperator
from airflow_provider_ibm_sessions.hooks.airflow_id import VARIABLE
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.operators.job import IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.run_jobs import SessionJobsOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from testing.airflow_runs import cleared, fails_once, next_try, serialize
from testing.dag_tasks import AT_ONCE, dies, run_jobs, sampler_job
from testing.fake_ibm import Fault, Outcome

pytestmark = pytest.mark.usefixtures("connection", "quick")

LONG = Outcome(seconds=600)


@pytest.fixture(autouse=True)
def short_jobs(ibm):
    ibm.settings.job_seconds = 0.05


def empty_store(dag):
    """Delete all that tasks have stored, as clearing does in Airflow 3.4."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(delete(TaskStateStoreModel).where(TaskStateStoreModel.dag_id == dag.dag_id))


@pytest.fixture(params=["emptied by the clear", "absent"])
def clear(request, monkeypatch):
    """Clear a task where Airflow keeps no task state across that: ``clear(result, dag, task_id)``."""
    if request.param == "absent":
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        original = RuntimeTaskInstance.get_template_context

        def context(self):
            return {name: value for name, value in original(self).items() if name != "task_state_store"}

        monkeypatch.setattr(RuntimeTaskInstance, "get_template_context", context)
        monkeypatch.delattr(Variable, "keys")
        return cleared
    return emptied


def emptied(result, dag, task_id):
    empty_store(dag)
    return cleared(result, dag, task_id)


def posts(ibm):
    return ibm.requests("POST", "/v1/jobs")


def statuses(ibm):
    return [job.status for job in ibm.jobs.values()]


def states(ibm):
    return [session.state for session in ibm.sessions.values()]


def ids(result, task_id="run"):
    return [report["id"] for report in result.xcom(task_id)]


def submit(**kwargs):
    fields = {"program_id": "sampler", "program_params": sampler_job()["params"], "backend": "ibm_fez"}
    return IBMQuantumSubmitJobOperator(task_id="run", poll_interval=0.1, **fields | kwargs)


class TestRunJobs:
    def test_clearing_a_success_collects_and_runs_nothing_again(self, ibm, dag, run, clear):
        run_jobs()
        first = run(dag)
        again = clear(first, dag, "run")
        assert again.state_of("run") == "success"
        assert again.xcom("run") == first.xcom("run")
        assert len(posts(ibm)) == 3
        assert states(ibm) == ["closed"]

    def test_clearing_runs_a_failed_job_again_and_no_other(self, ibm, dag, run, clear):
        ibm.next_jobs([Outcome(), Outcome(status="Failed"), Outcome()])
        run_jobs()
        first = run(dag)
        assert first.state == "failed"
        second = clear(first, dag, "run")
        assert second.state_of("run") == "success"
        one, _, three, repeated = ibm.jobs
        assert ids(second) == [one, repeated, three]
        third = clear(second, dag, "run")
        assert third.xcom("run") == second.xcom("run")
        assert len(posts(ibm)) == 4
        assert states(ibm) == ["closed", "closed"]

    @pytest.mark.parametrize(
        ("owner", "name", "at"),
        [
            (IBMQuantumHook, "submit_job_once", 2),
            (IBMQuantumHook, "update_session", 1),
            (IBMQuantumHook, "ensure_session_closed", 1),
        ],
        ids=["submitting", "all submitted", "all completed"],
    )
    def test_clearing_goes_on_with_the_jobs(self, ibm, dag, run, clear, monkeypatch, owner, name, at):
        dies(monkeypatch, owner, name, at=at, before=False)
        run_jobs()
        again = clear(run(dag), dag, "run")
        assert again.state_of("run") == "success"
        assert ids(again) == list(ibm.jobs)
        assert statuses(ibm) == ["Completed"] * 3
        assert ibm.state()["accepting"] == []

    def test_a_retry_of_a_cleared_task_does_not_run_the_repeated_job_again(
        self, ibm, dag, run, clear, monkeypatch
    ):
        ibm.next_jobs([Outcome(status="Failed")])
        run_jobs(jobs=[sampler_job(1)], retries=1, **AT_ONCE)
        first = run(dag)
        fails_once(monkeypatch, IBMQuantumHook, "ensure_session_closed")
        again = clear(first, dag, "run")
        assert again.state_of("run") == "up_for_retry"
        assert next_try(again, dag, "run").state_of("run") == "success"
        assert statuses(ibm) == ["Failed", "Completed"]

    def test_of_several_sessions_the_one_that_accepts_jobs_is_drained(
        self, ibm, dag, run, clear, monkeypatch
    ):
        """The first job is in a session that has closed, the second in one that a killed try has left."""
        ibm.next_jobs([Outcome(), Outcome(status="Failed")])
        run_jobs(jobs=[sampler_job(1), sampler_job(2)])
        first = run(dag)
        with monkeypatch.context() as patch:
            dies(patch, IBMQuantumHook, "update_session")
            second = clear(first, dag, "run")
        assert len(ibm.state()["accepting"]) == 1
        third = clear(second, dag, "run")
        assert third.state_of("run") == "success"
        one, _, repeated = ibm.jobs
        assert ids(third) == [one, repeated]
        assert states(ibm) == ["closed", "closed"]

    def test_an_outcome_that_airflow_lost_is_collected_again(self, ibm, dag, run, clear, monkeypatch):
        run_jobs(deferrable=True, retries=1, **AT_ONCE)
        first = run(dag)
        fails_once(monkeypatch, TaskState, "mark_finished", before=False)
        again = clear(first, dag, "run")
        assert again.state_of("run") == "up_for_retry"
        assert next_try(again, dag, "run").state_of("run") == "success"
        assert len(posts(ibm)) == 3

    @pytest.mark.parametrize("jobs", [[sampler_job(5)], [sampler_job(cost=-1)]], ids=["other", "wrong"])
    def test_what_ran_with_other_input_is_ended(self, ibm, dag, run, monkeypatch, jobs):
        """Airflow 3.3 and newer list the registered sessions."""
        ibm.next_jobs([LONG] * 3)
        dies(monkeypatch, IBMQuantumHook, "update_session")
        operator = run_jobs()
        first = run(dag)
        assert states(ibm) == ["active"]
        operator.jobs = jobs
        emptied(first, dag, "run")
        assert ibm.state()["accepting"] == []
        assert set(states(ibm)) == {"closed"}
        assert statuses(ibm)[:3] == ["Cancelled"] * 3

    def test_another_airflow_has_other_tags(self, ibm, dag, run):
        from airflow.models.variable import Variable as StoredVariable

        run_jobs(jobs=[sampler_job()])
        first = run(dag)
        StoredVariable.delete(VARIABLE)  # what another Airflow does not have
        emptied(first, dag, "run")
        one, other = ibm.jobs.values()
        assert set(one.tags).isdisjoint(other.tags)


@pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated")
class TestFunction:
    """A function whose code and arguments are the same in each try, and whose jobs are not."""

    @pytest.fixture
    def widths(self, dag):
        """The widths of the circuits that the function makes a job of each; None: it skips its task."""
        widths = [1, 2]
        with dag:

            @task.ibm_quantum_jobs(backend="ibm_fez", max_ttl="10m", poll_interval=0.1)
            def work(backend):
                from qiskit import QuantumCircuit
                from qiskit_ibm_runtime import SamplerV2

                for width in widths:
                    if width is None:
                        raise AirflowSkipException("not today")
                    circuit = QuantumCircuit(backend.num_qubits, width)
                    circuit.measure(range(width), range(width))
                    SamplerV2(mode=backend).run([circuit], shots=10)

            work()
        return widths

    def killed(self, ibm, dag, run, monkeypatch, name, at=1):
        """Run the Dag with long jobs, in a worker that vanishes while the session accepts jobs."""
        ibm.next_jobs([LONG] * 2)
        with monkeypatch.context() as patch:
            dies(patch, IBMQuantumHook, name, at=at)
            patch.setattr(SessionJobsOperator, "_clean_up_after_error", lambda *args: None)
            result = run(dag)
        assert len(ibm.state()["accepting"]) == 1
        return result

    def test_a_session_without_a_record_is_ended_by_the_try_after_next(
        self, ibm, dag, run, widths, monkeypatch
    ):
        """The next one has recorded its own jobs, and fails before it has looked for the session."""
        first = self.killed(ibm, dag, run, monkeypatch, "update_session")
        widths[:] = [3]
        fails_once(monkeypatch, SessionJobsOperator, "find_submitted_jobs")
        second = emptied(first, dag, "work")
        assert second.state_of("work") == "failed"
        third = cleared(second, dag, "work")
        assert third.state_of("work") == "success"
        assert states(ibm) == ["closed", "closed"]
        assert statuses(ibm) == ["Cancelled", "Cancelled", "Completed"]

    def test_a_skipped_task_leaves_nothing_that_runs(self, ibm, dag, run, widths, monkeypatch):
        """Jobs that are too large to be stored are made again: so the function is called, and skips."""
        monkeypatch.setattr("airflow_provider_ibm_sessions.lifecycle.recorded_jobs.MAX_STORED_BYTES", 1)
        first = self.killed(ibm, dag, run, monkeypatch, "submit_job_once", at=2)
        widths[:] = [None]
        dag.task_dict["work"].retries = 1
        serialize(dag)
        again = cleared(first, dag, "work")
        assert again.state_of("work") == "skipped"
        assert states(ibm) == ["closed"]
        assert statuses(ibm) == ["Cancelled"]

    def test_recorded_jobs_that_airflow_does_not_return_lose_no_results(
        self, ibm, dag, run, widths, output, monkeypatch
    ):
        fails_once(monkeypatch, IBMQuantumJobsDecoratedOperator, "read_job_fields")
        result = run(dag)
        assert result.state == "success"
        assert ["results" in report for report in result.xcom("work")] == [True, True]
        assert "The reports carry no parameters" in output()


class TestSubmitJob:
    def test_clearing_a_success_collects_and_runs_nothing_again(self, ibm, dag, run, clear):
        submit()
        first = run(dag)
        again = clear(first, dag, "run")
        assert again.state_of("run") == "success"
        assert again.xcom("run") == first.xcom("run")
        assert len(posts(ibm)) == 1

    def test_clearing_after_a_failure_runs_the_job_again(self, ibm, dag, run, clear):
        ibm.next_jobs([Outcome(status="Failed")] * 2)
        submit()
        result = run(dag)
        for expected in ("failed", "success", "success"):
            result = clear(result, dag, "run")
            assert result.state_of("run") == expected
        assert statuses(ibm) == ["Failed", "Failed", "Completed"]

    def test_clearing_goes_on_with_the_job(self, ibm, dag, run, clear, monkeypatch):
        fails_once(monkeypatch, IBMQuantumSubmitJobOperator, "_take_job")
        submit()
        first = run(dag)
        assert first.state == "failed"
        assert clear(first, dag, "run").state_of("run") == "success"
        assert len(posts(ibm)) == 1


class TestSession:
    """Airflow 3.3 and newer list the registered sessions."""

    def test_a_session_that_accepts_jobs_is_resumed(self, ibm, dag, run):
        IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="1h")
        again = emptied(run(dag), dag, "create")
        assert ibm.state()["accepting"] == list(ibm.sessions) == [again.xcom("create")]

    @pytest.mark.parametrize(
        ("name", "value"), [("backend", "ibm_torino"), ("mode", "batch"), ("max_ttl", "2h")], ids=str
    )
    def test_with_other_input_the_old_one_is_closed(self, ibm, dag, run, name, value):
        operator = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="1h")
        first = run(dag)
        setattr(operator, name, value)
        again = emptied(first, dag, "create")
        old, new = ibm.sessions.values()
        assert (old.state, new.accepts_jobs, new.id) == ("closed", True, again.xcom("create"))

    def test_the_sessions_of_other_tasks_are_left_alone(self, ibm, dag, run):
        for name in ("create", "other"):
            IBMQuantumCreateSessionOperator(task_id=name, backend="ibm_fez", max_ttl="1h")
        emptied(run(dag), dag, "create")
        assert len(ibm.state()["accepting"]) == len(ibm.sessions) == 2

    def test_a_closed_one_is_not_resumed(self, ibm, dag, run):
        opened = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="1h")
        IBMQuantumCloseSessionOperator(task_id="close", session_id=opened.output)
        again = emptied(run(dag), dag, "create")
        assert ibm.state()["accepting"] == list(ibm.sessions)[1:] == [again.xcom("create")]

    def test_that_of_a_function_is_closed_before_another_is_opened(self, ibm, dag, run, monkeypatch):
        monkeypatch.setattr(IBMQuantumHook, "qiskit_session", lambda _, session_id, **_kwargs: session_id)
        with dag:

            @task.ibm_quantum_session(backend="ibm_fez", max_ttl="20m")
            def work(session):
                return session

            work()
        ibm.script(Fault("PATCH", "*", status=403, times=None), Fault("DELETE", "*", status=403, times=None))
        first = run(dag)
        assert first.state == "failed"
        assert len(ibm.state()["accepting"]) == 1
        ibm.clear_faults()
        again = emptied(first, dag, "work")
        assert again.state_of("work") == "success"
        assert states(ibm) == ["closed", "closed"]


def test_after_it_the_known_sessions_are_not_taken_for_all(ibm, dag, run, monkeypatch):
    """A job may be in a session that no record names: it is looked for by its tag before it is submitted."""
    run_jobs()
    with monkeypatch.context() as failing:
        fails_once(failing, TaskState, "mark_finished")
        first = run(dag)
    with monkeypatch.context() as failing:
        fails_once(failing, TaskState, "mark_finished")
        second = emptied(first, dag, "run")
    assert second.state_of("run") == "failed"
    no_jobs = {"jobs": [], "count": 0, "limit": 200, "offset": 0}
    ibm.script(Fault("GET", "/v1/jobs", json=no_jobs))
    third = cleared(second, dag, "run")
    assert third.state_of("run") == "success"
    assert [report["id"] for report in third.xcom("run")] == list(ibm.jobs)
    assert len(posts(ibm)) == 3
