# SPDX-License-Identifier: Apache-2.0
"""What becomes of jobs when their trigger leaves a triggerer, for which Airflow calls ``on_kill``."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from airflow_provider_ibm_sessions.client.retries import RetryPolicy
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.operators.job import IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger
from testing.airflow_runs import create_dag_run, serialize
from testing.fake_ibm import Fault
from testing.triggerer import cancel_trigger

pytestmark = pytest.mark.usefixtures("connection", "airflow_db", "supervisor")

JOB = {"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0; bit[2] meas; qubit[2] q;", None, 10]]}}

GOING_ON = [
    "deferred",
    None,
    "scheduled",
    "queued",
    "running",
    "up_for_retry",
    "up_for_reschedule",
    "restarting",
]
SECONDS = 60
FINISHED_TASK_STATES = ["failed", "success", "skipped", "upstream_failed", "removed"]


class Begun:
    """A session with three jobs, two of which run; and the trigger of the task that waits for them."""

    def __init__(self, ibm):
        ibm.settings.job_seconds = 600
        ibm.settings.lanes = 2
        self.ibm = ibm
        hook = IBMQuantumHook()
        self.session_id = hook.create_session("ibm_fez").id
        submit = {"backend": "ibm_fez", "session_id": self.session_id}
        self.job_ids = [hook.submit_job(**JOB, **submit).id for _ in range(3)]
        self.before = self.facts()
        self.requests = len(ibm.journal)

    def facts(self):
        [session] = self.ibm.sessions.values()
        return session.state, [job.status for job in self.ibm.jobs.values()]

    def trigger(self, task_instance=None, **changes):
        trigger = IBMQuantumJobTrigger(
            **{
                "job_ids": self.job_ids,
                "session_id": self.session_id,
                "cancel_on_kill": True,
                "owns_session": True,
                "end_time": time.time() + 60,
                "poll_interval": 0.1,
                "ibm_quantum_conn_id": "ibm_quantum_default",
                **changes,
            }
        )
        trigger.task_instance = task_instance
        return trigger

    def assert_untouched(self):
        assert self.facts() == self.before == ("active", ["Running", "Running", "Queued"])
        assert self.ibm.requests("DELETE") == []
        assert self.ibm.requests("POST", "/v1/jobs/*/cancel") == []

    def assert_ended(self):
        assert self.facts() == ("closed", ["Cancelled", "Cancelled", "Failed"])


@pytest.fixture
def begun(ibm):
    return Begun(ibm)


@pytest.fixture
def task_instance(dag, airflow_db):
    """
    A task instance in Airflow's database, in a state: ``task_instance(state)``.

    With several states, there are as many tasks, or instances of a mapped one.
    """

    def put(*states, mapped=False):
        task = {"program_id": "sampler", "backend": "ibm_fez"}
        if mapped:
            each = IBMQuantumSubmitJobOperator.partial(task_id="wait", **task)
            each.expand(program_params=[JOB["params"]] * len(states))
        else:
            for number, _ in enumerate(states):
                IBMQuantumSubmitJobOperator(task_id=f"wait_{number}", program_params=JOB["params"], **task)
        serialize(dag)
        create_dag_run(dag, "run")
        found = [
            _put(dag, "wait" if mapped else f"wait_{number}", number if mapped else -1, state)
            for number, state in enumerate(states)
        ]
        return found if len(states) > 1 else found[0]

    return put


def _put(dag, task_id, map_index, state):
    """Set the state; returns the task instance as a triggerer gets it."""
    from airflow.executors.workloads import TaskInstanceDTO
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(TaskInstance).where(
            TaskInstance.dag_id == dag.dag_id,
            TaskInstance.task_id == task_id,
            TaskInstance.map_index == map_index,
        )
        ti = session.scalars(query).one()
        ti.state = state
        session.flush()
        return TaskInstanceDTO.model_validate(ti, from_attributes=True)


def test_a_trigger_that_another_triggerer_has_taken_over_ends_nothing(begun, task_instance):
    cancel_trigger(begun.trigger(task_instance("deferred")))
    begun.assert_untouched()


def test_a_trigger_whose_task_a_user_has_failed_ends_all(begun, task_instance):
    cancel_trigger(begun.trigger(task_instance("failed")))
    begun.assert_ended()


def test_a_trigger_that_is_cancelled_while_it_ends_all_goes_on_with_that(begun, task_instance):
    """Airflow 3.3.2's supervisor asks for a trigger's end again each second, until it has ended."""
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    begun.ibm.latency = 0.2
    trigger = begun.trigger(task_instance("failed"))

    async def triggerer():
        runner = TriggerRunner()
        runner.triggers[7] = {"name": "seven", "events": 0, "is_watcher": False}
        watching = runner.triggers[7]["task"] = asyncio.create_task(runner.run_trigger(7, trigger))
        while not watching.done():
            await asyncio.sleep(0.3)
            runner.to_cancel.append(7)
            await runner.cancel_triggers()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task(), watching}))

    asyncio.run(triggerer())
    begun.assert_ended()


def test_a_trigger_whose_task_was_cleared_ends_nothing(begun, task_instance):
    cancel_trigger(begun.trigger(task_instance(None)))
    begun.assert_untouched()


@pytest.mark.parametrize("state", GOING_ON, ids=str)
def test_while_the_task_goes_on_nothing_is_ended(begun, task_instance, state):
    asyncio.run(begun.trigger(task_instance(state)).on_kill())
    begun.assert_untouched()
    assert len(begun.ibm.journal) == begun.requests


@pytest.mark.parametrize("state", FINISHED_TASK_STATES)
def test_when_the_task_is_over_all_is_ended(begun, task_instance, state):
    asyncio.run(begun.trigger(task_instance(state)).on_kill())
    begun.assert_ended()


def test_the_state_of_another_mapped_task_does_not_matter(begun, task_instance):
    deferred, failed = task_instance("deferred", "failed", mapped=True)
    asyncio.run(begun.trigger(deferred).on_kill())
    begun.assert_untouched()
    asyncio.run(begun.trigger(failed).on_kill())
    begun.assert_ended()


def test_a_task_whose_run_was_deleted_is_over(begun, task_instance):
    deleted = task_instance("deferred").model_copy(update={"run_id": "deleted"})
    asyncio.run(begun.trigger(deleted).on_kill())
    begun.assert_ended()


def test_without_a_task_it_ends_all(begun):
    cancel_trigger(begun.trigger(None))
    begun.assert_ended()


def test_without_an_answer_the_jobs_run_on_and_the_session_takes_no_more(
    begun, task_instance, monkeypatch, output
):
    """Another triggerer may wait for them. If not, the session closes itself with its last one."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def fail(**_):
        raise RuntimeError("Airflow's API: 503")

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", fail)
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.job._STATE_DELAYS", (0.0, 0.0))
    asyncio.run(begun.trigger(task_instance("deferred")).on_kill())
    begun.assert_untouched()
    assert not begun.ibm.sessions[begun.session_id].accepting_jobs
    assert "Airflow does not answer whether the task of jobs" in output()


