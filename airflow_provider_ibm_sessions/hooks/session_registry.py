# SPDX-License-Identifier: Apache-2.0
"""
Which sessions this Airflow has opened, and for whom.

IBM's sessions carry no label, and what one task keeps, no other can read. So each open session has an Airflow
variable, ``ibm_quantum_session_<id>``, until it is closed: a sweep reads there whose it is.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.airflow_lookup import ensure_variable_absent
from airflow_provider_ibm_sessions.links import console_url

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

PREFIX = "ibm_quantum_session_"

ACTIVE_RUN_STATES = ["queued", "running"]
FINISHED_TASK_STATES = ["success", "failed", "skipped", "upstream_failed", "removed"]


_PAUSES = (0.5, 1.0, 0.0)
"""Seconds to wait after each failure to write an entry."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    "map_index": int,
    "dag_run_scoped": bool,
    "opened": (int, float),
}
"""What the fields of an entry are; all others are str."""


@dataclass(frozen=True, slots=True)
class Owner:
    """
    Whom a session was opened for.

    :param conn_id: The Airflow connection it was opened at.
    :param opened: When, in seconds since the epoch.
    :param dag_run_scoped: Whether it is for the Dag run; else for the task that opened it only.
    """

    conn_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    dag_run_scoped: bool = False
    opened: float = 0.0

    def __str__(self) -> str:
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{index} of run {self.run_id}"

    @classmethod
    def read(cls, text: str) -> Owner:
        """
        Read what :func:`enter` has written; fields of newer versions are passed over.

        :raises ValueError: If it is nothing of the kind.
        """
        try:
            known = {field.name for field in fields(cls)}
            owner = cls(**{name: value for name, value in json.loads(text).items() if name in known})
        except (TypeError, AttributeError) as error:
            raise ValueError("not the entry of a session") from error
        if not all(isinstance(value, _KINDS.get(name, str)) for name, value in asdict(owner).items()):
            raise ValueError("not the entry of a session")
        return owner


class SessionRegistry(Protocol):
    """The entries, and what has become of the owners."""

    def sessions(self) -> list[str]:
        """The ids of all sessions that are entered; none before Airflow 3.3, which cannot list them."""

    def get_owner(self, session_id: str) -> Owner | None:
        """
        Whom this Airflow has opened the session for, or None if it has not.

        :raises ValueError: If it has an entry that cannot be read.
        :raises AirflowApiUnavailableError: If Airflow does not tell.
        """

    def is_live(self, owner: Owner) -> bool:
        """
        Whether the owner may still use it, or close it.

        :raises AirflowApiUnavailableError: If Airflow does not tell.
        """

    def strike(self, session_id: str) -> None:
        """Remove a session that is closed."""


def enter(context: Context, session_id: str, conn_id: str, *, dag_run_scoped: bool = False) -> None:
    """Write down whose a session is. One that stays unwritten is no sweep's own, which fails no task."""
    from airflow.providers.common.compat.sdk import Variable

    ti = context["ti"]
    owner = Owner(
        conn_id=conn_id,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=_index(ti),
        dag_run_scoped=dag_run_scoped,
        opened=time.time(),
    )
    for pause in _PAUSES:
        try:
            Variable.set(PREFIX + session_id, json.dumps(asdict(owner)), "Open session, and its owner")
        except Exception:
            log.warning("Cannot make the variable of session %s", session_id, exc_info=True)
            time.sleep(pause)
        else:
            return
    log.error("Session %s is not among Airflow's variables: to a sweep it is not ours", session_id)


def strike(session_id: str) -> None:
    """Remove a session that is closed."""
    from airflow.providers.common.compat.sdk import Variable

    try:
        Variable.delete(PREFIX + session_id)
    except Exception:
        log.warning("Session %s stays among Airflow's variables", session_id, exc_info=True)


def belongs_to_other_task(context: Context, session_id: str) -> bool:
    """
    Whether this Airflow has opened the session for another task, or has an entry that cannot be read.

    :raises AirflowApiUnavailableError: If Airflow does not tell: it may be ours, and is not to be opened
        twice.
    """
    return _is_known_as_ours(context, session_id) is False


