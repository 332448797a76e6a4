# SPDX-License-Identifier: Apache-2.0
"""Waits for a session's state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.polling import has_reached
from airflow_provider_ibm_sessions.client.validation import validate_id, validate_states
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink
from airflow_provider_ibm_sessions.sensors.base import IBMQuantumSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger


class IBMQuantumSessionSensor(IBMQuantumSensor):
    """
    Waits until a session is in a wanted state. Returns its details. Changes and cancels nothing.

    Fails at once if the session closes while another state is awaited: it will never get there. A few polls
    in a row may fail; an authentication error may not. When deferred, Airflow's ``exponential_backoff`` and
    ``silent_fail`` change nothing.

    :param session_id: The session. (templated)
    :param target_state: One or several of ``open``, ``active``, ``inactive``, ``closed``.
    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    :param deferrable: Wait in the triggerer, without a worker slot. Else ``mode`` decides.
    :param poke_interval: Seconds between polls.
    :param timeout: Seconds until the sensor gives up; Airflow's default is 7 days.
    """

    template_fields: Sequence[str] = ("session_id", "ibm_quantum_conn_id")

    def __init__(
        self, *, session_id: str, target_state: str | Iterable[str] = "closed", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.session_id = session_id
        self.target_state = validate_states(target_state)

    def check(self, context: Context) -> None:
        """Check the id, and show the button."""
        validate_id(self.session_id)
        IBMQuantumSessionLink.persist(context, self.session_id)

    def look(self) -> dict[str, Any] | None:
        """Read the session."""
        session = self.hook.get_session(self.session_id)
        reached = has_reached(session, self.target_state)
        self.log.info("Session %s is %s", session.id, session.state)
        return session.to_json() if reached else None

    def result_from_event(self, event: dict[str, Any]) -> dict[str, Any]:
        """The session's details."""
        session: dict[str, Any] = event["session"]
        self.log.info("Session %s is %s", self.session_id, session.get("state"))
        return session

    def trigger(self, **waiting: Any) -> IBMQuantumSessionTrigger:
        """The trigger that waits for the same."""
        from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger

        return IBMQuantumSessionTrigger(
            session_id=self.session_id, target_states=self.target_state, **waiting
        )
