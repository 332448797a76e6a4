# SPDX-License-Identifier: Apache-2.0
"""Waits for a session's state: in a worker (poke), between polls without one (reschedule), or deferred."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.values import checked_id, checked_positive, checked_states
from airflow_provider_ibm_sessions.client.waiting import TOLERATED_FAILURES, Patience, has_reached
from airflow_provider_ibm_sessions.failures import as_failure, told_to_airflow
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink
from airflow_provider_ibm_sessions.tasks import IBMQuantumTask

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context


class IBMQuantumSessionSensor(IBMQuantumTask, BaseSensorOperator):
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
        self,
        *,
        session_id: str,
        target_state: str | Iterable[str] = "closed",
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=checked_positive(poke_interval, "poke_interval"), **kwargs)
        self.session_id = session_id
        self.target_state = checked_states(target_state)
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Poll once; if that is not the end, wait as asked."""
        with told_to_airflow():
            checked_id(self.session_id)
        IBMQuantumSessionLink.persist(context, self.session_id)
        if not self.deferrable:
            return super().execute(context)
        # Airflow applies soft_fail and never_fail to methods that it resumes at; so it does to this one.
        return self.resume_execution("_look_then_defer", None, context)

    def _look_then_defer(self, context: Context) -> Any:
        reached = self.poke(context)
        return reached.xcom_value if reached else self._defer()

    def poke(self, context: Context) -> PokeReturnValue:
        """Look at the session once."""
        with told_to_airflow():
            try:
                session = self.hook.get_session(self.session_id)
            except IBMQuantumError as error:
                if not self._patience.tolerates(error):
                    raise
                self.log.warning("%s. Waiting on; failure %d in a row", error, self._patience.count)
                return PokeReturnValue(is_done=False)
            self._patience.reset()
            done = has_reached(session, self.target_state)
        self.log.info("Session %s is %s", session.id, session.state)
        return PokeReturnValue(is_done=done, xcom_value=session.to_json() if done else None)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take up what the trigger told."""
        status = event.get("status")
        if status == "success":
            session: dict[str, Any] = event["session"]
            self.log.info("Session %s is %s", self.session_id, session.get("state"))
            return session
        if status == "timeout":
            raise AirflowSensorTimeout(event["message"])
        raise as_failure(
            event.get("message", f"Not an event of ours: {event}"), retryable=event.get("retryable", False)
        )

    def _defer(self) -> NoReturn:
        from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger

        trigger = IBMQuantumSessionTrigger(
            session_id=self.session_id,
            target_states=self.target_state,
            end_time=time.time() + self.timeout,
            poll_interval=self.poke_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )
        # No timeout here: the deadline inside of the trigger holds, and tells what was awaited.
        self.defer(trigger=trigger, method_name="execute_complete", timeout=None)

    @cached_property
    def _patience(self) -> Patience:
        """In reschedule mode each poll is a process of its own and cannot count: ``timeout`` is the bound."""
        return Patience(math.inf if self.reschedule else TOLERATED_FAILURES)
