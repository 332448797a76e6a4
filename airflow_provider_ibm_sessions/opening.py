# SPDX-License-Identifier: Apache-2.0
"""Opens a session for a task that will own it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_ibm_sessions.client.values import (
    DEFAULT_MAX_TTL,
    SessionMode,
    checked_backend,
    checked_choice,
    to_seconds,
)
from airflow_provider_ibm_sessions.ending import close_after_failure
from airflow_provider_ibm_sessions.links import console_url

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models import Session
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook


def checked_session(context: Context, *, backend: object, mode: object, max_ttl: object) -> dict[str, Any]:
    """
    Return the arguments of ``create_session``.

    :param max_ttl: None: the Dag's ``dagrun_timeout``, at most and else IBM's default of 8 hours.
    :raises ConfigurationError: Naming the one that is wrong.
    """
    return {
        "backend": checked_backend(backend),
        "mode": checked_choice(mode, SessionMode, "mode"),
        "max_ttl": _seconds(max_ttl, context),
    }


def open_session(
    hook: IBMQuantumHook, *, backend: str, mode: str, max_ttl: int, keep: Callable[[Session], None]
) -> Session:
    """
    Open a session and hand it to ``keep``. If that fails, the session is closed again.

    :raises AirflowFailException: If ``execution_timeout`` strikes while the outcome is open.
    """
    try:
        session = hook.create_session(backend, mode=mode, max_ttl=max_ttl)
    except AirflowTaskTimeout as error:
        raise AirflowFailException(
            f"execution_timeout struck while a session was being opened on {backend}. It may be open, so the "
            "task is not retried: look at IBM's console"
        ) from error
    try:
        hook.log.info("Opened %s session %s: %s", mode, session.id, console_url(session.id))
        if session.max_ttl is not None and session.max_ttl < max_ttl:
            hook.log.warning(
                "IBM granted max_ttl %d s, not the %d s asked for: the plan's limit", session.max_ttl, max_ttl
            )
        keep(session)
    except BaseException:  # a timeout or a kill as well: raised again below
        close_after_failure(hook, session.id)
        raise
    return session


def _seconds(max_ttl: object, context: Context) -> int:
    if max_ttl is not None:
        return to_seconds(max_ttl, "max_ttl")
    limit = context["dag"].dagrun_timeout
    return min(to_seconds(limit, "dagrun_timeout"), DEFAULT_MAX_TTL) if limit else DEFAULT_MAX_TTL
