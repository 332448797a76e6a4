# SPDX-License-Identifier: Apache-2.0
"""The owner of a session: the task that it was opened for, as the registry and the records name it."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Final

from airflow_provider_ibm_sessions.client.storable import to_storable
from airflow_provider_ibm_sessions.client.validation import MAX_TIMESTAMP

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "map_index": int,
    "try_number": int,
    "dag_run_scoped": bool,
    "opened": (int, float),
}
"""Types of an entry's fields; all others are str."""

_MAX_MAP_INDEX: Final = 2**31


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
        values = asdict(owner)
        has_types = all(isinstance(value, _TYPES.get(name, str)) for name, value in values.items())
        # What no database takes would fail the look-up of all other owners as well.
        if not has_types or any(to_storable(value) != value for value in values.values()):
            raise ValueError("not the entry of a session")
        if not (0 <= owner.opened < MAX_TIMESTAMP and -1 <= owner.map_index < _MAX_MAP_INDEX):
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
        entry = json.dumps([session_id, *asdict(replace(self, signature="")).values()])
        return hmac.new(api_key.encode(), entry.encode(), hashlib.sha256).hexdigest()
