# SPDX-License-Identifier: Apache-2.0
"""``@task.ibm_quantum_session``: a Python function that runs jobs in a session of its own, by Qiskit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    DecoratedOperator,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.lifecycle.session import (
    close_and_cancel,
    close_if_known,
    close_quietly,
    discard_previous_run,
)
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.lifecycle.usage import push_session_usage
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink, console_url
from airflow_provider_ibm_sessions.operators.base import SessionOwnerOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_ibm_sessions.client.models.sessions import Session

_ARGUMENT = "session"


class IBMQuantumSessionDecoratedOperator(SessionOwnerOperator, DecoratedOperator):
    """
    Open a session and call the function with it; drain when it returns, and close when it raises.

    The function's argument ``session`` is a live ``qiskit_ibm_runtime.Session`` (or ``Batch``). For work that
    needs Python between jobs: the QPU is paid for while that thinks. A killed task closes its session. A
    retry calls the function again, in a new session, and pays again: so there is none by default.

    :param ibm_quantum_conn_id: The Airflow connection. (templated)

    Further arguments are those of :class:`SessionOwnerOperator`.
    """

    custom_operator_name = "@task.ibm_quantum_session"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *SessionOwnerOperator.template_fields,
    )

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = list(inspect.signature(python_callable).parameters)
        if _ARGUMENT not in parameters:
            raise ConfigurationError(
                f"{python_callable.__name__} must have an argument '{_ARGUMENT}'", field=_ARGUMENT
            )
        if _ARGUMENT in (op_kwargs or {}) or _ARGUMENT in parameters[: len(kwargs.get("op_args") or ())]:
            raise ConfigurationError(
                f"'{_ARGUMENT}' of {python_callable.__name__} is set by the task: give other arguments by "
                f"keyword",
                field=_ARGUMENT,
            )
        kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        if any(is_kind(python_callable) for is_kind in kinds):
            raise ConfigurationError(
                f"{python_callable.__name__} must be a plain function: neither 'async def' nor one that "
                f"yields",
                field="python_callable",
            )
        # Airflow checks, when it reads the Dag, that the function can be called; the session comes later.
        op_kwargs = {**(op_kwargs or {}), _ARGUMENT: None}
        super().__init__(python_callable=python_callable, op_kwargs=op_kwargs, **kwargs)
        self.ibm_quantum_conn_id = ibm_quantum_conn_id

    def execute(self, context: Context) -> Any:
        """Call the function in a session of its own."""
        state = TaskState.load(context)
        with raise_as_airflow_errors():
            session_args = self.session_args(context)
            self.hook.require_qiskit()
            if state.input_has_changed(session_args):
                discard_previous_run(self.hook, state)
            state.resume_or_start(session_args)
            if state.is_resumed and (before := state.session_id):
                self.log.info("Closing session %s of the last try: the function is called again", before)
                close_and_cancel(self.hook, before)
                close_if_known(self.hook, before)
            session = self.open_session(context, state, session_args)
            try:
                returned = self._call(context, session, session_args["backend"])
            except BaseException:  # a timeout as well: raised again
                push_session_usage(context, self.hook, close_quietly(self.hook, session.id))
                raise
        self._drain(context, session.id, returned)
        state.mark_finished(clear_collects=False)
        return returned

    def take_session(self, context: Context, session: Session) -> None:
        """Take hold of an open session, and show its link while the function runs."""
        IBMQuantumSessionLink.persist(context, session.id)
        super().take_session(context, session)

    def _call(self, context: Context, session: Session, backend: str) -> Any:
        live = self.hook.qiskit_session(session.id, backend=backend)
        self.raise_if_killed()
        arguments = {**context, **self.op_kwargs, _ARGUMENT: live}
        return self.python_callable(
            *self.op_args, **determine_kwargs(self.python_callable, self.op_args, arguments)
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
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=returned)
            raise AirflowFailException(f"{error}. Close it at {console_url(session_id)}") from error


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
