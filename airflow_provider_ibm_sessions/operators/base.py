# SPDX-License-Identifier: Apache-2.0
"""What operators have in common: retries, waiting for jobs or sessions, and owning a session."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_ibm_sessions.client.enums import ResultDetail
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.polling import is_transient
from airflow_provider_ibm_sessions.client.validation import (
    DEFAULT_WAIT_TIMEOUT,
    validate_bool,
    validate_choice,
    validate_int,
    validate_seconds,
)
from airflow_provider_ibm_sessions.exceptions import TaskSupersededError
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.lifecycle.session import (
    close_and_cancel,
    close_quietly,
    open_session,
    validate_session_args,
)
from airflow_provider_ibm_sessions.lifecycle.task_mixin import (
    DEFAULT_DEFERRABLE,
    DEFAULT_RETRIES,
    IBMQuantumTaskMixin,
)
from airflow_provider_ibm_sessions.operators._job_results import MAX_XCOM_BYTES, ResultStorage

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
    from airflow_provider_ibm_sessions.triggers.base import IBMQuantumTrigger


class IBMQuantumOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Base of the operators.

    An Airflow API server or an IBM Quantum that is away for a minute fails no task: by default a task is
    retried, with growing delays. All operators are exactly-once, so a retry resumes and pays for nothing
    twice.

    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    :param retries: As for any task; ``default_args`` win over the default.
    :param retry_delay: As for any task.
    :param retry_exponential_backoff: As for any task.
    """

    def __init__(
        self,
        *,
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        retries: int | None = DEFAULT_RETRIES,
        retry_delay: timedelta | float = timedelta(seconds=30),
        retry_exponential_backoff: float = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            retries=retries,
            retry_delay=retry_delay,
            retry_exponential_backoff=retry_exponential_backoff,
            **kwargs,
        )
        self.ibm_quantum_conn_id = ibm_quantum_conn_id


class WaitingOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Base of the operators that wait, in the triggerer or in the worker.

    :param timeout: Seconds, or a timedelta, that a try waits, queueing included.
    :param poll_interval: Seconds between polls, or a timedelta.
    :param deferrable: Wait in the triggerer, without a worker slot.
    """

    def __init__(
        self,
        *,
        timeout: float | timedelta = DEFAULT_WAIT_TIMEOUT,
        poll_interval: float | timedelta = 10,
        deferrable: bool = DEFAULT_DEFERRABLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.timeout = validate_seconds(timeout, "timeout")
        self.poll_interval = validate_seconds(poll_interval, "poll_interval")
        self.deferrable = validate_bool(deferrable, "deferrable")

    @abstractmethod
    def trigger(self, end_time: float) -> IBMQuantumTrigger:
        """Return the trigger that waits for what this task has started."""

    def wait(self, end_time: float) -> dict[str, Any]:
        """
        Wait until the trigger fires, and return its event.

        What is final already is not deferred for. Once deferred, Airflow resumes the task in
        ``execute_complete``.

        :param end_time: Deadline in seconds since the epoch.
        """
        trigger = self._trigger_here(end_time)
        if not self.deferrable:
            return trigger.run_here()
        try:
            event = trigger.poll_once_here()
        except IBMQuantumError as error:
            self.log.warning("%s. Waiting on", error)
            event = (
                None if is_transient(error) else trigger.payload({"status": "error", "message": str(error)})
            )
        if event is None:
            # No timeout here: the deadline inside of the trigger holds, and says what was awaited.
            self.defer(trigger=trigger, method_name="execute_complete", timeout=None)
        return event

    def settle_event(self, event: dict[str, Any] | None) -> dict[str, Any]:
        """
        Return an event that tells how the waiting has ended.

        An error on the triggerer's host, such as a missing connection or an IBM that is away, is no verdict
        on the jobs: this worker polls itself, and waits on.

        :returns: An event with the status ``success``, ``timeout`` or ``error``; the last is final.
        """
        event = event or {}
        event.setdefault("status", "error")
        event.setdefault("message", f"Unexpected trigger event: {event}")
        end_time = event.get("end_time", 0.0)
        while event["status"] == "error" and time.time() < end_time:
            self.log.warning("%s. Polling from this worker", event["message"])
            trigger = self._trigger_here(end_time)
            try:
                found = trigger.poll_once_here()
            except IBMQuantumError as error:
                if not is_transient(error):
                    return {**event, "message": str(error)}
                self.log.warning("%s. Waiting on", error)
                found = None if self.deferrable else trigger.run_here()
            else:
                if found is None and not event.get("retryable"):
                    found = trigger.run_here()  # the triggerer cannot wait, and this worker can
            event = found or self.wait(end_time)
        return event

    def _trigger_here(self, end_time: float) -> IBMQuantumTrigger:
        """Return the trigger on this task's hook, whose connection is looked up outside of the event loop."""
        trigger = self.trigger(end_time)
        trigger.hook = self.hook
        _ = self.hook.credentials
        return trigger


