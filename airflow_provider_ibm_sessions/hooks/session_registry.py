# SPDX-License-Identifier: Apache-2.0
"""
The registry of open sessions: which this Airflow has opened, and for whom.

IBM's sessions carry no label, and no task can read what another keeps. So each open session has an Airflow
variable, ``ibm_quantum_session_<id>``, until it is closed. A sweep reads there whose session it is.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.airflow_lookup import ensure_variable_absent
from airflow_provider_ibm_sessions.hooks.metrics import emit_usage
from airflow_provider_ibm_sessions.hooks.owner_lookup import ActiveOwners, find_active
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_record import SessionRecord, write_to_task_state
from airflow_provider_ibm_sessions.links import console_url

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

PREFIX = "ibm_quantum_session_"

COPY_KEY: Final = "ibm_quantum_registry_copy"
"""The variable in which a sweep keeps the entries that it has read, for the next one."""

_COPIED_FROM = 20
"""How many registered sessions are read from the copy; fewer are read one by one."""

_WRITE_DELAYS = (0.5, 1.0, 0.0)
"""Seconds to wait after each failure to write an entry."""

_registered_here: dict[str, Any] = {}
"""The sessions that this process has registered, and by which task instance."""


class RegistryEntry(NamedTuple):
    """
    The entry of a session as it was read.

    :param text: None if this Airflow has not opened the session.
    :param error: Why it could not be read.
    :param is_copy: True if an earlier sweep has read it; it may have changed since.
    """

    text: str | None
    error: AirflowApiUnavailableError | None = None
    is_copy: bool = False

    @property
    def is_readable(self) -> bool:
        """Return True if it is an entry that can be parsed; only such entries are copied."""
        try:
            return self.parse() is not None
        except (AirflowApiUnavailableError, ValueError):
            return False

    def parse(self) -> SessionOwner | None:
        """Return the session's owner; see :meth:`SessionRegistry.get_owner`."""
        if self.error:
            raise self.error
        return None if self.text is None else SessionOwner.parse(self.text)


class SessionRegistry(Protocol):
    """Entries of open sessions, and the states of their owners."""

    def read_entries(
        self, session_ids: Iterable[str], *, keep_copies: bool = False
    ) -> dict[str, RegistryEntry]:
        """
        Return the entries of these sessions, and of all others that are registered.

        Before Airflow 3.3, which cannot list variables, only those of these sessions.

        :param keep_copies: Store copies of many, so that the next sweep need not read each of them.
        :raises AirflowApiUnavailableError: If Airflow does not list them.
        """

    def get_owner(self, session_id: str) -> SessionOwner | None:
        """
        Return the task that this Airflow has opened the session for, or None if it has not.

        :raises ValueError: If the entry is unreadable.
        :raises AirflowApiUnavailableError: If Airflow does not answer.
        """

    def find_active(self, owners: Iterable[SessionOwner]) -> ActiveOwners:
        """Return which of these owners may still use their sessions."""

    def unregister(self, session_id: str, record: SessionRecord | None) -> None:
        """
        Keep the record of a session that is closed, then remove the session.

        One whose record cannot be kept stays registered: the next sweep sees it again.
        """


