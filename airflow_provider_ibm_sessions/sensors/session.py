# SPDX-License-Identifier: Apache-2.0
"""Wait for a session's state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, NotFoundError
from airflow_provider_ibm_sessions.client.polling import has_reached
from airflow_provider_ibm_sessions.client.validation import validate_id, validate_states
from airflow_provider_ibm_sessions.sensors.base import IBMQuantumSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger


class IBMQuantumSessionSensor(IBMQuantumSensor):
    """
    Wait until a session is in a wanted state. Returns its details. Changes and cancels nothing.

    Fails at once if the session closes while another state is awaited: it will never get there.

    :param session_id: The session. (templated)
    :param target_state: One or several of ``open``, ``active``, ``inactive``, ``closed``.
    :param timeout: Seconds until the sensor gives up; Airflow's default is 7 days.

    Further arguments are those of :class:`IBMQuantumSensor`.
    """

    template_fields: Sequence[str] = ("session_id", "ibm_quantum_conn_id")

    def __init__(
        self, *, session_id: str, target_state: str | Iterable[str] = "closed", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.session_id = session_id
        self.target_state = validate_states(target_state)
        self._last_state: str | None = None
        self.check_literals(session_id=validate_id)

    def validate(self, context: Context) -> None:
        """Validate the id, and show the link."""
        validate_id(self.session_id)
        self.show_session(context, self.session_id)

    def poll_once(self) -> dict[str, Any] | None:
        """Read the session."""
        try:
            session = self.hook.get_session(self.session_id)
        except NotFoundError as error:
            if self._is_job():
                error.message = (
                    f"session_id {self.session_id} is a job's id: use IBMQuantumJobSensor(job_id=...)"
                )
            raise
        reached = has_reached(session, self.target_state)
        if session.state != self._last_state:
            self._last_state = session.state
            self.log.info("Session %s is %s", session.id, session.state)
        return session.to_json() if reached else None

    def result_from_event(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the session's details."""
        session: dict[str, Any] = event["session"]
        self.log.info("Session %s is %s", self.session_id, session.get("state"))
        return session

    def trigger(self, **waiting: Any) -> IBMQuantumSessionTrigger:
        """Return the trigger that waits for the same."""
        from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger

        return IBMQuantumSessionTrigger(
            session_id=self.session_id, target_states=self.target_state, **waiting
        )

    def _is_job(self) -> bool:
        try:
            self.hook.get_job(self.session_id)
        except IBMQuantumError:
            return False
        return True
