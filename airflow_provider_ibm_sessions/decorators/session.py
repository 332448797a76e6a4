# SPDX-License-Identifier: Apache-2.0
"""``@task.ibm_quantum_session``: a Python function that runs jobs in a session of its own, by Qiskit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    DecoratedOperator,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, JobFailedError
from airflow_provider_ibm_sessions.client.validation import (
    validate_calibration_id,
    validate_conn_id,
    validate_fractional_gates,
)
from airflow_provider_ibm_sessions.decorators._function import refuse_awaitable, reserve_argument
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.lifecycle.session import (
    close_quietly,
    discard_previous_run,
    end_earlier_session,
    end_unrecorded_sessions,
)
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.lifecycle.usage import push_session_usage
from airflow_provider_ibm_sessions.operators.base import SessionOwnerOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_ibm_sessions.client.models.sessions import Session

log = logging.getLogger(__name__)

_ARGUMENT = "session"


class IBMQuantumSessionDecoratedOperator(SessionOwnerOperator, DecoratedOperator):
    """
    Open a session and call the function with it; drain when it returns, and close when it raises.

    The function's argument ``session`` is a live ``qiskit_ibm_runtime.Session`` (or ``Batch``). For work that
    needs Python between jobs: the QPU is paid for while that thinks. A killed task closes its session. A
    retry calls the function again, in a new session, and pays again: so there is none by default. Jobs are
    submitted exactly once.

    What the function returns is the XCom. Qiskit's results and NumPy's arrays in it become plain values, see
    :func:`to_plain_result`; a value that XCom cannot hold fails the task without a retry.

    :param use_fractional_gates: True: compile for fractional gates (``rzz``, ``rx``) in place of control
        flow; None: for both. As in ``QiskitRuntimeService.backend``.
    :param calibration_id: The calibration that jobs run with. (templated)
    :param ibm_quantum_conn_id: The Airflow connection. (templated)

    Further arguments are those of :class:`SessionOwnerOperator`.
    """

    custom_operator_name = "@task.ibm_quantum_session"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *SessionOwnerOperator.template_fields,
        "calibration_id",
    )

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        use_fractional_gates: bool | None = False,
        calibration_id: str | None = None,
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        op_kwargs = reserve_argument(python_callable, _ARGUMENT, kwargs.get("op_args"), op_kwargs)
        super().__init__(python_callable=python_callable, op_kwargs=op_kwargs, **kwargs)
        self.use_fractional_gates = validate_fractional_gates(use_fractional_gates)
        self.calibration_id = calibration_id
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.check_literals(calibration_id=validate_calibration_id, ibm_quantum_conn_id=validate_conn_id)

    def execute(self, context: Context) -> Any:
        """Call the function in a session of its own."""
        from airflow_provider_ibm_sessions.decorators.returned_values import XComValueError, to_xcom

        state = TaskState.load(context)
        with raise_as_airflow_errors():
            session_args = self.session_args(context)
            self.calibration_id = validate_calibration_id(self.calibration_id)
            self.hook.require_qiskit()
            if state.input_has_changed(session_args):
                discard_previous_run(self.hook, state)
            state.resume_or_start(session_args)
            end_unrecorded_sessions(self.hook, context, state)
            if state.is_resumed and not state.is_finished and (before := state.session_id):
                self.log.info("Closing session %s of the last try: the function is called again", before)
                end_earlier_session(self.hook, before)
            session = self.open_session(context, state, session_args)
            unfit = None
            try:
                returned = self._call(context, session, session_args["backend"])
                try:
                    returned = to_xcom(returned, self, context["ti"])
                except XComValueError as error:
                    unfit, returned = error, None
                    self.log.error("XCom cannot hold what the function returned: %s", error)  # noqa: TRY400
            except BaseException as error:  # a timeout as well: raised again
                loss = None
                try:
                    loss = self._loss_of_session(context, session.id, error)
                finally:  # whatever ends the task while it asks IBM: the session is billed until it is closed
                    push_session_usage(context, self.hook, close_quietly(self.hook, session.id))
                if loss is None:
                    raise
                self.log.info("Session %s had ended when the function failed", session.id, exc_info=error)
                raise loss from None
        self._drain(context, session.id, returned)  # all jobs are paid for: those that are queued run
        state.mark_finished()
        if unfit:
            raise self._refusal(session.id, unfit) from unfit
        return returned

    def take_session(self, context: Context, session: Session) -> None:
        """Take hold of an open session, and show its link while the function runs."""
        self.show_session(context, session.id)
        super().take_session(context, session)

    def _call(self, context: Context, session: Session, backend: str) -> Any:
        live = self.hook.qiskit_session(
            session.id,
            backend=backend,
            use_fractional_gates=self.use_fractional_gates,
            calibration_id=self.calibration_id,
        )
        self.raise_if_killed()
        arguments = {**context, **self.op_kwargs, _ARGUMENT: live}
        returned = self.python_callable(
            *self.op_args, **determine_kwargs(self.python_callable, self.op_args, arguments)
        )
        refuse_awaitable(self.python_callable, returned)
        return returned

    def _loss_of_session(
        self, context: Context, session_id: str, error: BaseException
    ) -> AirflowFailException | None:
        """
        Return the error to raise if the session has ended under the function; None otherwise.

        The frames of the function and of Qiskit do not say that. A retry would pay again for what somebody
        has ended on purpose, or what takes longer than ``max_ttl``. A job's own failure is none, nor is the
        end of a session that the function itself has ended, as ``with session:`` does.
        """
        is_of_qiskit = type(error).__module__.partition(".")[0] == "qiskit_ibm_runtime"
        if not is_of_qiskit and not isinstance(error, IBMQuantumError):
            return None
        from airflow_provider_ibm_sessions.hooks import qiskit

        says_closed = qiskit.says_session_closed(error)
        if not says_closed and (qiskit.is_job_failure(error) or isinstance(error, JobFailedError)):
            return None
        if qiskit.has_ended_session(session_id, by_cancel=says_closed):
            return None
        try:
            # One attempt: a session that is open is billed until it is closed, which comes next.
            with self.hook.short_lived_client(single_attempt=True) as client:
                session = client.get_session(session_id)
        except Exception:  # whatever it is: the function's own error is raised
            self.log.debug("Session %s was not read", session_id, exc_info=True)
            return None
        if not session.is_closed:
            return None
        closed_by = _closed_by(context, session_id)
        if closed_by == str(SessionOwner.of(context, self.ibm_quantum_conn_id)):
            return None  # the function has closed it by a hook of its own
        started, closed = session.started_at, session.closed_at
        lived = (closed - started).total_seconds() if started and closed else 0
        if session.max_ttl and lived >= session.max_ttl - 1:
            remedy, ended = "raise max_ttl, which was reached", "has closed itself"
        else:
            by = f"by {closed_by}" if closed_by else "outside of this task"
            remedy, ended = "clear the task to run it again in a new one", f"was closed {by}"
        name, cause = self.python_callable.__name__, str(getattr(error, "message", error))[:300]
        return AirflowFailException(
            f"{name} has lost its session: {remedy}. Session {session_id} {ended}. {cause}"
        )

    def _refusal(self, session_id: str, error: Exception) -> AirflowFailException:
        """Say how to get the results of a session whose function has returned what XCom cannot hold."""
        try:
            job_ids = [job.id for job in self.hook.list_jobs(session_id=session_id)]
        except IBMQuantumError as unlisted:
            self.log.warning("%s", unlisted)
            job_ids = []
        jobs = f"jobs {', '.join(job_ids)}" if job_ids else "jobs"
        return AirflowFailException(
            f"XCom cannot hold what {self.python_callable.__name__} returned: {error}. Return plain "
            f"values or Qiskit's results. The {jobs} of session {session_id} are paid for: fetch their "
            f"results with IBMQuantumHook('{self.ibm_quantum_conn_id}').job_results(job_id), or of all with "
            "IBMQuantumJobResultsOperator"
        )

    def _drain(self, context: Context, session_id: str, returned: Any) -> None:
        """Let queued jobs run; close hard what cannot be drained. What the function returned is kept."""
        try:
            push_session_usage(context, self.hook, self.hook.drain_session(session_id))
        except IBMQuantumError as error:
            self.log.warning("Session %s cannot be drained, closing it at once: %s", session_id, error)
        else:
            return
        try:
            push_session_usage(context, self.hook, self.hook.close_session(session_id))
        except IBMQuantumError as error:
            if self.do_xcom_push and returned is not None:
                context["ti"].xcom_push(key="return_value", value=returned)
            raise AirflowFailException(f"{error}. Close it at {self.hook.console_url(session_id)}") from error


def _closed_by(context: Context, session_id: str) -> str | None:
    """
    Return who has closed a task's session, where the task's own store has the record of it.

    There the page, the command and the task itself keep it. A task that sweeps or closes keeps it in its own
    store, which no other can read; before Airflow 3.3 there is none.
    """
    from airflow_provider_ibm_sessions.hooks.session_record import RECORD_PREFIX, SessionRecord

    store: Any = context.get("task_state_store")
    try:
        kept = store.get(RECORD_PREFIX + session_id) if store is not None else None
        return SessionRecord.parse(kept).closed_by if kept else None
    except Exception:  # whatever it is: the error to raise is what matters
        log.debug("The record of session %s was not read", session_id, exc_info=True)
        return None


def ibm_quantum_session_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Wrap a function of an argument ``session`` into a task that runs it in a session of its own.

    In Dags it is ``@task.ibm_quantum_session(backend="ibm_fez", max_ttl="20m")``; arguments are those of
    :class:`IBMQuantumSessionDecoratedOperator`.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=IBMQuantumSessionDecoratedOperator,
        **kwargs,
    )
