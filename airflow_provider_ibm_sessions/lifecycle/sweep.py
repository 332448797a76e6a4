# SPDX-License-Identifier: Apache-2.0
"""Find the sessions that nobody uses any more, and close them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    NotFoundError,
    PermissionDeniedError,
)
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.metrics import count
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX, SessionOwner

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_ibm_sessions.client.models.instance import Workload
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

log = logging.getLogger(__name__)

_LISTED_AFTER = 900.0
"""Seconds after which IBM surely lists what was opened."""


class SweepScope(StrEnum):
    """
    The sessions that a sweep may close.

    ``airflow``: those that this Airflow has opened. ``user``: all others of the API key's user as well, made
    by another tool or another Airflow. ``instance``: everybody's.
    """

    AIRFLOW = "airflow"
    USER = "user"
    INSTANCE = "instance"


class SweepDecision(StrEnum):
    """Decision of a sweep on one session."""

    ACTIVE = "belongs to an active run"
    DRAINING = "accepts no more jobs, and closes itself"
    TOO_RECENT = "too recent"
    UNOWNED = "not opened by this Airflow"
    UNKNOWN = "its owner cannot be found out"
    ORPHANED = "orphaned"


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """
    An open session, and the sweep's decision on it.

    :param age: Seconds since it was opened.
    :param owner: The task that this Airflow has opened it for, if it has.
    """

    session_id: str
    backend: str | None
    mode: str | None
    state: str | None
    age: int
    owner: SessionOwner | None
    decision: SweepDecision

    def __str__(self) -> str:
        owner = f", opened for {self.owner}" if self.owner else ""
        session = f"Session {self.session_id} ({self.mode}) on {self.backend}, {self.state}, {self.age} s old"
        return f"{session}{owner}: {self.decision}"

    def to_json(self, *, closed: bool) -> dict[str, Any]:
        """Return it for XCom, and for programs."""
        return {
            "session_id": self.session_id,
            "backend": self.backend,
            "mode": self.mode,
            "state": self.state,
            "age": self.age,
            "owner": str(self.owner) if self.owner else None,
            "decision": str(self.decision),
            "closed": closed,
        }


def decide(
    accepts_jobs: bool,
    owner: SessionOwner | None,
    age: float,
    *,
    scope: SweepScope,
    min_age: float,
    is_active: Callable[[SessionOwner], bool | None],
) -> SweepDecision:
    """
    Return what a sweep makes of an open session.

    :param age: Seconds since it was opened.
    :param is_active: Returns True if the owner may still use it, None if that cannot be found out.
    """
    if not accepts_jobs:
        return SweepDecision.DRAINING
    if owner is None and scope == SweepScope.AIRFLOW:
        return SweepDecision.UNOWNED
    active = owner is not None and is_active(owner)
    if active is None:
        return SweepDecision.UNKNOWN
    if active:
        return SweepDecision.ACTIVE
    return SweepDecision.TOO_RECENT if age < min_age else SweepDecision.ORPHANED


class SessionSweeper:
    """
    One look at all open sessions and batches of an instance.

    :param hook: The hook on the instance's connection; its registry says whose the sessions are.
    :param min_age: Seconds; what is younger is left alone.
    :raises ConfigurationError: If the scope is wider than one team's in an Airflow of several teams.
    """

    def __init__(self, hook: IBMQuantumHook, *, scope: SweepScope, min_age: float) -> None:
        if scope != SweepScope.AIRFLOW and conf.getboolean("core", "multi_team", fallback=False):
            raise ConfigurationError(
                f"scope must be 'airflow' where Airflow has several teams, got '{scope}': the sessions of "
                "other teams would seem to be nobody's",
                field="scope",
            )
        self._hook = hook
        self._registry = hook.registry
        self._scope = scope
        self._min_age = min_age
        self._errors: list[IBMQuantumError] = []

    def run(self, *, dry_run: bool) -> tuple[list[dict[str, Any]], list[IBMQuantumError]]:
        """
        Look at every open session in the scope, the oldest first, and close what is orphaned.

        :param dry_run: Change nothing.
        :returns: A report on each session, and the errors of those that could not be read or closed.
        :raises IBMQuantumError: If the list cannot be read.
        """
        self._errors = []
        reports = []
        for record in sorted(self._records(tidy=not dry_run), key=lambda found: -found.age):
            log.info("%s", record)
            to_close = record.decision == SweepDecision.ORPHANED and not dry_run
            reports.append(record.to_json(closed=to_close and self._close(record)))
        return reports, self._errors

    def _close(self, record: SweepRecord) -> bool:
        """Close an orphaned session unless its owner is active again; return True if it is closed."""
        if record.owner and self._is_active(record.owner) is not False:
            log.info("Session %s is used again: leaving it open", record.session_id)
            return False
        try:
            self._hook.close_session(record.session_id)
        except IBMQuantumError as error:
            self._errors.append(error)
            return False
        log.info("Closed session %s", record.session_id)
        count(
            "sessions_swept",
            conn_id=self._hook.ibm_quantum_conn_id,
            backend=record.backend,
            mode=record.mode,
            dag_id=record.owner.dag_id if record.owner else None,
        )
        return True

    def _records(self, *, tidy: bool) -> Iterator[SweepRecord]:
        """Look at what IBM lists, and at what is registered besides, such as with another user's key."""
        listed = {workload.id: workload.created for workload in self._workloads()}
        for session_id in dict.fromkeys([*listed, *self._registry.list_ids()]):
            owner, problem = self._owner(session_id)
            # Of sessions opened with other connections, IBM knows nothing here.
            if session_id not in listed and not (owner and owner.conn_id == self._hook.ibm_quantum_conn_id):
                continue
            if problem:
                self._errors.append(problem)
            session = self._read(session_id, is_registered=owner is not None or problem is not None)
            if isinstance(session, NotFoundError):
                is_over = session_id not in listed and owner is not None and self._is_forgotten(owner)
            else:
                # While its owner is active, that one is about to record it, maybe with IBM's final usage.
                is_closed = session is not None and session.is_closed
                is_over = is_closed and owner is not None and self._is_active(owner) is False
            if isinstance(session, NotFoundError) or session is None or session.is_closed:
                if is_over and owner and tidy:  # whoever closed it has not unregistered it
                    self._unregister(session_id, None if isinstance(session, NotFoundError) else session)
                continue
            created = listed.get(session_id)
            age = int(time.time() - _opened_at(owner, created))
            decision = SweepDecision.UNKNOWN if problem else self._decide(session, owner, age)
            yield SweepRecord(
                session_id=session.id,
                backend=session.backend_name,
                mode=session.mode,
                state=session.state,
                age=age,
                owner=owner,
                decision=decision,
            )

    def _owner(self, session_id: str) -> tuple[SessionOwner | None, IBMQuantumError | None]:
        """Return the session's owner, and the error if it may have one that cannot be found out."""
        try:
            owner = self._registry.get_owner(session_id)
        except AirflowApiUnavailableError as error:
            return None, error
        except ValueError:
            owner, defect = None, "is unreadable"
        else:
            is_ours = owner is not None and owner.conn_id == self._hook.ibm_quantum_conn_id
            if (
                owner is None
                or not is_ours
                or owner.is_signed(session_id, self._hook.credentials.api_key.reveal())
            ):
                return owner, None
            defect = "was not written with this connection's API key"
        return None, IBMQuantumError(
            f"The variable {PREFIX}{session_id} {defect}, so the sweep leaves session {session_id} open. "
            "Delete the variable, and close the session if nobody uses it"
        )

    def _read(self, session_id: str, *, is_registered: bool) -> Session | NotFoundError | None:
        """Read the session, if that can be done; an error is collected for the end."""
        try:
            return self._hook.get_session(session_id)
        except NotFoundError as error:
            log.warning("%s", error)
            return error
        except IBMQuantumError as error:
            log.warning("%s", error)
            # Another user's session is not ours to read.
            if is_registered or not isinstance(error, PermissionDeniedError):
                self._errors.append(error)
            return None

    def _workloads(self) -> Iterator[Workload]:
        user = {} if self._scope == SweepScope.INSTANCE else {"user": "me"}
        for mode in ("session", "batch"):
            yield from self._hook.list_workloads(mode=mode, status=["pending", "in_progress"], **user)

    def _decide(self, session: Session, owner: SessionOwner | None, age: float) -> SweepDecision:
        return decide(
            session.accepts_jobs,
            owner,
            age,
            scope=self._scope,
            min_age=self._min_age,
            is_active=self._is_active,
        )

    def _is_forgotten(self, owner: SessionOwner) -> bool:
        """Return True if IBM will not list the session any more, as it may late, and nobody uses it."""
        is_recent = time.time() - owner.opened < max(self._min_age, _LISTED_AFTER)
        return not is_recent and self._is_active(owner) is False

    def _is_active(self, owner: SessionOwner) -> bool | None:
        """Return True if the owner is active, None if Airflow does not answer."""
        try:
            return self._registry.is_owner_active(owner)
        except AirflowApiUnavailableError as error:
            self._errors.append(error)
            return None

    def _unregister(self, session_id: str, session: Session | None) -> None:
        try:
            self._hook.unregister_session(session_id, session)
        except AirflowApiUnavailableError as error:
            self._errors.append(error)


def _opened_at(owner: SessionOwner | None, created: datetime | None) -> float:
    """Return when a session was opened, in seconds since the epoch, as far as anybody knows."""
    if created:
        return created.timestamp()
    return owner.opened if owner else time.time()
