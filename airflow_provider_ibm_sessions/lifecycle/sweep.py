# SPDX-License-Identifier: Apache-2.0
"""Finds the sessions that nobody uses any more, and closes them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, NotFoundError, PermissionDeniedError
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.session_registry import Owner

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_ibm_sessions.client.models.instance import Workload
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from airflow_provider_ibm_sessions.hooks.session_registry import SessionRegistry

log = logging.getLogger(__name__)

_LATE = 900.0
"""Seconds after which IBM surely shows what was opened."""


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
    UNCLEAR = "Airflow does not tell whose it is"
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

    def __init__(
        self, hook: IBMQuantumHook, ledger: SessionRegistry, *, scope: Scope, min_age: float
    ) -> None:
        self._hook = hook
        self._ledger = ledger
        self._scope = scope
        self._min_age = min_age
        self._failures: list[IBMQuantumError] = []

    def run(self, *, dry_run: bool) -> tuple[list[dict[str, Any]], list[IBMQuantumError]]:
        """
        Look at every open session in the scope, the oldest first, and close what belongs to nobody.

        :param dry_run: Change nothing.
        :returns: A report on each session, and what stands in the way of reading or closing some.
        :raises IBMQuantumError: If the list cannot be read.
        """
        self._failures = []
        reports = []
        for finding in sorted(self._findings(tidy=not dry_run), key=lambda found: -found.age):
            log.info("%s", finding)
            to_close = finding.verdict == Verdict.ORPHAN and not dry_run
            reports.append(finding.to_json(closed=to_close and self._closed(finding)))
        return reports, self._failures

    def _closed(self, finding: Finding) -> bool:
        """Close an orphan, unless its owner has come back to life since; whether it is closed now."""
        if self._may_be_live(finding.owner):
            log.info("Session %s is used again", finding.session_id)
            return False
        try:
            self._hook.close_session(finding.session_id)
        except IBMQuantumError as error:
            self._failures.append(error)
            return False
        log.info("Closed session %s", finding.session_id)
        self._strike(finding.session_id)
        return True

    def _findings(self, *, tidy: bool) -> Iterator[Finding]:
        """What IBM lists, and what is entered besides: opened with the key of another user, for one."""
        listed = {workload.id: workload.created for workload in self._workloads()}
        for session_id in dict.fromkeys([*listed, *self._ledger.sessions()]):
            entry = self._entry(session_id)
            if session_id not in listed and not self._is_here(entry):
                continue
            session = self._read(session_id, entry)
            if isinstance(session, NotFoundError):
                is_over = session_id not in listed and self._is_forgotten(entry)
            else:
                is_over = session is not None and session.is_closed
                if session is not None and not session.is_closed:
                    yield self._judged(session, entry, listed.get(session_id))
            if is_over and entry and tidy:  # nobody has noted it
                self._strike(session_id)

    def _entry(self, session_id: str) -> Owner | Verdict | None:
        try:
            return self._ledger.get_owner(session_id)
        except ValueError as error:
            log.warning("Airflow's variable of session %s: %s", session_id, error)
        except AirflowApiUnavailableError as error:
            self._failures.append(error)
        return Verdict.UNCLEAR

    def _is_forgotten(self, entry: Owner | Verdict | None) -> bool:
        """Whether nobody will ask for a session any more that IBM does not know: it may show it late."""
        if not isinstance(entry, Owner):
            return False
        is_young = time.time() - entry.opened < max(self._min_age, _LATE)
        return not is_young and not self._may_be_live(entry)

    def _is_here(self, entry: Owner | Verdict | None) -> bool:
        """Whether an entered session was opened at this connection: of others, IBM knows nothing here."""
        if entry is None or isinstance(entry, Verdict):
            return False
        return entry.conn_id == self._hook.ibm_quantum_conn_id

    def _read(self, session_id: str, entry: object) -> Session | NotFoundError | None:
        """The session, if it can be read. What is in the way of that is told at the end."""
        try:
            return self._hook.get_session(session_id)
        except NotFoundError as error:
            log.warning("%s", error)
            return error
        except IBMQuantumError as error:
            log.warning("%s", error)
            if entry or not isinstance(error, PermissionDeniedError):  # another user's is not ours to read
                self._failures.append(error)
            return None

    def _workloads(self) -> Iterator[Workload]:
        user = {} if self._scope == Scope.INSTANCE else {"user": "me"}
        for mode in ("session", "batch"):
            yield from self._hook.list_workloads(mode=mode, status=["pending", "in_progress"], **user)

    def _judged(self, session: Session, entry: Owner | Verdict | None, created: datetime | None) -> Finding:
        owner = None if isinstance(entry, Verdict) else entry
        opened = created.timestamp() if created else owner.opened if owner else time.time()
        age = int(time.time() - opened)
        return Finding(
            session_id=session.id,
            backend=session.backend_name,
            mode=session.mode,
            state=session.state,
            age=age,
            owner=owner,
            verdict=entry if isinstance(entry, Verdict) else self._verdict(session, owner, age),
        )

    def _verdict(self, session: Session, owner: Owner | None, age: float) -> Verdict:
        if not session.accepts_jobs:
            return Verdict.DRAINING
        if owner is None and self._scope == Scope.AIRFLOW:
            return Verdict.FOREIGN
        is_live = self._is_live(owner)
        if is_live is None:
            return Verdict.UNCLEAR
        if is_live:
            return Verdict.LIVE
        return Verdict.YOUNG if age < self._min_age else Verdict.ORPHAN

    def _may_be_live(self, owner: Owner | None) -> bool:
        return self._is_live(owner) is not False

    def _is_live(self, owner: Owner | None) -> bool | None:
        """None if Airflow does not tell."""
        try:
            return owner is not None and self._ledger.is_live(owner)
        except AirflowApiUnavailableError as error:
            self._failures.append(error)
            return None

    def _strike(self, session_id: str) -> None:
        try:
            self._ledger.strike(session_id)
        except AirflowApiUnavailableError as error:
            self._failures.append(error)
