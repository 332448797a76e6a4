# SPDX-License-Identifier: Apache-2.0
"""Ends what a task has begun, when the task ends too early. Trouble is logged: there is nobody to tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.ledger import check_connection, strike
from airflow_provider_ibm_sessions.links import console_url

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook


def close_after_failure(hook: IBMQuantumHook, session_id: str) -> None:
    """Leave nothing open that nobody knows of; the first error is the one to be told."""
    try:
        hook.close_session(session_id)
        strike(session_id)
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
    if hook.close_session(session_id) is None:
        check_connection(session_id, hook.ibm_quantum_conn_id)
    strike(session_id)


def drain_at_once(hook: IBMQuantumHook, session_id: str) -> None:
    """In the last seconds of a task whose jobs are to run on: leave no session that takes more."""
    from airflow_provider_ibm_sessions.client import ending

    with hook.brief_client(at_once=True) as client:
        for text in client.follow(ending.drain(session_id)):
            hook.log.error("%s", text)


def cancel_tagged(hook: IBMQuantumHook, tag: str) -> None:
    """Cancel the job with this tag, if it was submitted, in the last seconds of a task."""
    from airflow_provider_ibm_sessions.client.once import find_job

    try:
        with hook.brief_client(at_once=True) as client:
            job = find_job(client, tag)
            if job is not None and client.cancel_job(job.id):
                hook.log.info("Cancelled job %s", job.id)
    except IBMQuantumError as error:
        hook.log.error("%s", error)  # noqa: TRY400
