# SPDX-License-Identifier: Apache-2.0
"""Ends what nobody waits for any more: the session, and the jobs that run in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow_provider_ibm_sessions.client.errors import ConflictError, IBMQuantumError
from airflow_provider_ibm_sessions.client.operations import (
    CANCEL_JOB,
    CLOSE_SESSION,
    UPDATE_SESSION,
    Calls,
    alone,
)
from airflow_provider_ibm_sessions.client.progress import listed_jobs


def end_all(session_id: str | None, job_ids: Iterable[str]) -> Calls[list[str]]:
    """
    Close a session, so that what is queued never runs, and cancel jobs: closing does not stop those that run.

    One that cannot be ended does not keep the others. Follow it with a client.

    :param session_id: The session, if it is to be closed: its owner may.
    :param job_ids: The jobs. What IBM lists in the session is added, and what has ended is left out.
    :returns: What went wrong, in words.
    """
    trouble: list[str] = []
    if session_id:
        yield from _tried(alone(CLOSE_SESSION.call(session_id)), trouble)
        listed = (yield from _tried(listed_jobs(session_id), trouble)) or []
        ended = {job.id for job in listed if job.is_final}
        names = dict.fromkeys([*[job.id for job in listed], *job_ids])
        job_ids = [name for name in names if name not in ended]
    for job_id in job_ids:
        yield from _tried(alone(CANCEL_JOB.call(job_id)), trouble)
    return trouble


def drain(session_id: str) -> Calls[list[str]]:
    """
    Let a session take no more jobs: it closes itself with its last one. Follow it with a client.

    :returns: What went wrong, in words.
    """
    trouble: list[str] = []
    yield from _tried(alone(UPDATE_SESSION.call(session_id, accepting_jobs=False)), trouble)
    return trouble


def _tried(calls: Calls[Any], trouble: list[str]) -> Calls[Any]:
    try:
        return (yield from calls)
    except ConflictError:
        return None  # it has ended already
    except IBMQuantumError as error:
        trouble.append(str(error))
        return None