class VariableSessionRegistry:
    """
    The registry as tasks and triggers use it: through Airflow's API.

    :param context: The running task's context; None outside of a task, where nothing can be registered.
    """

    def __init__(self, context: Context | None) -> None:
        self._context = context

    def register(self, session_id: str, owner: SessionOwner, url: str) -> None:
        """
        Register an open session.

        A failed write is logged and does not fail the task; the sweep then ignores the session.

        :param url: The session's page, for the log.
        """
        from airflow.providers.common.compat.sdk import Variable

        _registered_here[session_id] = self._context and self._context["ti"].id
        for delay in _WRITE_DELAYS:
            try:
                Variable.set(PREFIX + session_id, owner.to_json(), "Open session, and its owner")
            except Exception:  # whatever failed, the session is open: the task has to go on
                log.warning("Could not write the variable of session %s", session_id, exc_info=True)
                time.sleep(delay)
            else:
                return
        log.error(
            "Could not register session %s; the sweep operator will treat it as not opened by this Airflow. "
            "See that a task closes it, or close it at %s",
            session_id,
            url,
        )

    def unregister(self, session_id: str, record: SessionRecord | None) -> None:
        """Keep the record, and remove the session. A failure is logged; the next sweep repeats it."""
        from airflow.providers.common.compat.sdk import Variable

        # Before Airflow 3.3, no sweep would see it again.
        if record is not None and not self.keep(record) and hasattr(Variable, "keys"):
            return
        try:
            Variable.delete(PREFIX + session_id)
        except Exception:  # whatever failed, the session is closed
            log.warning("The variable of session %s could not be deleted", session_id, exc_info=True)

    def keep(self, record: SessionRecord) -> bool:
        """
        Keep a record in the running task's state store; before Airflow 3.3, as an XCom of the task.

        :returns: False if there is no task to keep it, as in a trigger, or Airflow does not store it.
        """
        if self._context is None:
            log.info("No task keeps a record of session %s; the next sweep does", record.session_id)
            return False
        store: Any = self._context.get("task_state_store")
        record = replace(record, closed_by=str(SessionOwner.of(self._context, record.conn_id)))
        is_new = True
        try:
            if store is not None:
                is_new = store.get(record.key) is None
                write_to_task_state(store, record)
            else:
                self._context["ti"].xcom_push(key=record.key, value=record.to_json())
        except Exception:  # whatever failed, the session is closed
            log.warning(
                "The record of session %s could not be written; the next sweep does it",
                record.session_id,
                exc_info=True,
            )
            return False
        if is_new:
            emit_usage(record)
        return True

    def list_ids(self) -> list[str]:
        """
        Return the ids of all registered sessions; none before Airflow 3.3, which cannot list them.

        :raises AirflowApiUnavailableError: If Airflow does not answer.
        """
        from airflow.providers.common.compat.sdk import Variable

        try:
            keys = list(Variable.keys(PREFIX)) if hasattr(Variable, "keys") else []
        except Exception as error:  # whatever it is: Airflow names no exceptions here
            raise AirflowApiUnavailableError(
                "Airflow does not list the variables of open sessions: is its API server up?"
            ) from error
        return [key.removeprefix(PREFIX) for key in keys]

    def read_entries(
        self, session_ids: Iterable[str], *, keep_copies: bool = False
    ) -> dict[str, RegistryEntry]:
        """
        Return the entries of these and of all registered sessions; see :class:`SessionRegistry`.

        Airflow's API gives out one variable in a request. So where there are many, those that an earlier
        sweep has read are taken from its copy, and only new ones are read.
        """
        from airflow.providers.common.compat.sdk import Variable

        entries = dict.fromkeys(session_ids, RegistryEntry(None))
        registered = self.list_ids() if hasattr(Variable, "keys") else list(entries)
        copies = self._read_copies() if len(registered) >= _COPIED_FROM else {}
        for session_id in registered:
            if session_id in copies:
                entries[session_id] = RegistryEntry(copies[session_id], is_copy=True)
            else:
                entries[session_id] = self._read_entry(session_id)
        if keep_copies and len(registered) >= _COPIED_FROM:
            texts = {name: entry.text for name, entry in entries.items() if entry.text and entry.is_readable}
            if texts != copies:
                self._write_copies(texts)
        return entries

    def get_owner(self, session_id: str) -> SessionOwner | None:
        """Return the session's owner; see :class:`SessionRegistry`."""
        return self._read_entry(session_id).parse()

    def _read_entry(self, session_id: str) -> RegistryEntry:
        try:
            return RegistryEntry(self._read_text(session_id))
        except AirflowApiUnavailableError as error:
            return RegistryEntry(None, error)

    @staticmethod
    def _read_text(session_id: str) -> str | None:
        from airflow.providers.common.compat.sdk import Variable

        key = PREFIX + session_id
        try:
            text = Variable.get(key, default=None)
        except Exception as error:  # whatever it is: Airflow names no exceptions here
            raise AirflowApiUnavailableError(
                f"Airflow does not answer whose session {session_id} is: is its API server up?"
            ) from error
        return text or ensure_variable_absent(key)

    def _read_copies(self) -> dict[str, str]:
        """Return the entries that the last sweep has read; none if there is no readable copy."""
        from airflow.providers.common.compat.sdk import Variable

        try:
            copies = json.loads(Variable.get(COPY_KEY, default="{}"))
            return {name: text for name, text in copies.items() if RegistryEntry(text).is_readable}
        except Exception:  # whatever failed, the entries themselves are read
            log.warning("The variable %s cannot be read; it is written again", COPY_KEY, exc_info=True)
            return {}

    def _write_copies(self, texts: dict[str, str]) -> None:
        from airflow.providers.common.compat.sdk import Variable

        try:
            Variable.set(COPY_KEY, json.dumps(texts), "Entries that the last sweep has read. May be deleted")
        except Exception:  # whatever failed, the next sweep reads the entries themselves
            log.warning("The variable %s could not be written", COPY_KEY, exc_info=True)

    def ids_of_this_task(self) -> list[str]:
        """
        Return the sessions that earlier tries of the running task have opened; none before Airflow 3.3.

        :raises AirflowApiUnavailableError: If Airflow does not answer.
        """
        if self._context is None:
            return []
        this_task = SessionOwner.of(self._context, "")
        found = []
        for session_id, entry in self.read_entries(()).items():
            if _registered_here.get(session_id) == self._context["ti"].id:
                continue
            try:
                owner = entry.parse()
                if entry.is_copy and owner is not None and owner.is_same_task(this_task):
                    owner = self.get_owner(session_id)
            except ValueError:
                log.warning("The registry's entry of session %s is unreadable", session_id, exc_info=True)
                continue
            if owner is not None and owner.is_same_task(this_task):
                found.append(session_id)
        return found

    def belongs_to_other_task(self, session_id: str) -> bool:
        """
        Return True if the session is another task's, or one that this try has opened before.

        :raises AirflowApiUnavailableError: If Airflow does not answer.
        """
        if self._context and _registered_here.get(session_id) == self._context["ti"].id:
            return True
        try:
            owner = self.get_owner(session_id)
        except ValueError:
            log.warning("The registry's entry of session %s is unreadable", session_id, exc_info=True)
            return True
        if owner is None or self._context is None:
            return owner is not None
        return not owner.is_same_task(SessionOwner.of(self._context, ""))

    def find_active(self, owners: Iterable[SessionOwner]) -> ActiveOwners:
        """Return which of these owners may still use their sessions; see :func:`find_active`."""
        if self._context is None:
            error = AirflowApiUnavailableError("Only a task can ask Airflow for the state of another")
            return ActiveOwners((), dict.fromkeys(owners, error))
        return find_active(self._context["ti"], owners)


def raise_if_other_connection(registry: SessionRegistry, session_id: str, conn_id: str) -> bool:
    """
    Compare the connections where IBM does not know a session: it may be open at another one.

    :returns: True if the session is registered for this connection.
    :raises ConfigurationError: If this Airflow has opened it with another connection.
    :raises AirflowApiUnavailableError: If Airflow does not answer.
    """
    try:
        owner = registry.get_owner(session_id)
    except ValueError:
        log.warning("The registry's entry of session %s is unreadable", session_id, exc_info=True)
        return True
    if owner is not None and owner.conn_id != conn_id:
        raise ConfigurationError(
            f"ibm_quantum_conn_id must be '{owner.conn_id}', with which session {session_id} was opened; got "
            f"'{conn_id}', where IBM does not know it. It may be open: {console_url(session_id)}",
            field="ibm_quantum_conn_id",
        )
    return owner is not None
