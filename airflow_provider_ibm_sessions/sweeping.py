# SPDX-License-Identifier: Apache-2.0
"""Finds the sessions that nobody uses any more, and closes them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, NotFoundError, PermissionDeniedError

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.models import Session, Workload
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from airflow_provider_ibm_sessions.ledger import Ledger, Owner

log = logging.getLogger(__name__)


class Scope(StrEnum):
    """
    Whose sessions a sweep may close.

    ``airflow``: those that this Airflow has opened. ``user``: all others of the API key's user as well, made
    by another tool or another Airflow. ``instance``: everybody's.
    """

    AIRFLOW = "airflow"
    USER = "user"
    INSTANCE = "instance"


class Verdict(StrEnum):
    """What a session is to a sweep."""

    LIVE = "belongs to a live run"
    DRAINING = "takes no more jobs, and closes itself"
    YOUNG = "too young"
    FOREIGN = "not opened by this Airflow"
    ORPHAN = "belongs to nobody"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    A session that is open.

    :param age: Seconds since it was opened.
    :param owner: Whom this Airflow has opened it for, if it has.
    """

    session_id: str
    backend: str | None
    mode: str | None
    state: str | None
    age: int
    owner: Owner | None
    verdict: Verdict

    def __str__(self) -> str:
        whose = f", opened for {self.owner}" if self.owner else ""
        what = f"Session {self.session_id} ({self.mode}) on {self.backend}, {self.state}, {self.age} s old"
        return f"{what}{whose}: {self.verdict}"

    def to_json(self, *, closed: bool) -> dict[str, Any]:
        """For XCom, and for programs."""
        return {
            "session_id": self.session_id,
            "backend": self.backend,
            "mode": self.mode,
            "state": self.state,
            "age": self.age,
            "owner": str(self.owner) if self.owner else None,
            "verdict": str(self.verdict),
            "closed": closed,
        }


class Sweep:
    """
    One look at all open sessions and batches of an instance.

    :param min_age: Seconds; what is younger is left alone.
    """

    def __init__(self, hook: IBMQuantumHook, ledger: Ledger, *, scope: Scope, min_age: float) -> None:
        self._hook = hook
        self._ledger = ledger
        self._scope = scope
        self._min_age = min_age
        self._unreadable: list[IBMQuantumError] = []

    def findings(self) -> list[Finding]:
        """
        Every open session in the scope, the oldest first, and what it is.

        :raises IBMQuantumError: If the list cannot be read.
        """
        found = [self._judged(session, opened) for session, opened in self._open_sessions()]
        return sorted(found, key=lambda finding: -finding.age)

    def run(self, *, dry_run: bool) -> tuple[list[dict[str, Any]], list[IBMQuantumError]]:
        """
        Close what belongs to nobody, unless this is a dry run.

        :returns: A report on each session, and what stands in the way of closing some.
        :raises IBMQuantumError: If the list cannot be read.
        """
        findings = self.findings()
        failures = self._unreadable
        reports = []
        for finding in findings:
            log.info("%s", finding)
            to_close = finding.verdict == Verdict.ORPHAN and not dry_run
            reports.append(finding.to_json(closed=to_close and self._closed(finding, failures)))
        if not dry_run:
            self._tidy(findings)
        return reports, failures

    def _closed(self, finding: Finding, failures: list[IBMQuantumError]) -> bool:
        """Close an orphan, unless its owner has come back to life since; whether it is closed now."""
        if self._is_live(finding.owner):
            log.info("Session %s is used again", finding.session_id)
            return False
        try:
            self._hook.close_session(finding.session_id)
        except IBMQuantumError as error:
            failures.append(error)
            return False
        self._ledger.strike(finding.session_id)
        log.info("Closed session %s", finding.session_id)
        return True

    def _tidy(self, findings: list[Finding]) -> None:
        """Strike out the sessions that have closed without anybody noting it."""
        is_open = {finding.session_id for finding in findings}
        for session_id in self._ledger.sessions():
            owner = None if session_id in is_open else self._ledger.owner_of(session_id)
            if owner and owner.conn_id == self._hook.ibm_quantum_conn_id and self._is_closed(session_id):
                self._ledger.strike(session_id)

    def _open_sessions(self) -> Iterator[tuple[Session, datetime]]:
        for workload in self._workloads():
            try:
                session = self._hook.get_session(workload.id)
            except (NotFoundError, PermissionDeniedError) as error:
                log.warning("%s", error)
                if isinstance(error, PermissionDeniedError) and self._ledger.owner_of(workload.id):
                    self._unreadable.append(error)  # another user's is none of our business; ours is
                continue
            if not session.is_closed:
                yield session, workload.created or session.started_at or datetime.now(UTC)

    def _workloads(self) -> Iterator[Workload]:
        user = {} if self._scope == Scope.INSTANCE else {"user": "me"}
        for mode in ("session", "batch"):
            yield from self._hook.list_workloads(mode=mode, status=["pending", "in_progress"], **user)

    def _judged(self, session: Session, opened: datetime) -> Finding:
        owner = self._ledger.owner_of(session.id)
        age = (datetime.now(UTC) - opened).total_seconds()
        return Finding(
            session_id=session.id,
            backend=session.backend_name,
            mode=session.mode,
            state=session.state,
            age=int(age),
            owner=owner,
            verdict=self._verdict(session, owner, age),
        )

    def _verdict(self, session: Session, owner: Owner | None, age: float) -> Verdict:
        if not session.takes_jobs:
            return Verdict.DRAINING
        if owner is None and self._scope == Scope.AIRFLOW:
            return Verdict.FOREIGN
        if self._is_live(owner):
            return Verdict.LIVE
        return Verdict.YOUNG if age < self._min_age else Verdict.ORPHAN

    def _is_live(self, owner: Owner | None) -> bool:
        return owner is not None and self._ledger.is_live(owner)

    def _is_closed(self, session_id: str) -> bool:
        try:
            return self._hook.get_session(session_id).is_closed
        except NotFoundError:
            return True
        except IBMQuantumError as error:
            log.warning("%s", error)
            return False
