# SPDX-License-Identifier: Apache-2.0
"""
Opens a session once, and finds it again when the answer was lost.

A session carries no label. What a client chooses and gets back is ``max_ttl``, so a few seconds taken off it
are its mark. Whatever nobody else can have asked for may be taken up; nothing else ever is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from airflow_provider_ibm_sessions.client.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.enums import SessionMode
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, NotFoundError, OutcomeUnknownError
from airflow_provider_ibm_sessions.client.models.instance import Workload, WorkloadFilter
from airflow_provider_ibm_sessions.client.models.paging import WorkloadPaging
from airflow_provider_ibm_sessions.client.models.sessions import Session
from airflow_provider_ibm_sessions.client.operations import GET_SESSION, LIST_JOBS, LIST_WORKLOADS, Flow
from airflow_provider_ibm_sessions.client.submission import pauses

log = logging.getLogger(__name__)

_CLAIM_SHARE: Final = 0.2
"""This part of the time in which a session shows is given to others to claim it as well: 3 s."""

_MOST_OFF = 256
_FEWEST = 16
_SENDINGS = 3
_CLOCKS_DIFFER = timedelta(minutes=5)


def marks(max_ttl: int) -> int:
    """
    How many marks there are: ``max_ttl`` loses 6.25 %, and 256 s, at most.

    A power of two: see :func:`marked`.
    """
    return 1 << max(1, min(_MOST_OFF, max_ttl // 16)).bit_length() - 1


def marked(max_ttl: int, mark: int) -> int:
    """
    ``max_ttl`` less a little, so that the rest tells the mark, whatever ``max_ttl`` others start from.

    Never ``max_ttl`` itself: other tools ask for that.
    """
    return max_ttl - ((max_ttl - mark) % marks(max_ttl) or marks(max_ttl))


def are_distinct(max_ttl: int, count: int) -> bool:
    """
    Whether so many marks in a row tell their owners apart, also from those who ask for less, or more.

    Never where there are so few that strangers meet easily.
    """
    return max(count, _FEWEST) <= marks(max_ttl - marks(max_ttl))


@dataclass(frozen=True, slots=True)
class Opening:
    """
    What is asked for, and when at the earliest: all that such a session is known by.

    :param max_ttl: Less its mark, see :func:`marks`.
    :param is_marked: Whether no one else asks for a session with the same ``max_ttl`` now. What is not, is
        never taken up.
    :param belongs_to_other_task: Tells of a session's id whether it is known to be another's.
    :param claim: Called with the id of what is about to be taken up, and with seconds to wait for others who
        do the same: whether it is ours then.
    """

    backend: str
    mode: str
    max_ttl: int
    since: datetime
    is_marked: bool = True
    belongs_to_other_task: Callable[[str], bool] = lambda _: False
    claim: Callable[[str, float], bool] = lambda _, __: True

    def send(self, client: IBMQuantumClient) -> Session:
        """
        Open the session, once.

        :raises OutcomeUnknownError: If IBM does not tell whether it has. ``retryable``: :meth:`find` may know
            later.
        """
        unknown = OutcomeUnknownError("Create a session: not sent")
        for sending in range(_SENDINGS):
            try:
                return client.create_session(self.backend, mode=self.mode, max_ttl=self.max_ttl)
            except OutcomeUnknownError as error:
                unknown = error
                log.warning("%s. Looking for it", error)
                if found := self.find_settled(client, unknown):
                    return found
                log.warning("It does not show. Request %d of at most %d failed", sending + 1, _SENDINGS)
            except IBMQuantumError as error:
                if sending == 0:
                    raise
                # The request before may have been on its way for longer than we looked.
                unknown.retryable = True
                raise unknown from error
        unknown.retryable = True
        raise unknown

    def find_settled(self, client: IBMQuantumClient, unknown: OutcomeUnknownError) -> Session | None:
        """
        Look until the session would have shown, and the first job of another's as well.

        :param unknown: What to raise if looking fails.
        """
        found = None
        try:
            for pause in pauses(client.retry.list_lag):
                time.sleep(pause)
                found = self.find(client)
            if found and not self.claim(found.id, client.retry.list_lag * _CLAIM_SHARE):
                log.info("Session %s was taken up by another", found.id)
                return None
        except OutcomeUnknownError:
            raise
        except IBMQuantumError as error:
            unknown.retryable = True
            unknown.message += f". Cannot look for it: {error}"
            raise unknown from error
        if found:
            log.info("Found session %s, whose opening went unanswered", found.id)
        return found

    def find(self, client: IBMQuantumClient) -> Session | None:
        """
        The session that was opened by this, if it was and nobody has used it yet.

        :raises OutcomeUnknownError: If it may be another's, or one of several; none is taken then.
        """
        found = client.run_flow(self.candidates())
        if len(found) > 1 or (found and not self.is_marked):
            unknown = OutcomeUnknownError("Create a session: no answer")
            name_candidates(unknown, found)
            raise unknown
        return found[0] if found else None

    def candidates(self) -> Flow[list[Session]]:
        """All sessions that it may have been, which nobody has used yet. Follow it with a client."""
        found = []
        for workload in (yield from _listed(self._filters())):
            session = yield from _read(workload.id)
            if session and self._fits(session) and not self.belongs_to_other_task(session.id):
                page = yield LIST_JOBS.call(session_id=session.id, limit=1)
                found += [] if page.jobs else [session]
        return found

    def _filters(self) -> WorkloadFilter:
        return WorkloadFilter(
            user="me",
            mode="batch" if self.mode == SessionMode.BATCH else "session",
            status=["pending", "in_progress"],
            backend=self.backend,
            created_after=self.since - _CLOCKS_DIFFER,
        )

    def _fits(self, session: Session) -> bool:
        return session.max_ttl == self.max_ttl and session.mode in (self.mode, None) and session.accepts_jobs


def name_candidates(unknown: OutcomeUnknownError, found: Iterable[Session]) -> None:
    """Say in the error which sessions the request may have opened."""
    unknown.candidates = tuple(session.id for session in found)
    if unknown.candidates:
        unknown.message += f". It may be {' or '.join(unknown.candidates)}; without jobs that is free"


def _listed(query: WorkloadFilter) -> Flow[list[Workload]]:
    """All pages."""
    paging, found = WorkloadPaging(query), list[Workload]()
    while paging.query:
        page = yield LIST_WORKLOADS.call(**paging.parameters)
        found += paging.take(page)
    return found


def _read(session_id: str) -> Flow[Session | None]:
    try:
        session: Session = yield GET_SESSION.call(session_id)
    except NotFoundError:
        return None
    return session
