# SPDX-License-Identifier: Apache-2.0
"""
The registry of open sessions: which this Airflow has opened, and for whom.

IBM's sessions carry no label, and no task can read what another keeps. So each open session has an Airflow
variable, ``ibm_quantum_session_<id>``, until it is closed. A sweep reads there whose session it is.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.airflow_lookup import ensure_variable_absent
from airflow_provider_ibm_sessions.hooks.metrics import emit_usage
from airflow_provider_ibm_sessions.hooks.session_record import SessionRecord, write_to_task_state
from airflow_provider_ibm_sessions.links import console_url

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

PREFIX = "ibm_quantum_session_"

ACTIVE_RUN_STATES = ["queued", "running"]
FINISHED_TASK_STATES = ["success", "failed", "skipped", "upstream_failed", "removed"]

_WRITE_DELAYS = (0.5, 1.0, 0.0)
"""Seconds to wait after each failure to write an entry."""

_TYPES: dict[str, type | tuple[type, ...]] = {
    "map_index": int,
    "try_number": int,
    "dag_run_scoped": bool,
    "opened": (int, float),
}
"""Types of an entry's fields; all others are str."""

_registered_here: dict[str, Any] = {}
"""The sessions that this process has registered, and by which task instance."""


@dataclass(frozen=True, slots=True)
class SessionOwner:
    """
    The task that a session was opened for.

    :param conn_id: The Airflow connection it was opened with.
    :param dag_run_scoped: True if it may be used as long as the Dag run is active; else as long as the task
        is.
    :param opened: When, in seconds since the epoch.
    :param try_number: The try that has registered it last; 0 if that is not known.
    :param signature: Shows that the entry was written by a holder of the connection's API key.
    """

    conn_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    dag_run_scoped: bool = False
    opened: float = 0.0
    try_number: int = 0
    signature: str = ""

    def __str__(self) -> str:
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{index} of run {self.run_id}"

    @classmethod
    def of(cls, context: Context, conn_id: str, *, dag_run_scoped: bool = True) -> SessionOwner:
        """Return the running task as an owner."""
        ti = context["ti"]
        return cls(
            conn_id=conn_id,
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else int(ti.map_index),
            dag_run_scoped=dag_run_scoped,
            opened=time.time(),
            try_number=int(ti.try_number or 0),
        )

    @classmethod
    def parse(cls, text: str) -> SessionOwner:
        """
        Parse an entry; fields of newer versions are ignored.

        :raises ValueError: If it is no entry of a session.
        """
        try:
            known = {field.name for field in fields(cls)}
            owner = cls(**{name: value for name, value in json.loads(text).items() if name in known})
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError("not the entry of a session") from error
        if not all(isinstance(value, _TYPES.get(name, str)) for name, value in asdict(owner).items()):
            raise ValueError("not the entry of a session")
        return owner

    def signed(self, session_id: str, api_key: str) -> SessionOwner:
        """Return the entry with its signature, an HMAC-SHA256 that tells nothing of the key."""
        return replace(self, signature=self._signature(session_id, api_key))

    def is_signed(self, session_id: str, api_key: str) -> bool:
        """Return True if a holder of this API key has written the entry for this session."""
        return hmac.compare_digest(self.signature.encode(), self._signature(session_id, api_key).encode())

    def is_same_task(self, other: SessionOwner) -> bool:
        """Return True if both are the same task of the same run, whichever try."""
        mine, theirs = (
            (owner.dag_id, owner.run_id, owner.task_id, owner.map_index) for owner in (self, other)
        )
        return mine == theirs

    def to_json(self) -> str:
        """Return the entry as text."""
        return json.dumps(asdict(self))

    def _signature(self, session_id: str, api_key: str) -> str:
        values = asdict(replace(self, signature=""))
        if not self.try_number:  # an entry of an older version, which has no such field
            del values["try_number"]
        entry = json.dumps([session_id, *values.values()])
        return hmac.new(api_key.encode(), entry.encode(), hashlib.sha256).hexdigest()


class SessionRegistry(Protocol):
    """Entries of open sessions, and the states of their owners."""

    def list_ids(self) -> list[str]:
        """Return the ids of all registered sessions; none before Airflow 3.3, which cannot list them."""

    def get_owner(self, session_id: str) -> SessionOwner | None:
        """
        Return the task that this Airflow has opened the session for, or None if it has not.

        :raises ValueError: If the entry is unreadable.
        :raises AirflowApiUnavailableError: If Airflow does not answer.
        """

    def is_owner_active(self, owner: SessionOwner) -> bool:
        """
        Return True if the owner may still use the session, or close it.

        :raises AirflowApiUnavailableError: If Airflow does not answer.
        """

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
        except Exception:
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
        """Return the ids of all registered sessions; none before Airflow 3.3, which cannot list them."""
        from airflow.providers.common.compat.sdk import Variable

        keys = Variable.keys(PREFIX) if hasattr(Variable, "keys") else []
        return [key.removeprefix(PREFIX) for key in keys]

    def get_owner(self, session_id: str) -> SessionOwner | None:
        """Return the session's owner; see :class:`SessionRegistry`."""
        from airflow.providers.common.compat.sdk import Variable

        key = PREFIX + session_id
        try:
            text = Variable.get(key, default=None)
        except Exception as error:
            raise AirflowApiUnavailableError(
                f"Airflow does not answer whose session {session_id} is: is its API server up?"
            ) from error
        text = text or ensure_variable_absent(key)
        return SessionOwner.parse(text) if text else None

    def ids_of_this_task(self) -> list[str]:
        """
        Return the sessions that earlier tries of the running task have opened; none before Airflow 3.3.

        :raises AirflowApiUnavailableError: If Airflow does not answer.
        """
        if self._context is None:
            return []
        this_task, found = SessionOwner.of(self._context, ""), []
        for session_id in self.list_ids():
            if _registered_here.get(session_id) == self._context["ti"].id:
                continue
            try:
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

    def is_owner_active(self, owner: SessionOwner) -> bool:
        """Return True if the run is active, and the task too if the session is for that only."""
        if self._context is None:
            raise AirflowApiUnavailableError("Only a task can ask Airflow for the state of another")
        ti: Any = self._context["ti"]
        run: dict[str, Any] = {"dag_id": owner.dag_id, "run_ids": [owner.run_id]}
        task = {**run, "task_ids": [owner.task_id]}
        if owner.map_index >= 0:
            task["map_index"] = owner.map_index
        try:
            if not ti.get_dr_count(**run, states=ACTIVE_RUN_STATES):
                return False
            return owner.dag_run_scoped or not ti.get_ti_count(**task, states=FINISHED_TASK_STATES)
        except Exception as error:
            raise AirflowApiUnavailableError(
                f"Airflow does not answer whether {owner} is active: is its API server up?"
            ) from error


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
