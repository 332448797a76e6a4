# SPDX-License-Identifier: Apache-2.0
"""Create, update and close sessions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_ibm_sessions.client.enums import SessionState
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError, NotFoundError
from airflow_provider_ibm_sessions.client.validation import (
    DEFAULT_MAX_TTL,
    to_seconds,
    validate_bool,
    validate_id,
)
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors
from airflow_provider_ibm_sessions.lifecycle.session import discard_previous_run, resume_session
from airflow_provider_ibm_sessions.lifecycle.task_mixin import DEFAULT_DEFERRABLE
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.lifecycle.usage import push_session_usage
from airflow_provider_ibm_sessions.operators.base import (
    IBMQuantumOperator,
    SessionOwnerOperator,
    WaitingOperator,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger


class IBMQuantumCreateSessionOperator(SessionOwnerOperator, IBMQuantumOperator):
    """
    Open a session, or a batch, on a QPU. Returns its id; the XCom ``session`` holds the details.

    Pair it with a close operator as teardown, and let something come after that, so that its failure is one
    of the Dag run: ``close.as_teardown(setups=create) >> EmptyOperator(task_id="closed")``.

    A retry, and clearing the task, resume the session as long as it accepts jobs. Arguments are those of
    :class:`SessionOwnerOperator` and :class:`IBMQuantumOperator`.

    :param deferrable: Wait for usage (``on_low_usage="wait"``) in the triggerer, without a worker slot.
    """

    dag_run_scoped = True

    def __init__(self, *, deferrable: bool = DEFAULT_DEFERRABLE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deferrable = validate_bool(deferrable, "deferrable")

    def execute(self, context: Context) -> str:
        """Open the session, or resume that of an earlier try."""
        state = TaskState.load(context, self.task_id)
        with raise_as_airflow_errors():
            session_args = self.session_args(context)
            if state.input_has_changed(session_args):
                discard_previous_run(self.hook, state, dag_run_scoped=True)
            state.resume_or_start(session_args)
            session = resume_session(self.hook, context, state, session_args)
            if session is None:
                self._warn_if_never_closed(context)
                session = self.open_session(context, state, session_args)
            else:
                self.log.info("Resuming session %s of an earlier try", session.id)
                self.hook.register_session(session.id)
                self.take_session(context, session)
        # Not marked as finished: while its session accepts jobs, clearing the task resumes that.
        state.mark_returned()
        return session.id

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Return no session that a kill has closed since. Called by Airflow after ``execute()``."""
        self.raise_if_killed()

    def _warn_if_never_closed(self, context: Context) -> None:
        enders = IBMQuantumCloseSessionOperator | IBMQuantumUpdateSessionOperator
        if not any(isinstance(task, enders) for task in context["dag"].tasks):
            self.log.warning(
                "No task of this Dag closes the session that %s opens. Add an IBMQuantumCloseSessionOperator "
                "as its teardown",
                self.task_id,
            )


