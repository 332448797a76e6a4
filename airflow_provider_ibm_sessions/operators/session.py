# SPDX-License-Identifier: Apache-2.0
"""Create, update and close sessions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowTaskTimeout,
    BaseOperator,
    conf,
)

from airflow_provider_ibm_sessions.client.enums import SessionState
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError
from airflow_provider_ibm_sessions.client.polling import is_transient
from airflow_provider_ibm_sessions.client.validation import (
    DEFAULT_MAX_TTL,
    validate_bool,
    validate_id,
    validate_seconds,
)
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.hooks.session_registry import enter
from airflow_provider_ibm_sessions.lifecycle.session import (
    SESSION,
    close,
    end_all,
    end_forsaken,
    get_if_accepting_jobs,
    open_session,
    validate_session_args,
)
from airflow_provider_ibm_sessions.lifecycle.task_mixin import IBMQuantumTaskMixin
from airflow_provider_ibm_sessions.lifecycle.task_state import Attempt
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models.sessions import Session


class IBMQuantumCreateSessionOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Opens a session, or a batch, on a QPU. Returns its id; the XCom ``session`` holds the details.

    Pair it with a close operator as teardown, and let something come after that, so that its failure is one
    of the Dag run: ``close.as_teardown(setups=create) >> EmptyOperator(task_id="closed")``.

    :param backend: Name of the QPU, such as ``ibm_fez``. (templated)
    :param mode: ``dedicated``: the QPU is held, and billed, while the session is active. ``batch``: jobs
        are run one by one, and billed for QPU time only. (templated)
    :param max_ttl: Longest life, counted from the first job's start: seconds, a timedelta, or text such as
        ``"2h 30m"``. It bounds the bill even if Airflow dies. Left out: the Dag's ``dagrun_timeout``, at
        most and else IBM's default of 8 hours. IBM lowers it to the plan's limit; the log then warns.
        (templated)
    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    """

    template_fields: Sequence[str] = ("backend", "mode", "max_ttl", "ibm_quantum_conn_id")

    def __init__(
        self,
        *,
        backend: str,
        mode: str = "dedicated",
        max_ttl: int | str | timedelta | None = None,
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.backend = backend
        self.mode = mode
        self.max_ttl = max_ttl
        self.session_id: str | None = None

    def execute(self, context: Context) -> str:
        """Open the session, or go on with that of an earlier attempt."""
        attempt = Attempt(context)
        with raise_as_airflow_errors():
            wanted = validate_session_args(
                context, backend=self.backend, mode=self.mode, max_ttl=self.max_ttl
            )
            attempt.begin(wanted)
            end_forsaken(self.hook, context, attempt)
            before = attempt.recall(SESSION)
            session = get_if_accepting_jobs(self.hook, before) if before else None
            if session is None:
                session = open_session(
                    self.hook, context, attempt, wanted, lambda opened: self._keep(context, opened)
                )
            else:
                self.log.info("Session %s was opened by an earlier attempt: going on with it", session.id)
                self._keep(context, session)
        # Never noted as delivered: while its session takes jobs, clearing the task takes that up as well.
        return session.id

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Called by Airflow after ``execute()``: a session that a kill has closed since is not handed on."""
        self.raise_if_killed()

    def end_all(self, *, single_attempt: bool) -> None:
        """Close the session of a killed task; once the task has ended, that is its teardown's to do."""
        if self.session_id:
            end_all(self.hook, self.session_id, single_attempt=single_attempt)

    def _keep(self, context: Context, session: Session) -> None:
        self.session_id = session.id
        enter(context, session.id, self.ibm_quantum_conn_id, dag_run_scoped=True)
        context["ti"].xcom_push(key="session", value=session.to_json())
        self.raise_if_killed()


class IBMQuantumUpdateSessionOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Makes a session refuse new jobs, or take them again. Returns the session's id.

    :param session_id: The session. (templated)
    :param accepting_jobs: False drains: queued jobs run, then the session closes itself. True takes back a
        drain that has not ended; a closed session stays closed. (templated)
    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    """

    template_fields: Sequence[str] = ("session_id", "accepting_jobs", "ibm_quantum_conn_id")

    def __init__(
        self,
        *,
        session_id: str,
        accepting_jobs: bool | str,
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.session_id = session_id
        self.accepting_jobs = accepting_jobs

    def execute(self, context: Context) -> str:
        """Send the one flag that IBM lets change."""
        with raise_as_airflow_errors():
            accepting = validate_bool(self.accepting_jobs, "accepting_jobs")
            self.hook.update_session(validate_id(self.session_id), accepting_jobs=accepting)
        self.log.info("Session %s was told to %s", self.session_id, "take jobs" if accepting else "drain")
        return self.session_id


class IBMQuantumCloseSessionOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Closes a session for certain. Returns its last details, or None if IBM does not know it.

    Closing is final at once: queued jobs never run, running ones finish. With ``drain``, queued jobs run
    first. Sent again until reading the session confirms it; closing a closed session is fine. Made to be a
    teardown: ``close.as_teardown(setups=create) >> EmptyOperator(task_id="closed")``.

    :param session_id: The session. (templated)
    :param drain: Let queued jobs run, wait until the session has closed itself, and close it hard if it
        has not by ``timeout``.
    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    :param timeout: Seconds to wait for a drained session, queueing included, before its remaining jobs are
        given up. If ``execution_timeout`` strikes while the task is in a worker, the session is closed then;
        Airflow does not count the time in the triggerer.
    :param poll_interval: Seconds between looks at a draining session.
    :param deferrable: Wait for a draining session in the triggerer, without a worker slot.
    """

    template_fields: Sequence[str] = ("session_id", "ibm_quantum_conn_id")

    def __init__(
        self,
        *,
        session_id: str,
        drain: bool = False,
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        timeout: float | timedelta = DEFAULT_MAX_TTL,
        poll_interval: float | timedelta = 10,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.session_id = session_id
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.drain = drain
        self.timeout = validate_seconds(timeout, "timeout")
        self.poll_interval = validate_seconds(poll_interval, "poll_interval")
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Drain if asked to, then close and confirm."""
        with raise_as_airflow_errors():
            validate_id(self.session_id)
        if self.drain:
            try:
                self._drain(context)
            except AirflowTaskTimeout:
                self.log.warning("execution_timeout struck: closing without waiting for the rest")
                self._close()
                raise
        return self._close()

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Close, unless the waiting was only interrupted; after a good end this confirms it."""
        event = event or {}
        if event.get("status") != "success":
            self.log.warning("Session %s: %s", self.session_id, event.get("message"))
            if event.get("retryable") and time.time() < event["end_time"]:
                self._defer(event["end_time"])
        return self._close()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Called by Airflow after a deferral. When the trigger itself broke, close without waiting.

        That gives up what is queued, as nobody may be able to wait for it, and its bill has to end.
        """
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowException:
            if next_method == "execute_complete":
                raise
            self.log.exception("The trigger broke: closing without waiting for the rest")
            return self._close()

    def _drain(self, context: Context) -> None:
        """Refuse new jobs and wait until there is nothing more to wait for."""
        if not self._refuses_jobs() or self._is_closed():
            return
        end_time = time.time() + self.timeout
        if self.deferrable:
            IBMQuantumSessionLink.persist(context, self.session_id)
            self._defer(end_time)
        while (left := end_time - time.time()) > 0:
            time.sleep(min(self.poll_interval, left))
            if self._is_closed():
                return
        self.log.warning("Session %s did not close itself within %g s", self.session_id, self.timeout)

    def _refuses_jobs(self) -> bool:
        """Start to drain. What cannot be drained is closed at once: it would cost until its max_ttl."""
        try:
            self.hook.update_session(self.session_id, accepting_jobs=False)
        except IBMQuantumError as error:
            self.log.warning("Cannot drain, closing at once: %s", error)
            return False
        return True

    def _is_closed(self) -> bool:
        """Whether there is nothing to wait for. A failed look at a draining session does not end the wait."""
        try:
            return self.hook.get_session(self.session_id).is_closed
        except IBMQuantumError as error:
            self.log.warning("%s", error)
            return not is_transient(error)

    def _defer(self, end_time: float) -> NoReturn:
        from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger

        trigger = IBMQuantumSessionTrigger(
            session_id=self.session_id,
            target_states=[SessionState.CLOSED],
            end_time=end_time,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=None)

    def _close(self) -> dict[str, Any] | None:
        # All else may be gone at the next try, even a refusal, and a session that is left open costs money.
        with raise_as_airflow_errors(final=(ConfigurationError,)):
            session = close(self.hook, self.session_id)
        if session is None:
            self.log.warning(
                "IBM does not know session %s at connection '%s': nothing to close there",
                self.session_id,
                self.ibm_quantum_conn_id,
            )
            return None
        self.log.info("Session %s is %s%s", session.id, session.state, _how_it_ended(session))
        return session.to_json()


def _how_it_ended(session: Session) -> str:
    """The reason and the use of a session, as far as IBM tells them."""
    reason = f": {session.state_reason}" if session.state_reason else ""
    return reason if session.elapsed_time is None else f"{reason}, {session.elapsed_time:g} s used"