class JobWaitingOperator(WaitingOperator):
    """
    Base of the operators that wait for jobs and return reports on them.

    A report holds IBM's fields of the job (``id``, ``state``, ``usage``, ...), and ``results`` or, where
    there are none, ``error``.

    :param cancel_on_kill: End what the task has started when it is killed, or runs into
        ``execution_timeout``, while it waits. (When it is deferred: in Airflow 3.3 and newer.)
    :param results: ``counts``; ``memory``: also the bits of each shot, in the order of submission; ``raw``:
        IBM's body, unchanged.
    :param results_path: Folder for results that are too large for XCom, as ``ObjectStoragePath`` takes it
        (``s3://conn_id@bucket/folder``); reports then have ``results_path`` in place of ``results``.
        (templated)
    :param results_threshold: Bytes of JSON from which on all results together are too large for XCom.
    """

    def __init__(
        self,
        *,
        cancel_on_kill: bool = True,
        results: str = "counts",
        results_path: str | None = None,
        results_threshold: int = MAX_XCOM_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = validate_bool(cancel_on_kill, "cancel_on_kill")
        self.results = validate_choice(results, ResultDetail, "results")
        self.results_path = results_path
        self.results_threshold = validate_int(results_threshold, "results_threshold", at_least=1)

    @property
    def result_storage(self) -> ResultStorage:
        """Return where results go."""
        return ResultStorage(self.results_path, self.results_threshold, pushes_xcom=self.do_xcom_push)

    def push_reports(self, context: Context, reports: Any) -> None:
        """Push the reports of a task that fails, so that they are not lost."""
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=reports)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render a template. OpenQASM text is none: Jinja would read its braces."""
        if isinstance(content, str) and content.lstrip().startswith("OPENQASM"):
            return content
        return super().render_template(content, *args, **kwargs)


class SessionOwnerOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Base of the tasks that open a session and own it.

    :param backend: Name of the QPU, such as ``ibm_fez``. (templated)
    :param mode: ``dedicated``: the QPU is held, and billed, while the session is active. ``batch``: jobs
        are run one by one, and billed for QPU time only. (templated)
    :param max_ttl: Longest life, counted from the first job's start: seconds, a timedelta, or text such as
        ``"2h 30m"``. It bounds the bill even if Airflow dies. Left out: the Dag's ``dagrun_timeout``, at
        most and else IBM's default of 8 hours. IBM lowers it to the plan's limit; the log then warns.
        (templated)
    """

    template_fields: Sequence[str] = ("backend", "mode", "max_ttl", "ibm_quantum_conn_id")
    dag_run_scoped: ClassVar[bool] = False
    """
    True if the session is for the whole Dag run; else the sweep may close it once the task has finished.
    """

    def __init__(
        self,
        *,
        backend: str,
        mode: str = "dedicated",
        max_ttl: int | str | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backend = backend
        self.mode = mode
        self.max_ttl = max_ttl
        self.session_id: str | None = None

    def session_args(self, context: Context) -> dict[str, Any]:
        """Return the validated arguments that a session is opened with."""
        return validate_session_args(context, backend=self.backend, mode=self.mode, max_ttl=self.max_ttl)

    def open_session(self, context: Context, state: TaskState, session_args: dict[str, Any]) -> Session:
        """Open a session and take hold of it; if that fails or the task was killed, close it again."""
        session = open_session(self.hook, context, state, session_args, dag_run_scoped=self.dag_run_scoped)
        try:
            self.take_session(context, session)
        except TaskSupersededError:
            raise
        except BaseException:  # a timeout or a kill as well: raised again below
            close_quietly(self.hook, session.id)
            raise
        return session

    def take_session(self, context: Context, session: Session) -> None:
        """Link to an open session, show its details, and close it when the task is killed."""
        self.session_id = session.id
        context["ti"].xcom_push(key="session", value=session.to_json())
        self.raise_if_killed()

    def cleanup_on_kill(self, *, fast: bool) -> None:
        """Close the session of a killed task, and cancel its jobs."""
        if self.session_id:
            close_and_cancel(self.hook, self.session_id, fast=fast)