def claim(context: Context, session_id: str, seconds: float, *, conn_id: str) -> bool:
    """
    Enter a session that no other task is known to have, and see whether one does so as well: the last wins.

    :param seconds: How long others have who have seen no entry either.
    :raises AirflowApiUnavailableError: If Airflow does not keep the entry.
    """
    if belongs_to_other_task(context, session_id):
        return False
    enter(context, session_id, conn_id, dag_run_scoped=True)
    time.sleep(seconds)
    is_ours = _is_known_as_ours(context, session_id)
    if is_ours is None:
        raise AirflowApiUnavailableError(f"Airflow does not keep whose session {session_id} is")
    return is_ours


def raise_if_other_connection(session_id: str, conn_id: str) -> None:
    """
    Called where IBM does not know a session: it may be open elsewhere.

    :raises ConfigurationError: If this Airflow has opened it at another connection.
    :raises AirflowApiUnavailableError: If Airflow does not tell.
    """
    try:
        owner = _owner_of(session_id)
    except ValueError:
        log.warning("Cannot tell where session %s was opened", session_id, exc_info=True)
        return
    opened_at = owner.conn_id if owner else conn_id
    if opened_at != conn_id:
        raise ConfigurationError(
            f"ibm_quantum_conn_id: session {session_id} was opened at '{opened_at}', and IBM does not know "
            f"it at '{conn_id}'. It may be open: {console_url(session_id)}",
            field="ibm_quantum_conn_id",
        )


def has_another(context: Context, session_id: str) -> bool:
    """Whether this Airflow has opened another session for the running task, as far as it can tell."""
    ledger = VariableSessionRegistry(context)
    for other in ledger.sessions():
        try:
            owner = ledger.get_owner(other)
        except (ValueError, AirflowApiUnavailableError):
            continue
        if other != session_id and owner and _is_ours(context, owner):
            return True
    return False


def _owner_of(session_id: str) -> Owner | None:
    from airflow.providers.common.compat.sdk import Variable

    key = PREFIX + session_id
    try:
        text = Variable.get(key, default=None)
    except Exception as error:
        raise AirflowApiUnavailableError(f"Airflow does not tell whose session {session_id} is") from error
    if text:
        return Owner.read(text)
    ensure_variable_absent(key)
    return None


def _is_known_as_ours(context: Context, session_id: str) -> bool | None:
    """Whether a session is the running task's; None if it is nobody's."""
    try:
        owner = _owner_of(session_id)
    except ValueError:
        log.warning("Cannot tell whose session %s is", session_id, exc_info=True)
        return False
    return None if owner is None else _is_ours(context, owner)


def _is_ours(context: Context, owner: Owner) -> bool:
    ti = context["ti"]
    ours = (ti.dag_id, ti.run_id, ti.task_id, _index(ti))
    return (owner.dag_id, owner.run_id, owner.task_id, owner.map_index) == ours


def _index(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)


class VariableSessionRegistry:
    """The ledger as a running task reads it: through Airflow's API."""

    def __init__(self, context: Context) -> None:
        self._ti: Any = context["ti"]

    def sessions(self) -> list[str]:
        """The ids of all sessions that are entered; none before Airflow 3.3, which cannot list them."""
        from airflow.providers.common.compat.sdk import Variable

        keys = Variable.keys(PREFIX) if hasattr(Variable, "keys") else []
        return [key.removeprefix(PREFIX) for key in keys]

    def get_owner(self, session_id: str) -> Owner | None:
        """Whom this Airflow has opened the session for; see :class:`Ledger`."""
        return _owner_of(session_id)

    def is_live(self, owner: Owner) -> bool:
        """Whether the run goes on, and the task too if the session is for that only."""
        try:
            return self._goes_on(owner)
        except Exception as error:
            raise AirflowApiUnavailableError(f"Airflow does not tell whether {owner} goes on") from error

    def strike(self, session_id: str) -> None:
        """Remove a session that is closed."""
        strike(session_id)

    def _goes_on(self, owner: Owner) -> bool:
        run: dict[str, Any] = {"dag_id": owner.dag_id, "run_ids": [owner.run_id]}
        if not self._ti.get_dr_count(**run, states=ACTIVE_RUN_STATES):
            return False
        task = {**run, "task_ids": [owner.task_id]}
        if owner.map_index >= 0:
            task["map_index"] = owner.map_index
        return owner.dag_run_scoped or not self._ti.get_ti_count(**task, states=FINISHED_TASK_STATES)
