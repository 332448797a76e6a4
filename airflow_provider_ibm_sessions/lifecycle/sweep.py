# SPDX-License-Identifier: Apache-2.0
"""Find sessions that nobody uses any more, and close them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import conf

from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    NotFoundError,
    PermissionDeniedError,
)
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.metrics import count
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX, RegistryEntry
from airflow_provider_ibm_sessions.lifecycle.sweep_decision import (
    SweepDecision,
    SweepRecord,
    SweepScope,
    decide,
)

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.models.instance import Workload
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from airflow_provider_ibm_sessions.hooks.owner_lookup import ActiveOwners
    from airflow_provider_ibm_sessions.hooks.session_record import SessionRecord
    from airflow_provider_ibm_sessions.hooks.session_registry import SessionRegistry

log = logging.getLogger(__name__)

_LISTED_AFTER = 900.0
"""Seconds after which IBM surely lists what was opened."""

_AT_ONCE: Final = 10
"""Sessions that are read or closed at once: as many as a client has connections."""

_MODES: Final = {"session": "dedicated", "batch": "batch"}
"""The modes in IBM's list of workloads that are sessions, and what the sessions themselves call them."""


class SessionSweeper:
    """
    One look at all open sessions and batches of an instance.

    Airflow is asked once about all owners, and IBM about what may be orphaned; right before a session is
    closed, its owner is asked about once more.

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
        self._registry = _SerialRegistry(hook.registry)
        self._scope = scope
        self._min_age = min_age
        self._errors: dict[IBMQuantumError, None] = {}

    def run(self, *, dry_run: bool) -> tuple[list[SweepRecord], list[IBMQuantumError]]:
        """
        Look at every open session in the scope, the oldest first, and close what is orphaned.

        :param dry_run: Change nothing.
        :returns: A record of each session, and the errors of those that could not be read or closed.
        :raises IBMQuantumError: If a list cannot be read.
        """
        self._errors = {}
        registry, self._hook.registry = self._hook.registry, self._registry
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                found = sorted(self._look(pool, tidy=not dry_run), key=lambda record: -record.age)
                for record in found:
                    if record.decision != SweepDecision.ACTIVE:
                        log.info("%s", record)
                if not dry_run:
                    found = self._close_orphaned(pool, found)
        finally:
            self._hook.registry = registry
        kinds = Counter(record.decision for record in found)
        log.info(
            "%d sessions were open, %d of them are closed now%s",
            len(found),
            sum(record.closed for record in found),
            "".join(f"; {kind}: {number}" for kind, number in kinds.items()),
        )
        return found, list(self._errors)

    def _look(self, pool: ThreadPoolExecutor, *, tidy: bool) -> list[SweepRecord]:
        """Look at what IBM lists, and at what is registered besides, such as with another user's key."""
        found = {record.session_id: record for record in self._find(tidy=tidy)}
        # Only these may be closed, or unregistered: what IBM does not list may have ended unnoticed.
        to_read = [
            record
            for record in found.values()
            if record.decision == SweepDecision.ORPHANED
            or (record.decision == SweepDecision.TOO_RECENT and not record.is_listed)
        ]
        for record, read in zip(to_read, pool.map(partial(self._read, tidy=tidy), to_read), strict=True):
            if read is None:
                del found[record.session_id]
            else:
                found[record.session_id] = read
        return list(found.values())

    def _find(self, *, tidy: bool) -> Iterator[SweepRecord]:
        """Yield what may be known of the sessions without reading them."""
        # First the list, then the registry: all that is listed and registered is known to be so.
        listed = {workload.id: workload for workload in self._workloads()}
        entries = self._registry.read_entries(listed, keep_copies=tidy)
        found = []
        for session_id, entry in entries.items():
            workload = listed.get(session_id)
            owner, problem = self._owner(session_id, entry.parse)
            if problem and entry.is_copy:  # it may have been written again since
                owner, problem = self._owner(session_id, partial(self._registry.get_owner, session_id))
            # Of sessions opened with other connections, IBM knows nothing here.
            if workload is None and (owner is None or owner.conn_id != self._hook.ibm_quantum_conn_id):
                continue
            if problem:
                if workload is None and self._unregister_if_closed(session_id, tidy=tidy):
                    continue
                self._errors[problem] = None
            record = SweepRecord(
                session_id=session_id,
                backend=workload.backend if workload else None,
                mode=_MODES.get(str(workload.mode)) if workload else None,
                state=workload.status if workload else None,
                age=int(time.time() - _opened_at(owner, workload)),
                owner=None if problem else owner,
                decision=SweepDecision.UNKNOWN,
                is_listed=workload is not None,
                is_copy=entry.is_copy,
            )
            found.append((record, workload is None or workload.accepting_jobs is not False, problem))
        active = self._find_active(record for record, _, _ in found)
        for record, accepts_jobs, problem in found:
            yield record if problem else self._decide(record, accepts_jobs, active)

    def _unregister_if_closed(self, session_id: str, *, tidy: bool) -> bool:
        """
        Unregister a session whose owner is not certain, if IBM says that it is closed; return True if so.

        :param tidy: False: only return it.
        """
        try:
            session = self._hook.get_session(session_id)
            if session.is_closed and tidy:
                self._hook.unregister_session(session_id, session)
        except IBMQuantumError as error:
            log.warning("%s", error)
            return False
        return session.is_closed

    def _read(self, record: SweepRecord, *, tidy: bool) -> SweepRecord | None:
        """
        Return the record with what IBM says of the session; None if it is closed or cannot be read.

        :param tidy: Unregister one that has ended and is registered all the same.
        """
        session: Session | None = None
        try:
            session = self._hook.get_session(record.session_id)
        except NotFoundError as error:
            log.warning("%s", error)
            opened = record.owner.opened if record.owner else 0.0
            # IBM may list late what was just opened.
            is_over = not record.is_listed and time.time() - opened >= max(self._min_age, _LISTED_AFTER)
        except IBMQuantumError as error:
            log.warning("%s", error)
            # Another user's session is not ours to read.
            if record.owner or not isinstance(error, PermissionDeniedError):
                self._errors[error] = None
            return None
        else:
            is_over = session.is_closed
        if is_over and record.owner and tidy:  # whoever closed it has not unregistered it
            try:
                self._hook.unregister_session(record.session_id, session)
            except AirflowApiUnavailableError as error:
                self._errors[error] = None
        if session is None or session.is_closed:
            return None
        read = replace(record, backend=session.backend_name, mode=session.mode, state=session.state)
        return self._decide(read, session.accepts_jobs, {record.owner: False})

    def _close_orphaned(self, pool: ThreadPoolExecutor, found: Sequence[SweepRecord]) -> list[SweepRecord]:
        """Close what is orphaned, the oldest first; return the records as they are then."""
        records = {record.session_id: record for record in found}
        orphaned = [record for record in found if record.decision == SweepDecision.ORPHANED]
        for start in range(0, len(orphaned), _AT_ONCE):
            confirmed = self._confirm(orphaned[start : start + _AT_ONCE])
            still_orphaned = [each for each in confirmed if each.decision == SweepDecision.ORPHANED]
            for record in (*confirmed, *pool.map(self._close, still_orphaned)):
                records[record.session_id] = record
        return list(records.values())

    def _confirm(self, orphaned: Iterable[SweepRecord]) -> list[SweepRecord]:
        """Decide once more, right before closing: Airflow's answers may have changed since."""
        confirmed, known = [], []
        for record in orphaned:
            if record.owner is not None and not record.is_copy:
                known.append(record)
                continue
            # By now it may be registered, or for another task.
            session_id = record.session_id
            owner, problem = self._owner(session_id, partial(self._registry.get_owner, session_id))
            if problem:
                self._errors[problem] = None
                confirmed.append(replace(record, decision=SweepDecision.UNKNOWN))
            else:
                known.append(replace(record, owner=owner))
        active = self._find_active(known)
        confirmed += [self._decide(record, True, active) for record in known]
        for record in confirmed:
            if record.decision != SweepDecision.ORPHANED:
                log.info("Session %s stays open: %s", record.session_id, record.decision)
        return confirmed

    def _close(self, record: SweepRecord) -> SweepRecord:
        """Close an orphaned session, and return its record."""
        try:
            self._hook.close_session(record.session_id)
        except IBMQuantumError as error:
            self._errors[error] = None
            return record
        log.info("Closed session %s", record.session_id)
        count(
            "sessions_swept",
            conn_id=self._hook.ibm_quantum_conn_id,
            backend=record.backend,
            mode=record.mode,
            dag_id=record.owner.dag_id if record.owner else None,
        )
        return replace(record, closed=True)

    def _owner(
        self, session_id: str, read: Callable[[], SessionOwner | None]
    ) -> tuple[SessionOwner | None, IBMQuantumError | None]:
        """
        Return the session's owner, and the error if that is not certain.

        There is no owner with the error of an entry that cannot be read.
        """
        try:
            owner = read()
        except AirflowApiUnavailableError as error:
            return None, error
        except ValueError:
            return None, self._defect(session_id, "is unreadable")
        is_ours = owner is not None and owner.conn_id == self._hook.ibm_quantum_conn_id
        if owner is None or not is_ours or self._is_signed(session_id, owner):
            return owner, None
        return owner, self._defect(session_id, "was not written with this connection's API key")

    @staticmethod
    def _defect(session_id: str, defect: str) -> IBMQuantumError:
        return IBMQuantumError(
            f"The variable {PREFIX}{session_id} {defect}, so the sweep leaves session {session_id} open. "
            "Delete the variable, and close the session if nobody uses it"
        )

    def _is_signed(self, session_id: str, owner: SessionOwner) -> bool:
        return owner.is_signed(session_id, self._hook.credentials.api_key.reveal())

    def _find_active(self, records: Iterable[SweepRecord]) -> dict[SessionOwner | None, bool | None]:
        """Return for each owner True if it is active, None if Airflow does not say; collect the errors."""
        owners = {record.owner for record in records if record.owner}
        active, errors = self._registry.find_active(owners)
        self._errors |= dict.fromkeys(errors.values())
        return {None: False, **{owner: None if owner in errors else owner in active for owner in owners}}

    def _decide(
        self, record: SweepRecord, accepts_jobs: bool, active: Mapping[SessionOwner | None, bool | None]
    ) -> SweepRecord:
        """Return the record with the decision on it."""
        owner = record.owner
        decision = decide(
            accepts_jobs,
            owner,
            record.age,
            scope=self._scope,
            min_age=self._min_age,
            is_active=active[owner],
        )
        # Only the other connection's sweep can tell if such an entry is forged.
        is_foreign = owner is not None and owner.conn_id != self._hook.ibm_quantum_conn_id
        if decision == SweepDecision.ORPHANED and owner and is_foreign:
            is_known = self._is_signed(record.session_id, owner)
            decision = decision if is_known else SweepDecision.ELSEWHERE
        return replace(record, decision=decision)

    def _workloads(self) -> Iterator[Workload]:
        user = {} if self._scope == SweepScope.INSTANCE else {"user": "me"}
        for mode in _MODES:
            yield from self._hook.list_workloads(mode=mode, status=["pending", "in_progress"], **user)


class _SerialRegistry:
    """
    A registry that one thread uses at a time.

    Airflow serves only one thread of a task before 3.3, and in ``dag.test()``.
    """

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._lock = threading.Lock()

    def read_entries(
        self, session_ids: Iterable[str], *, keep_copies: bool = False
    ) -> dict[str, RegistryEntry]:
        with self._lock:
            return self._registry.read_entries(session_ids, keep_copies=keep_copies)

    def get_owner(self, session_id: str) -> SessionOwner | None:
        with self._lock:
            return self._registry.get_owner(session_id)

    def find_active(self, owners: Iterable[SessionOwner]) -> ActiveOwners:
        with self._lock:
            return self._registry.find_active(owners)

    def unregister(self, session_id: str, record: SessionRecord | None) -> None:
        with self._lock:
            self._registry.unregister(session_id, record)


def _opened_at(owner: SessionOwner | None, workload: Workload | None) -> float:
    """Return when a session was opened, in seconds since the epoch, as far as anybody knows."""
    if workload and workload.created:
        return workload.created.timestamp()
    return owner.opened if owner else time.time()
