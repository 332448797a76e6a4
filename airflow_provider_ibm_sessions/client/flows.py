# SPDX-License-Identifier: Apache-2.0
"""
How far jobs are, without the I/O: a look is a series of calls, which either client can follow.

A session's jobs are listed in one call, however many they are. A list may lag behind, so the oldest job that
has not ended is read by itself as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConfigurationError,
    ConflictError,
    IBMQuantumError,
)
from airflow_provider_ibm_sessions.client.models.jobs import Job, JobFilter
from airflow_provider_ibm_sessions.client.models.paging import JobPaging
from airflow_provider_ibm_sessions.client.models.sessions import Session
from airflow_provider_ibm_sessions.client.operations import (
    CANCEL_JOB,
    CLOSE_SESSION,
    GET_JOB,
    GET_SESSION,
    LIST_JOBS,
    UPDATE_SESSION,
    Flow,
    validate,
)
from airflow_provider_ibm_sessions.client.validation import validate_id


@dataclass(frozen=True, slots=True)
class Progress:
    """What one look has found: the awaited jobs in their order and, if it is known, their session."""

    jobs: tuple[Job, ...]
    session: Session | None = None

    @property
    def count(self) -> int:
        """How many have ended."""
        return sum(job.is_final for job in self.jobs)

    @property
    def is_done(self) -> bool:
        """Whether all have ended. A session without jobs has not, as long as it may get some."""
        if not self.jobs:
            return self.session is not None and self.session.is_closed
        return self.count == len(self.jobs)

    def __str__(self) -> str:
        return f"{self.count} of {len(self.jobs)} done{_use_of(self.session)}"


@dataclass(frozen=True, slots=True)
class JobSet:
    """
    The jobs to look at.

    :param job_ids: These; else all of the session.
    :param session_id: Their session, if they have one in common: it saves calls.
    :raises ConfigurationError: If there is neither, or an id cannot be one.
    """

    job_ids: tuple[str, ...] = ()
    session_id: str | None = None

    def __post_init__(self) -> None:
        if not self.job_ids and not self.session_id:
            raise ConfigurationError("job_id or session_id must be given", field="job_id")
        if isinstance(self.job_ids, str):
            raise ConfigurationError("job_ids must be several ids, not one text", field="job_id")
        for job_id in self.job_ids:
            validate_id(job_id, "job_id")
        if self.session_id is not None:
            validate_id(self.session_id)

    def look(self, seen: int | None = None) -> Flow[Progress]:
        """
        Look once. Fails if there is no such job or session: IBM lists nothing for an unknown session.

        :param seen: How many had ended when this was last looked at: the session is read again only when
            there is something new to tell of it.
        """
        if self.session_id is None:
            found = yield from _read(self.job_ids)
            return Progress(tuple(found))
        listed = {job.id: job for job in (yield from list_session_jobs(self.session_id))}
        wanted = self.job_ids or tuple(listed)
        lagging = next((name for name in wanted if name in listed and not listed[name].is_final), None)
        missing = [name for name in wanted if name not in listed or name == lagging]
        for job in (yield from _read(missing)):
            listed[job.id] = job
        progress = Progress(tuple(listed[name] for name in wanted))
        if progress.jobs and progress.count == seen:
            return progress
        return replace(progress, session=(yield GET_SESSION.call(self.session_id)))


def list_session_jobs(session_id: str) -> Flow[list[Job]]:
    """All jobs of a session, as IBM lists them."""
    found: list[Job] = []
    paging = JobPaging(validate(JobFilter, {"session_id": session_id}))
    while paging.query:
        page = yield LIST_JOBS.call(**paging.parameters)
        found += paging.take(page)
    return found


def _read(job_ids: Iterable[str]) -> Flow[list[Job]]:
    found = []
    for job_id in job_ids:
        job = yield GET_JOB.call(job_id)
        if job.id != job_id:
            raise BadResponseError(f"Get a job: the reply is about another job than {job_id}")
        found.append(job)
    return found


def _use_of(session: Session | None) -> str:
    """How long the session has been active, as IBM tells it or else since it told that it began."""
    if session is None:
        return ""
    used, limit = session.elapsed_time, session.max_ttl
    if used is None and session.activated_at and not session.is_closed:
        used = (datetime.now(UTC) - session.activated_at).total_seconds()
    bound = f" of at most {limit} s" if limit else ""
    return f", session {session.state}" + (
        f", active {max(used, 0):.0f} s{bound}" if used is not None else ""
    )


def end_all(session_id: str | None, job_ids: Iterable[str]) -> Flow[list[str]]:
    """
    Close a session, so that what is queued never runs, and cancel jobs: closing does not stop those that run.

    One that cannot be ended does not keep the others. Follow it with a client.

    :param session_id: The session, if it is to be closed: its owner may.
    :param job_ids: The jobs. What IBM lists in the session is added, and what has ended is left out.
    :returns: What went wrong, in words.
    """
    trouble: list[str] = []
    if session_id:
        yield from _tried(CLOSE_SESSION.call(session_id).as_flow(), trouble)
        listed = (yield from _tried(list_session_jobs(session_id), trouble)) or []
        ended = {job.id for job in listed if job.is_final}
        names = dict.fromkeys([*[job.id for job in listed], *job_ids])
        job_ids = [name for name in names if name not in ended]
    for job_id in job_ids:
        yield from _tried(CANCEL_JOB.call(job_id).as_flow(), trouble)
    return trouble


def drain(session_id: str) -> Flow[list[str]]:
    """
    Let a session take no more jobs: it closes itself with its last one. Follow it with a client.

    :returns: What went wrong, in words.
    """
    trouble: list[str] = []
    yield from _tried(UPDATE_SESSION.call(session_id, accepting_jobs=False).as_flow(), trouble)
    return trouble


def _tried(calls: Flow[Any], trouble: list[str]) -> Flow[Any]:
    try:
        return (yield from calls)
    except ConflictError:
        return None  # it has ended already
    except IBMQuantumError as error:
        trouble.append(str(error))
        return None
