# SPDX-License-Identifier: Apache-2.0
"""``@task.ibm_quantum_session``: a Python function that runs jobs in a session of its own, by Qiskit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
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
from airflow_provider_ibm_sessions.hooks.session_registry import enter, strike
from airflow_provider_ibm_sessions.lifecycle.session import (
    SESSION,
    close,
    close_quietly,
    end_all,
    end_before_anew,
    end_forsaken,
    open_session,
    validate_session_args,
)
from airflow_provider_ibm_sessions.lifecycle.task_mixin import IBMQuantumTaskMixin
from airflow_provider_ibm_sessions.lifecycle.task_state import Attempt
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink, console_url

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_ibm_sessions.client.models.sessions import Session

_ARGUMENT = "session"


class IBMQuantumSessionDecoratedOperator(IBMQuantumTaskMixin, DecoratedOperator):
    """
    Opens a session and calls the function with it; drains when it returns, and closes when it raises.

    The function's argument ``session`` is a live ``qiskit_ibm_runtime.Session`` (or ``Batch``). For work that
    needs Python between jobs: the QPU is paid for while that thinks. A killed task closes its session. A
    retry calls the function anew, in a new session.

    :param backend: Name of the QPU. (templated)
    :param mode: ``dedicated`` or ``batch``. (templated)
    :param max_ttl: Longest life of the session from its first job's start: seconds, a timedelta or
        ``"2h 30m"``; left out, the Dag's ``dagrun_timeout``, at most and else 8 hours. (templated)
    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    """

    custom_operator_name = "@task.ibm_quantum_session"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        "backend",
        "mode",
        "max_ttl",
        "ibm_quantum_conn_id",
    )

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        backend: str,
        mode: str = "dedicated",
        max_ttl: int | str | timedelta | None = None,
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if _ARGUMENT not in inspect.signature(python_callable).parameters:
            raise ConfigurationError(
                f"{python_callable.__name__} must have an argument '{_ARGUMENT}'", field=_ARGUMENT
            )
        # Airflow checks, when it reads the Dag, that the function can be called; the session comes later.
        op_kwargs = {**(op_kwargs or {}), _ARGUMENT: None}
        super().__init__(python_callable=python_callable, op_kwargs=op_kwargs, **kwargs)
        self.backend = backend
        self.mode = mode
        self.max_ttl = max_ttl
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.session_id: str | None = None

    def execute(self, context: Context) -> Any:
        """Call the function in a session of its own."""
        attempt = Attempt(context)
        with raise_as_airflow_errors():
            wanted = validate_session_args(
                context, backend=self.backend, mode=self.mode, max_ttl=self.max_ttl
            )
            attempt.begin(wanted)
            end_forsaken(self.hook, context, attempt)
            if before := attempt.recall(SESSION):
                self.log.info("The attempt before has opened session %s: the function begins anew", before)
                end_before_anew(self.hook, before)
            session = open_session(
                self.hook, context, attempt, wanted, lambda opened: self._keep(context, opened)
            )
            try:
                outcome = self._call(context, session, wanted["backend"])
            except BaseException:  # a timeout as well: raised again
                close_quietly(self.hook, session.id)
                raise
        self._drain(context, session.id, outcome)
        attempt.delivered()
        return outcome

    def end_all(self, *, single_attempt: bool) -> None:
        """Close the session of a killed task."""
        if self.session_id:
            end_all(self.hook, self.session_id, single_attempt=single_attempt)

    def _keep(self, context: Context, session: Session) -> None:
        self.session_id = session.id
        enter(context, session.id, self.ibm_quantum_conn_id)
        context["ti"].xcom_push(key="session", value=session.to_json())
        IBMQuantumSessionLink.persist(context, session.id)
        self.raise_if_killed()

    def _call(self, context: Context, session: Session, backend: str) -> Any:
        live = self.hook.qiskit_session(session.id, backend=backend)
        self.raise_if_killed()
        arguments = {**context, **self.op_kwargs, _ARGUMENT: live}
        return self.python_callable(
            *self.op_args, **determine_kwargs(self.python_callable, self.op_args, arguments)
        )

    def _drain(self, context: Context, session_id: str, outcome: Any) -> None:
        """Let queued jobs run; close hard what cannot be drained. The outcome, once paid for, is kept."""
        try:
            self.hook.drain_session(session_id)
        except IBMQuantumError as error:
            self.log.warning("Cannot drain, closing at once: %s", error)
        else:
            strike(session_id)
            return
        try:
            close(self.hook, session_id)
        except IBMQuantumError as error:
            context["ti"].xcom_push(key="return_value", value=outcome)
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
