# SPDX-License-Identifier: Apache-2.0
"""What operators and sensors share: the hook and the button to IBM's console."""

from __future__ import annotations

import logging
import sys
from _thread import start_new_thread
from functools import cached_property
from threading import Event
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout, get_current_context

from airflow_provider_ibm_sessions.exceptions import IBMQuantumTaskError, TaskSupersededError
from airflow_provider_ibm_sessions.lifecycle.kill import another_try_is_active, has_failed
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

log = logging.getLogger(__name__)

# The question may have to wait for the handler's end: the interrupted thread can hold the way to Airflow.
_HANDLER_SECONDS = 1.0
_ASK_SECONDS = 2.5
_THREAD_SECONDS = 30.0


class IBMQuantumTaskMixin:
    """Mixin for tasks on an IBM Quantum connection. They name their session ``session_id``."""

    ibm_quantum_conn_id: str

    operator_extra_links: Collection[BaseOperatorLink] = (IBMQuantumSessionLink(),)
    ui_color = "#d0e2ff"

    _killed: Event | None = None
    """There once the task was killed; set when what it had begun is ended, or left to a successor."""
    _is_superseded = False
    _context: Context | None = None

    def on_kill(self) -> None:
        """
        End what the task has begun, unless another attempt goes on with it.

        Airflow calls this on SIGTERM, and when ``execution_timeout`` strikes.

        On SIGTERM it is in the handler, and the interrupted thread may hold locks that it waits for itself:
        that of Airflow's log, for one. So the work is done in a thread of its own, which waits for them only
        until the handler returns.

        Once ``execute()`` has ended, what was begun is its teardown's to end, or its trigger's: it is ended
        here only if Airflow says that the task has failed all the same.
        """
        self._killed = done = Event()
        timed_out = isinstance(sys.exception(), AirflowTaskTimeout)
        is_running = _is_running()
        is_left = _goes_on_elsewhere if is_running else self._is_left

        def end() -> None:
            try:
                self._is_superseded = _within(_ASK_SECONDS, is_left, without_answer=not is_running)
                if not self._is_superseded:
                    self.end_all(single_attempt=not timed_out)
            finally:
                done.set()

        # Not threading.Thread: to start one takes a lock that the interrupted thread may hold as well.
        start_new_thread(end, ())
        done.wait(None if timed_out else _HANDLER_SECONDS)

    def pre_execute(self, context: Any) -> None:
        """Called by Airflow before ``execute()``."""
        self._context = context

    def _is_left(self) -> bool:
        return self._context is None or not has_failed(self._context)

    def end_all(self, *, single_attempt: bool) -> None:
        """
        End what the task has begun.

        :param single_attempt: In the few seconds after SIGTERM; at ``execution_timeout``, Airflow waits.
        """

    def raise_if_killed(self) -> None:
        """
        Called before something new is begun: after the signal to end, Airflow lets a task run on for a while.

        :raises TaskSupersededError: If the task was killed, and another attempt goes on with it.
        :raises IBMQuantumTaskError: If the task was killed. A worker that is shut down kills its tasks as
            well, so a retry is right; where a user did it, Airflow has decided already.
        """
        if not self._killed:
            return
        self._killed.wait(_THREAD_SECONDS)
        if self._is_superseded:
            raise TaskSupersededError("The task was killed here: another attempt goes on with it")
        raise IBMQuantumTaskError("The task was killed")

    @cached_property
    def hook(self) -> IBMQuantumHook:
        """The hook on the task's connection."""
        # Imported here: Dag files are parsed again and again, and parsing them needs no HTTP client.
        from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

        return IBMQuantumHook(self.ibm_quantum_conn_id)


def _goes_on_elsewhere() -> bool:
    return another_try_is_active(get_current_context())


def _is_running() -> bool:
    """Whether Airflow is in ``execute()``, or in what takes its place after a deferral."""
    try:
        get_current_context()
    except RuntimeError:
        return False
    return True


def _within(seconds: float, ask: Callable[[], bool], *, without_answer: bool = False) -> bool:
    """
    The answer, if there is one in time.

    :param without_answer: What holds else. What nobody surely goes on with is ended, while the task runs.
    """
    answers: list[bool] = []
    answered = Event()

    def run() -> None:
        try:
            answers.append(ask())
        except Exception:
            log.warning("Cannot tell whether the task goes on elsewhere", exc_info=True)
        finally:
            answered.set()

    start_new_thread(run, ())
    answered.wait(seconds)
    return answers[0] if answers else without_answer
