# SPDX-License-Identifier: Apache-2.0
"""
Clean up after a killed task, unless another try goes on with its work.

A scheduler that has given a worker up, a user who clears a task, and a triggerer that hands its triggers over
all end a process while another try of the task is active: the session and its jobs are then that try's.
"""

from __future__ import annotations

import logging
import sys
from _thread import start_new_thread
from threading import Event
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout, get_current_context

from airflow_provider_ibm_sessions.exceptions import IBMQuantumTaskError, TaskSupersededError
from airflow_provider_ibm_sessions.hooks.owner_lookup import FINISHED_TASK_STATES, read_task_states
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState, is_last_try

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

# The question may have to wait for the handler's end: the interrupted thread can hold the connection to
# Airflow.
_HANDLER_TIMEOUT = 1.0
_QUESTION_TIMEOUT = 2.5
_CLEANUP_TIMEOUT = 30.0


class Kill:
    """
    The end of a task by SIGTERM or by ``execution_timeout``, in a thread of its own.

    On SIGTERM, Airflow calls ``on_kill`` inside of the signal's handler, and the interrupted thread may hold
    locks that the cleanup waits for: that of Airflow's log, for one. So the cleanup runs beside the handler,
    which waits for it for a second only.

    :param context: The task's context, as far as it is known.
    :param cleanup: Called unless another try is active, with ``fast=True`` in the few seconds after SIGTERM.
    :param leave_to_retry: Called in its place after SIGTERM if Airflow does not answer, and a retry follows.
        Airflow sends SIGTERM as well when its own API server is away: that is no reason to cancel jobs.
    """

    def __init__(
        self,
        context: Context | None,
        cleanup: Callable[..., None],
        leave_to_retry: Callable[[], None] | None = None,
    ) -> None:
        self._context = context
        self._cleanup = cleanup
        self._leave_to_retry = leave_to_retry
        self._done = Event()
        self.is_superseded = False
        """True once it is known that another try is active."""
        self.is_left_to_retry = False
        """True if the jobs run on, since Airflow did not answer."""

    def run(self) -> None:
        """Start the cleanup, and wait for it as long as may be."""
        timed_out = isinstance(sys.exception(), AirflowTaskTimeout)
        try:
            get_current_context()
            keep_unless_answered = False
            keeps_work = self._another_try_is_active
        except RuntimeError:
            # After execute(), the work is the teardown's or the trigger's to end, unless the task has failed.
            keep_unless_answered = True
            keeps_work = self._has_not_failed

        def clean_up() -> None:
            try:
                answer = _call_with_timeout(keeps_work)
                self.is_superseded = keep_unless_answered if answer is None else answer
                if self.is_superseded:
                    return
                if answer is None and self._leave_to_retry and self._retry_follows() and not timed_out:
                    self.is_left_to_retry = True
                    self._leave_to_retry()
                else:
                    self._cleanup(fast=not timed_out)
            finally:
                self._done.set()

        # Not threading.Thread: to start one takes a lock that the interrupted thread may hold as well.
        start_new_thread(clean_up, ())
        self._done.wait(None if timed_out else _HANDLER_TIMEOUT)

    def leaves_work(self) -> bool:
        """Wait for the cleanup; return True if it has left the session and its jobs to another try."""
        self._done.wait(_CLEANUP_TIMEOUT)
        return self.is_superseded or self.is_left_to_retry

    def raise_from(self) -> None:
        """
        Wait for the cleanup, and raise what ends the task.

        :raises TaskSupersededError: If another try is active: the session and its jobs are left to it.
        :raises IBMQuantumTaskError: Else. A worker that is shut down kills its tasks as well, so a retry is
            right; where a user did it, Airflow has decided already.
        """
        self._done.wait(_CLEANUP_TIMEOUT)
        if self.is_superseded:
            raise TaskSupersededError("This try was killed but another is active; its session is left open")
        if self.is_left_to_retry:
            raise IBMQuantumTaskError("The task was killed while Airflow did not answer; its retry goes on")
        raise IBMQuantumTaskError("The task was killed; what it had started was ended")

    def _another_try_is_active(self) -> bool:
        return another_try_is_active(self._context or get_current_context())

    def _retry_follows(self) -> bool:
        return self._context is not None and not is_last_try(self._context["ti"])

    def _has_not_failed(self) -> bool:
        return self._context is None or not has_failed(self._context)


def another_try_is_active(context: Context) -> bool:
    """
    Return True if another try of the running task has started, or is about to. Ask Airflow's API.

    Before Airflow 3.3 it is not known, nor may Airflow be asked there while the task asks something else.
    """
    if not TaskState(context).is_durable:
        return False
    states = _states_of(context["ti"])
    if not states or states.intersection(FINISHED_TASK_STATES):
        return False
    # "running" is this try itself, unless a later one has started.
    return "running" not in states or any(state.is_superseded for state in TaskState.load_all(context))


def is_superseded(context: Context | None) -> bool:
    """
    Return True if Airflow says that another try of the task is active. An error is logged, and means no.

    A try that Airflow has given up may run on for a while: until its worker hears of it.
    """
    try:
        return context is not None and another_try_is_active(context)
    except Exception:  # whatever failed, the cleanup is to go on
        log.warning("Airflow does not answer whether another try of the task is active", exc_info=True)
        return False


def has_failed(context: Context) -> bool:
    """
    Return True if the task is final, and not successful: because a user has marked it, say. Ask Airflow's
    API.

    Before Airflow 3.3 it is not known.
    """
    if not TaskState(context).is_durable:
        return False
    return bool(_states_of(context["ti"]).intersection(FINISHED_TASK_STATES) - {"success"})


def _states_of(ti: Any) -> set[str]:
    """Return the state of the task as Airflow has it now; nothing if its run was deleted."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = read_task_states(RuntimeTaskInstance, ti.dag_id, [ti.task_id], [ti.run_id], ti.map_index)
    return {str(state or "cleared") for state in states.values()}


def _call_with_timeout(question: Callable[[], bool]) -> bool | None:
    """Return the answer to a question, or None if Airflow does not answer in time."""
    answers: list[bool] = []
    answered = Event()

    def ask() -> None:
        try:
            answers.append(question())
        except Exception:  # whatever failed, the cleanup is to go on
            log.warning("Airflow does not answer whether another try of the task is active", exc_info=True)
        finally:
            answered.set()

    start_new_thread(ask, ())
    answered.wait(_QUESTION_TIMEOUT)
    return answers[0] if answers else None
