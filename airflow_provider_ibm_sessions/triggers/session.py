# SPDX-License-Identifier: Apache-2.0
"""Wait for a session's state in the triggerer, without a worker slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.enums import SessionState
from airflow_provider_ibm_sessions.client.polling import has_reached, jittered
from airflow_provider_ibm_sessions.client.shared_list import LISTED, Listing
from airflow_provider_ibm_sessions.client.validation import validate_id, validate_states
from airflow_provider_ibm_sessions.triggers.base import MAX_UNREAD_SECONDS, IBMQuantumTrigger


class IBMQuantumSessionTrigger(IBMQuantumTrigger):
    """
    Fire when a session is in one of the wanted states, can no longer get there, or the time is over.

    :param session_id: The session.
    :param target_states: States that end the waiting.
    :param base: ``end_time``, ``poll_interval``, ``ibm_quantum_conn_id`` and ``created_at``.
    """

    def __init__(self, session_id: str, target_states: Sequence[str], **base: Any) -> None:
        super().__init__(**base)
        self.session_id = validate_id(session_id)
        self.target_states = validate_states(target_states, "target_states")

    def trigger_kwargs(self) -> dict[str, Any]:
        """Return the session and its target states."""
        return {"session_id": self.session_id, "target_states": list(self.target_states)}

    @property
    def listing(self) -> Listing | None:
        """Return the list of sessions if it shows what is awaited: it shows no state but "not closed"."""
        return Listing.SESSIONS if set(self.target_states) == {SessionState.CLOSED} else None

    def listed_states(self) -> tuple[dict[str, str], float]:
        """Return the session as listed, which it is until it has closed."""
        return {self.session_id: LISTED}, jittered(MAX_UNREAD_SECONDS)

    async def poll_once(self, client: AsyncIBMQuantumClient) -> dict[str, Any] | None:
        """Read the session."""
        session = await client.get_session(self.session_id)
        if has_reached(session, self.target_states):
            return {"status": "success", "session": session.to_json()}
        return None

    def timeout_message(self) -> str:
        """Say which state was awaited in vain."""
        return f"Session {self.session_id} was not {' or '.join(self.target_states)} in time"
