# SPDX-License-Identifier: Apache-2.0
"""
Find a session whose create response was lost.

IBM's sessions carry no label. What a client chooses and gets back is ``max_ttl``, so a few seconds taken off
it are the session's fingerprint. A session is resumed only if nobody else can have asked for it; a session
that stays unknown has no jobs, is free, and closes itself after 30 minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from airflow_provider_ibm_sessions.client.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.enums import SessionMode
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, NotFoundError, OutcomeUnknownError
from airflow_provider_ibm_sessions.client.models.instance import WorkloadFilter
from airflow_provider_ibm_sessions.client.models.paging import WorkloadPaging
from airflow_provider_ibm_sessions.client.models.sessions import Session
from airflow_provider_ibm_sessions.client.operations import GET_SESSION, LIST_JOBS, LIST_WORKLOADS, Flow
from airflow_provider_ibm_sessions.client.submission import backoff_delays

log = logging.getLogger(__name__)

_MAX_FINGERPRINTS = 256
_MIN_FINGERPRINTS = 16
_CREATE_REQUESTS = 3
_CLOCK_SKEW: Final = timedelta(minutes=5)


def fingerprints(max_ttl: int) -> int:
    """
    Return how many fingerprints there are for this ``max_ttl``.

    A fingerprint takes off 256 s and a sixteenth at most. The number is a power of two, so that those who
    start from different values of ``max_ttl`` stay apart as well.
    """
    return 1 << max(1, min(_MAX_FINGERPRINTS, max_ttl // 16)).bit_length() - 1


def with_fingerprint(max_ttl: int, fingerprint: int) -> int:
    """
    Return ``max_ttl`` less 1 to 256 s, so that the rest tells the fingerprint.

    Never ``max_ttl`` itself: other tools ask for that.
    """
    count = fingerprints(max_ttl)
    return max_ttl - ((max_ttl - fingerprint) % count or count)


def is_distinct(max_ttl: int, place: int) -> bool:
    """
    Return True if the ``place``-th of several tasks has a fingerprint of its own, also beside other
    ``max_ttl``.

    False where there are so few fingerprints that strangers could share one.
    """
    return max(place + 1, _MIN_FINGERPRINTS) <= fingerprints(max_ttl - fingerprints(max_ttl))


@dataclass(frozen=True, slots=True)
class PendingCreate:
    """
    A request to create a session, and all that its session is known by should the response be lost.

    :param backend: Name of the QPU.
    :param mode: ``dedicated`` or ``batch``.
    :param max_ttl: Seconds that are asked for, less the fingerprint.
    :param created_after: When the request was made, at the earliest.
    :param has_fingerprint: True if nobody else asks for the same ``max_ttl`` now. Without it, no session is
        resumed.
    """

    backend: str
    mode: str
    max_ttl: int
    created_after: datetime
    has_fingerprint: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, for the task state store."""
        return {**asdict(self), "created_after": self.created_after.isoformat()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """Return what :meth:`to_json` has stored."""
        return cls(**{**stored, "created_after": datetime.fromisoformat(stored["created_after"])})

    def create(self, client: IBMQuantumClient, is_taken: Callable[[str], bool]) -> Session:
        """
        Create the session, once.

        :param is_taken: Tells of a session id whether the session is known to be another task's.
        :raises OutcomeUnknownError: If IBM does not tell whether it has created one. ``retryable``:
            :meth:`wait_and_find` may know later.
        """
        unknown = OutcomeUnknownError("Create a session: not sent")
        for request in range(1, _CREATE_REQUESTS + 1):
            try:
                return client.create_session(self.backend, mode=self.mode, max_ttl=self.max_ttl)
            except OutcomeUnknownError as error:
                unknown = error
                log.warning("%s. Looking for the session in IBM's list of workloads", error)
            except IBMQuantumError as error:
                if request == 1:
                    raise
                # The request before this one may have been on its way for longer than we looked.
                unknown.retryable = True
                raise unknown from error
            if found := self.wait_and_find(client, is_taken, unknown):
                return found
            log.warning(
                "No such session is listed; request %d of at most %d failed", request, _CREATE_REQUESTS
            )
        unknown.retryable = True
        raise unknown

    def wait_and_find(
        self, client: IBMQuantumClient, is_taken: Callable[[str], bool], unknown: OutcomeUnknownError
    ) -> Session | None:
        """
        Return the session that this request has created and nobody has used yet, once IBM lists it.

        :param unknown: The error to raise if looking fails.
        :raises OutcomeUnknownError: If it may be another's, or one of several; none is resumed then.
        """
        found: list[Session] = []
        try:
            for delay in backoff_delays(client.retry.list_lag):
                time.sleep(delay)
                found = client.run_flow(self.candidates())
            found = [session for session in found if not is_taken(session.id)]
        except IBMQuantumError as error:
            unknown.retryable = True
            unknown.message += f". The list of workloads cannot be read: {error}"
            raise unknown from error
        if len(found) > 1 or (found and not self.has_fingerprint):
            attach_candidates(unknown, found)
            unknown.retryable = False
            raise unknown
        if not found:
            return None
        log.info("Found session %s, whose create response was lost", found[0].id)
        return found[0]

    def candidates(self) -> Flow[list[Session]]:
        """Find all sessions that this request may have created and that nobody has used yet."""
        listed = WorkloadFilter(
            user="me",
            mode="batch" if self.mode == SessionMode.BATCH else "session",
            status=["pending", "in_progress"],
            backend=self.backend,
            created_after=self.created_after - _CLOCK_SKEW,
        )
        found = []
        paging = WorkloadPaging(listed)
        while paging.query:
            page = yield LIST_WORKLOADS.call(**paging.parameters)
            for workload in paging.take(page):
                try:
                    session: Session = yield GET_SESSION.call(workload.id)
                except NotFoundError:
                    continue
                if session.max_ttl != self.max_ttl or not session.accepts_jobs:
                    continue
                if session.mode in (self.mode, None):
                    jobs = yield LIST_JOBS.call(session_id=session.id, limit=1)
                    found += [] if jobs.jobs else [session]
        return found


def attach_candidates(unknown: OutcomeUnknownError, found: Iterable[Session]) -> None:
    """Name in the error the sessions that the request may have created."""
    unknown.candidates = tuple(session.id for session in found)
    if unknown.candidates:
        unknown.message += f". It may be {' or '.join(unknown.candidates)}; without jobs that is free"
