# SPDX-License-Identifier: Apache-2.0
"""
Ends what a task, or an attempt before it, has begun.

Where a task ends too early, trouble is logged: its own error is the one to be told.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.ledger import check_connection, strike
from airflow_provider_ibm_sessions.links import console_url

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client import IBMQuantumClient
    from airflow_provider_ibm_sessions.client.models import Session
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

log = logging.getLogger(__name__)


def close(hook: IBMQuantumHook, session_id: str) -> Session | None:
    """
    Close a session for certain; see :meth:`IBMQuantumHook.close_session`.

    :returns: The session as it is now, or None if IBM does not know it.
    :raises ConfigurationError: If it was opened at another connection.
    """
    session = hook.close_session(session_id)
    if session is None:  # its entry stays: IBM may show it late
        check_connection(session_id, hook.ibm_quantum_conn_id)
    else:
        strike(session_id)
    return session


def close_after_failure(hook: IBMQuantumHook, session_id: str) -> None:
    """Leave nothing open that nobody knows of; the first error is the one to be told."""
    try:
        close(hook, session_id)
    except IBMQuantumError:
        hook.log.exception("Session %s is left open. Close it at %s", session_id, console_url(session_id))


def end_all(
    hook: IBMQuantumHook, session_id: str | None, job_ids: Iterable[str] = (), *, at_once: bool = False
) -> None:
    """
    Close a session and cancel jobs, as far as that can be done.

    :param at_once: In the last seconds of a task that is being killed: one short attempt at each.
    """
    from airflow_provider_ibm_sessions.client import ending

    hook.log.info("Ending %s", f"session {session_id} and its jobs" if session_id else ", ".join(job_ids))
    with hook.brief_client(at_once=at_once) as client:
        trouble = client.follow(ending.end_all(session_id, job_ids))
    for text in trouble:
        hook.log.error("%s", text)


def end_before_anew(hook: IBMQuantumHook, session_id: str) -> None:
    """
    End what earlier attempts have begun, for certain, before it is forgotten.

    :raises IBMQuantumError: If the session is not closed; names it and its page in IBM's console.
    """
    end_all(hook, session_id)
    close(hook, session_id)


def drain(hook: IBMQuantumHook, session_id: str, *, at_once: bool) -> None:
    """
    Leave no session that takes more jobs, where those of a task that ends too early are to run on.

    :param at_once: In the last seconds of a task that is being killed: one short attempt.
    """
    from airflow_provider_ibm_sessions.client import ending

    with hook.brief_client(at_once=at_once) as client:
        for text in client.follow(ending.drain(session_id)):
            hook.log.error("%s", text)


def cancel_tagged(hook: IBMQuantumHook, tag: str, *, at_once: bool = False) -> None:
    """
    Cancel the job with this tag, if it was submitted, when the task ends too early.

    :param at_once: In the last seconds of a task that is being killed: one short attempt at each request.
    """
    try:
        with hook.brief_client(at_once=at_once) as client:
            _cancel_tagged(client, tag)
    except IBMQuantumError as error:
        hook.log.error("%s", error)  # noqa: TRY400


def cancel_before_anew(hook: IBMQuantumHook, tag: str) -> None:
    """
    Cancel the job that an earlier attempt has submitted under this tag, if it has, before it is forgotten.

    :raises IBMQuantumError: If that cannot be done.
    """
    _cancel_tagged(hook.get_conn(), tag)


def _cancel_tagged(client: IBMQuantumClient, tag: str) -> None:
    from airflow_provider_ibm_sessions.client.once import find_job

    job = find_job(client, tag)
    if job is not None and client.cancel_job(job.id):
        log.info("Cancelled job %s", job.id)