class IBMQuantumUpdateSessionOperator(IBMQuantumOperator):
    """
    Make a session refuse new jobs, or accept them again. Returns the session's id.

    :param session_id: The session. (templated)
    :param accepting_jobs: False drains: queued jobs run, then the session closes itself. True takes back a
        drain that has not ended; a closed session stays closed. (templated)

    Further arguments are those of :class:`IBMQuantumOperator`.
    """

    template_fields: Sequence[str] = ("session_id", "accepting_jobs", "ibm_quantum_conn_id")

    def __init__(self, *, session_id: str, accepting_jobs: bool | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.session_id = session_id
        self.accepting_jobs = accepting_jobs
        self.check_literals(
            session_id=validate_id, accepting_jobs=partial(validate_bool, field="accepting_jobs")
        )

    def execute(self, context: Context) -> str:
        """Send the one flag that IBM lets change."""
        with raise_as_airflow_errors():
            accepting = validate_bool(self.accepting_jobs, "accepting_jobs")
            self.hook.update_session(validate_id(self.session_id), accepting_jobs=accepting)
        self.log.info("Session %s %s", self.session_id, "accepts jobs" if accepting else "is draining")
        return self.session_id


class IBMQuantumCloseSessionOperator(WaitingOperator, IBMQuantumOperator):
    """
    Close a session and confirm it. Returns its last details.

    Closing is final at once: queued jobs never run, running ones finish. With ``drain``, queued jobs run
    first. The request is repeated until reading the session confirms it; closing a closed session is fine.
    Made to be a teardown: ``close.as_teardown(setups=create) >> EmptyOperator(task_id="closed")``.

    An id that neither IBM nor the registry of this Airflow knows is an error. None is returned for a session
    that was opened by this Airflow and is unknown to IBM.

    :param session_id: The session. (templated)
    :param drain: Let queued jobs run, wait until the session has closed itself, and close it hard if it
        has not by ``timeout``. (templated)
    :param timeout: Seconds to wait for a draining session, queueing included, before its remaining jobs are
        given up. If ``execution_timeout`` strikes while the task is in a worker, the session is closed then;
        Airflow does not count the time in the triggerer.
    :param settle_usage: When the session is closed, wait that long at most until IBM's usage is final:
        seconds, a timedelta or text such as ``"15m"``. None: the XCom ``usage`` may be provisional.
    :param retries: As for any task; by default 10, over about 15 minutes.

    Further arguments are those of :class:`WaitingOperator` and :class:`IBMQuantumOperator`.
    """

    template_fields: Sequence[str] = ("session_id", "drain", "ibm_quantum_conn_id")

    returns_dict = True

    def __init__(
        self,
        *,
        session_id: str,
        drain: bool | str = False,
        timeout: float | timedelta = DEFAULT_MAX_TTL,
        settle_usage: int | str | timedelta | None = None,
        retries: int | None = 10,
        retry_delay: timedelta | float = timedelta(seconds=10),
        max_retry_delay: timedelta | float | None = timedelta(seconds=150),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            timeout=timeout,
            retries=retries,
            retry_delay=retry_delay,
            max_retry_delay=max_retry_delay,
            **kwargs,
        )
        self.session_id = session_id
        self.drain = drain
        self.settle_usage = None if settle_usage is None else to_seconds(settle_usage, "settle_usage")
        self.check_literals(session_id=validate_id, drain=partial(validate_bool, field="drain"))

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Drain if asked to, then close and confirm."""
        with raise_as_airflow_errors():
            validate_id(self.session_id)
            drain = validate_bool(self.drain, "drain")
        try:
            if drain and (event := self._drain(context)):
                return self.execute_complete(context, event)
        except AirflowTaskTimeout:
            self.log.warning("execution_timeout struck: closing session %s without waiting", self.session_id)
            push_session_usage(context, self.hook, self._close())
            raise
        return self._report(context, self._close())

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return the session that has closed itself; close it if it has not by the deadline."""
        event = self.settle_event(event)
        if event["status"] == "success":
            from airflow_provider_ibm_sessions.client.models.sessions import Session

            return self._report(context, self._close(Session.model_validate(event["session"])))
        self.log.warning("%s: closing session %s", event["message"], self.session_id)
        return self._report(context, self._close())

    def complete_usage(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Report on the closed session, with its usage as it is when the waiting for it has ended."""
        event = event or {}
        try:
            session = self.hook.settle_session(self.session_id)
        except Exception:  # the session is closed, and its usage is in the XCom as it was then
            self.log.warning("The usage of session %s was not read again", self.session_id, exc_info=True)
            return event.get("session") or event.get("resume_data")
        push_session_usage(context, self.hook, session)
        return session.to_json()

    def trigger(self, end_time: float) -> IBMQuantumSessionTrigger:
        """Return the trigger that waits until the session has closed itself."""
        from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger

        return IBMQuantumSessionTrigger(
            session_id=self.session_id,
            target_states=[SessionState.CLOSED],
            end_time=end_time,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )

    def _drain(self, context: Context) -> dict[str, Any] | None:
        """
        Let the queued jobs run, and wait for them.

        :returns: The trigger's event, or None if there is nothing to wait for.
        """
        try:
            self.hook.update_session(self.session_id, accepting_jobs=False)
        except IBMQuantumError as error:
            # What cannot be drained would cost until its max_ttl.
            self.log.warning("Session %s cannot be drained, closing it at once: %s", self.session_id, error)
            return None
        self.show_session(context, self.session_id)
        return self.wait(time.time() + self.timeout)

    def _report(self, context: Context, session: Session | None) -> dict[str, Any] | None:
        """Push what the session has used, wait for IBM's usage to be final if asked to, and report on it."""
        usage = push_session_usage(context, self.hook, session)
        if session is None:
            return None
        if not self.settle_usage or usage.settled:
            return session.to_json()
        from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

        trigger = IBMQuantumJobTrigger(
            session_id=session.id,
            settle_seconds=self.settle_usage,
            resume_data=session.to_json(),
            end_time=time.time() + self.settle_usage,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )
        if self.deferrable:
            self.defer(trigger=trigger, method_name="complete_usage", timeout=None)
        trigger.hook = self.hook
        return self.complete_usage(context, trigger.run_here())

    def _close(self, session: Session | None = None) -> Session | None:
        # Everything but wrong input may be gone at the next try, and an open session costs money.
        with raise_as_airflow_errors(final=(ConfigurationError, NotFoundError)):
            if session is not None and session.is_closed:
                session = self.hook.ensure_session_closed(self.session_id, session)
            else:
                session = self.hook.close_session(self.session_id)
        if session is None:
            self.log.warning(
                "Session %s is registered, and unknown to IBM at connection '%s': nothing to close there",
                self.session_id,
                self.ibm_quantum_conn_id,
            )
        elif session.state_reason:
            self.log.info("IBM's reason for the state of session %s: %s", session.id, session.state_reason)
        return session
