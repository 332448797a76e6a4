# SPDX-License-Identifier: Apache-2.0
"""
Calls that belong together, without the I/O: either client runs a flow with ``run_flow``.

Poll jobs, close a session and cancel its jobs, drain a session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from airflow_provider_ibm_sessions.client.errors import (
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
from airflow_provider_ibm_sessions.client.usage import (
    UsageReport,
    cost_of,
    count_states,
    format_duration,
    format_money,
)
from airflow_provider_ibm_sessions.client.validation import short_repr, validate_id


@dataclass(frozen=True, slots=True)
class Progress:
    """
    The result of one poll.

    :param jobs: The polled jobs, in their order.
    :param session: Their session, where it was read.
    """

    jobs: tuple[Job, ...]
    session: Session | None = None

    @property
    def final(self) -> int:
        """Return how many jobs are final, well or not."""
        return sum(job.is_final for job in self.jobs)

    @property
    def is_done(self) -> bool:
        """Return True if all jobs are final. A session without jobs is waited for until it closes."""
        if not self.jobs:
            return self.session is not None and self.session.is_closed
        return self.final == len(self.jobs)

    @property
    def usage(self) -> UsageReport:
        """Return what the jobs, or their session, have used so far."""
        if self.session is None:
            return UsageReport.of_jobs(self.jobs)
        return UsageReport.of_session(self.session, self.jobs)

    def __str__(self) -> str:
        return ", ".join([*self._counts(), *self._usage()])

    def describe(self, price_per_second: Decimal | None, currency: str) -> str:
        """Return a line for a log: as ``str()``, with what is pending, and the price so far."""
        states = count_states(job for job in self.jobs if not job.is_final)
        pending = [f"{count} {state.lower()}" for state, count in states.items()]
        # Where the session was not read again, nothing is said: its jobs' QPU time is not its bill.
        is_known = self.session is not None or not any(job.session_id for job in self.jobs)
        used = self.usage.billed_seconds if is_known else None
        if used is None and (seconds := self._active_seconds()) is not None:
            used = Decimal(round(seconds))
        cost = cost_of(used, price_per_second)
        rest = "" if self.usage.billed_is_final else " so far"
        price = [] if cost is None else [f"{format_money(cost, currency)}{rest}"]
        return ", ".join([*self._counts(), *pending, *self._usage(), *price])

    def _counts(self) -> list[str]:
        completed = sum(job.is_completed for job in self.jobs)
        counts = [f"{completed} of {len(self.jobs)} jobs completed"]
        if failed := self.final - completed:
            counts.append(f"{failed} failed or cancelled")
        return counts

    def _usage(self) -> list[str]:
        """Say how long the session has been active, and how long it may still live."""
        session = self.session
        if session is None:
            return []
        facts, used = [f"session {session.state}"], self._active_seconds()
        if used is not None:
            facts.append(f"active {format_duration(round(used))}")
        started = session.started_at or session.activated_at
        if session.max_ttl and started and not session.is_closed:
            # Not max_ttl itself, which is a little less than what was asked for: see the fingerprint.
            left = session.max_ttl - (datetime.now(UTC) - started).total_seconds()
            facts.append(f"at most {format_duration(max(0, round(left)))} left")
        return facts

    def _active_seconds(self) -> float | None:
        """Return how long the session has been active: as IBM reports it, or else since it became active."""
        session = self.session
        if session is None:
            return None
        used = session.elapsed_time
        if used is None and session.activated_at and not session.is_closed:
            used = (datetime.now(UTC) - session.activated_at).total_seconds()
        return None if used is None else max(used, 0)


@dataclass(frozen=True, slots=True)
class JobSet:
    """
    The jobs to poll.

    A session's jobs are listed in one call, however many they are. A list may lag behind, so the oldest job
    that is not final is read by itself as well, unless the caller trusts the list.

    :param job_ids: Ids; none: all jobs of the session.
    :param session_id: The session they are in, if it is one and the same: it saves calls.
    :raises ConfigurationError: If there is neither, or an id is malformed.
    """

    job_ids: Sequence[str] = ()
    session_id: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.job_ids, str) or not isinstance(self.job_ids, Sequence):
            raise ConfigurationError(
                f"job_ids must be a list of ids, got {short_repr(self.job_ids)}", field="job_id"
            )
        has_session = self.session_id is not None and not (
            isinstance(self.session_id, str) and not self.session_id
        )
        if not self.job_ids and not has_session:
            raise ConfigurationError("job_id or session_id must be given", field="job_id")
        for job_id in self.job_ids:
            validate_id(job_id, "job_id")
        if self.session_id is not None:
            validate_id(self.session_id)

    def poll(self, seen: int | None = None, doubted: Collection[str] | None = None) -> Flow[Progress]:
        """
        Poll once. Fail if a job or the session does not exist: IBM lists no jobs for an unknown session.

        :param seen: How many jobs were final at the poll before: the session is read only after a change.
        :param doubted: The jobs for which the list alone will not do; None: all.
        """
        if self.session_id is None:
            found = yield from _read_jobs(self.job_ids)
            return Progress(tuple(found))
        listed = {job.id: job for job in (yield from list_session_jobs(self.session_id))}
        wanted = self.job_ids or tuple(listed)
        pending = (name for name in wanted if name in listed and not listed[name].is_final)
        oldest = next((name for name in pending if doubted is None or name in doubted), None)
        for job in (yield from _read_jobs([name for name in wanted if name not in listed or name == oldest])):
            listed[job.id] = job
        progress = Progress(tuple(listed[name] for name in wanted))
        if progress.jobs and progress.final == seen:
            return progress
        return replace(progress, session=(yield GET_SESSION.call(self.session_id)))


def list_session_jobs(session_id: str) -> Flow[list[Job]]:
    """List all jobs of a session."""
    found: list[Job] = []
    paging = JobPaging(validate(JobFilter, {"session_id": session_id}))
    while paging.query:
        page = yield LIST_JOBS.call(**paging.parameters)
        found += paging.take(page)
    return found


def close_and_cancel(session_id: str | None, job_ids: Iterable[str]) -> Flow[list[str]]:
    """
    Close a session and cancel its jobs: closing stops what is queued, and not what runs.

    An error of one call does not stop the others.

    :param session_id: The session, if it is to be closed: only its owner may.
    :param job_ids: The jobs. What IBM lists in the session is added, and what is final is left out.
    :returns: The errors, as text.
    """
    errors: list[str] = []
    if session_id:
        yield from _attempt(CLOSE_SESSION.call(session_id).as_flow(), errors)
        listed = (yield from _attempt(list_session_jobs(session_id), errors)) or []
        final = {job.id for job in listed if job.is_final}
        job_ids = [
            name for name in dict.fromkeys([*(job.id for job in listed), *job_ids]) if name not in final
        ]
    for job_id in job_ids:
        yield from _attempt(CANCEL_JOB.call(job_id).as_flow(), errors)
    return errors


def drain(session_id: str) -> Flow[list[str]]:
    """
    Let a session accept no more jobs, so that it closes itself with its last one.

    :returns: The errors, as text.
    """
    errors: list[str] = []
    yield from _attempt(UPDATE_SESSION.call(session_id, accepting_jobs=False).as_flow(), errors)
    return errors


def _read_jobs(job_ids: Iterable[str]) -> Flow[list[Job]]:
    found = []
    for job_id in job_ids:
        found.append((yield GET_JOB.call(job_id)))
    return found


def _attempt(flow: Flow[Any], errors: list[str]) -> Flow[Any]:
    """Run a flow; collect its error, unless that says that the job or session is final already."""
    try:
        return (yield from flow)
    except ConflictError:
        return None
    except IBMQuantumError as error:
        errors.append(str(error))
        return None