@pytest.mark.parametrize(("state", "accepts_jobs"), [("failed", False), ("running", True)])
def test_who_declines_leaves_no_session_that_takes_jobs_once_the_task_is_over(
    begun, task_instance, state, accepts_jobs
):
    asyncio.run(begun.trigger(task_instance(state), cancel_on_kill=False).on_kill())
    begun.assert_untouched()
    assert begun.ibm.sessions[begun.session_id].accepting_jobs is accepts_jobs


def test_it_asks_again_for_the_state_of_the_task(begun, task_instance, monkeypatch):
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    failures, ask = [RuntimeError("Airflow's API: 503")] * 2, RuntimeTaskInstance.get_task_states

    def fail_twice(**query):
        if failures:
            raise failures.pop()
        return ask(**query)

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", fail_twice)
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.job._STATE_DELAYS", (0.0, 0.0, 0.0))
    asyncio.run(begun.trigger(task_instance("failed")).on_kill())
    begun.assert_ended()


def test_hundreds_that_are_killed_leave_the_event_loops_threads_to_airflow(begun, task_instance, monkeypatch):
    """Airflow writes a trigger's log in them before it calls ``on_kill``, and cancels it again meanwhile."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    answered, ask = threading.Event(), RuntimeTaskInstance.get_task_states

    def ask_late(**query):
        answered.wait(SECONDS)
        return ask(**query)

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", ask_late)
    instance = task_instance("deferred")

    async def kill():
        kills = [asyncio.create_task(begun.trigger(instance).on_kill()) for _ in range(100)]
        await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.wait_for(asyncio.to_thread(lambda: None), SECONDS / 2)
        assert not any(each.done() for each in kills)
        answered.set()
        await asyncio.gather(*kills)

    asyncio.run(kill())
    begun.assert_untouched()


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "not mapped"])
def test_hundreds_that_are_killed_ask_for_their_states_together(begun, task_instance, monkeypatch, mapped):
    """Airflow gives all of them the same 30 s, and its triggerer asks one question after the other."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    asked, ask = [], RuntimeTaskInstance.get_task_states
    is_asked, all_wait = threading.Event(), threading.Event()

    def hold(**query):
        asked.append(query)
        is_asked.set()
        all_wait.wait(SECONDS)
        return ask(**query)

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", hold)
    *deferred, failed = task_instance(*["deferred"] * 100, "failed", mapped=mapped)

    async def kill():
        first = asyncio.create_task(begun.trigger(deferred[0]).on_kill())
        await asyncio.to_thread(is_asked.wait, SECONDS)
        others = [asyncio.create_task(begun.trigger(each).on_kill()) for each in deferred[1:]]
        for _ in range(5):  # each on_kill starts a task of its own
            await asyncio.sleep(0)
        all_wait.set()
        await asyncio.gather(first, *others)
        begun.assert_untouched()
        assert len(asked) == 2, "the first, and one for all that came meanwhile"
        await begun.trigger(failed).on_kill()

    asyncio.run(kill())
    begun.assert_ended()


def test_an_airflow_that_never_answers_is_not_waited_for(begun, task_instance, monkeypatch):
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    answered = threading.Event()
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: answered.wait(SECONDS))
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.job._STATE_TIMEOUT", 0.2)
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.job._STATE_DELAYS", (0.0, 0.0))
    asyncio.run(begun.trigger(task_instance("deferred")).on_kill())
    answered.set()
    begun.assert_untouched()
    assert not begun.ibm.sessions[begun.session_id].accepting_jobs


def test_a_triggerer_without_a_free_thread_asks_again(begun, task_instance, monkeypatch):
    from airflow_provider_ibm_sessions.triggers import task_states

    refusals, submit = [RuntimeError("can't start new thread")], task_states._THREADS.submit

    def refuse_once(*call):
        if refusals:
            raise refusals.pop()
        return submit(*call)

    monkeypatch.setattr(task_states._THREADS, "submit", refuse_once)
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.job._STATE_DELAYS", (0.0, 0.0))
    asyncio.run(begun.trigger(task_instance("failed")).on_kill())
    begun.assert_ended()


def test_a_triggerer_that_is_shut_down_ends_nothing(begun, task_instance):
    """Airflow cancels its triggers then without a word: another triggerer starts them anew."""
    trigger = begun.trigger(task_instance("deferred"))

    async def shut_down():
        watching = asyncio.create_task(anext(trigger.run()))
        await asyncio.sleep(0.3)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    asyncio.run(shut_down())
    begun.assert_untouched()


class TestThirtySeconds:
    """Airflow gives ``on_kill`` no more, so it does not try for ever."""

    @pytest.fixture(autouse=True)
    def short(self, monkeypatch):
        policy = RetryPolicy(max_elapsed=0.5, initial_backoff=0.05, max_backoff=0.1)
        monkeypatch.setattr("airflow_provider_ibm_sessions.hooks.ibm_quantum._SHORT_RETRIES", policy)

    def test_a_session_that_cannot_be_closed_does_not_keep_its_jobs_running(
        self, begun, task_instance, output
    ):
        begun.ibm.script(Fault("DELETE", "*", times=None, status=503))
        trigger = begun.trigger(task_instance("failed"))
        asyncio.run(asyncio.wait_for(trigger.on_kill(), 10))
        assert begun.facts()[1] == ["Cancelled"] * 3
        assert len(begun.ibm.requests("DELETE")) > 1, "it was tried again"
        assert "Close a session" in output()

    def test_jobs_that_cannot_be_listed_are_cancelled_by_their_ids(self, begun):
        begun.ibm.script(Fault("GET", "/v1/jobs", times=None, status=503))
        asyncio.run(asyncio.wait_for(begun.trigger().on_kill(), 10))
        begun.assert_ended()

    def test_an_ibm_that_is_away_is_left_in_time(self, begun, output):
        begun.ibm.script(Fault(path="/v1/*", times=None, status=503))
        asyncio.run(asyncio.wait_for(begun.trigger().on_kill(), 10))
        assert "HTTP 503" in output()

    def test_the_real_limits_leave_time_for_more_than_the_session(self):
        from airflow.jobs.triggerer_job_runner import _ON_CANCEL_TIMEOUT

        from airflow_provider_ibm_sessions.hooks import ibm_quantum

        assert ibm_quantum._TRIGGER_KILL_TIMEOUT * 2 < _ON_CANCEL_TIMEOUT
