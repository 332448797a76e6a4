# SPDX-License-Identifier: Apache-2.0
"""How sensors wait: in a worker (poke), between polls without one (reschedule), or deferred."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.polling import TOLERATED_FAILURES, FailureTolerance
from airflow_provider_ibm_sessions.client.validation import validate_seconds
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors, to_airflow_exception
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.lifecycle.task_mixin import IBMQuantumTaskMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.triggers.base import IBMQuantumTrigger


class IBMQuantumSensor(IBMQuantumTaskMixin, BaseSensorOperator):
    """
    Polls until there is something to return. Changes and cancels nothing.

    A few polls in a row may fail; an authentication error may not. When deferred, Airflow's
    ``exponential_backoff`` and ``silent_fail`` change nothing.

    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    :param deferrable: Wait in the triggerer, without a worker slot. Else ``mode`` decides.
    :param poke_interval: Seconds between polls.
    """

    def __init__(
        self,
        *,
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=validate_seconds(poke_interval, "poke_interval"), **kwargs)
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.deferrable = deferrable

    @abstractmethod
    def check(self, context: Context) -> None:
        """Called once, before anything is sent."""

    @abstractmethod
    def look(self) -> Any:
        """Poll once; returns what the sensor returns, or None if it is too early."""

    @abstractmethod
    def result_from_event(self, event: dict[str, Any]) -> Any:
        """What the sensor returns after the trigger has succeeded."""

    @abstractmethod
    def trigger(self, **waiting: Any) -> IBMQuantumTrigger:
        """The trigger that waits for the same."""

    def execute(self, context: Context) -> Any:
        """Poll once; if that is not the end, wait as asked."""
        with raise_as_airflow_errors():
            self.check(context)
        if not self.deferrable:
            return super().execute(context)
        # Airflow applies soft_fail and never_fail to methods that it resumes at; so it does to this one.
        return self.resume_execution("_look_then_defer", None, context)

    def _look_then_defer(self, context: Context) -> Any:
        reached = self.poke(context)
        return reached.xcom_value if reached else self._defer()

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        with raise_as_airflow_errors():
            try:
                outcome = self.look()
            except IBMQuantumError as error:
                if not self._patience.tolerates(error):
                    raise
                self.log.warning("%s. Waiting on; failure %d in a row", error, self._patience.count)
                return PokeReturnValue(is_done=False)
        self._patience.reset()
        return PokeReturnValue(is_done=outcome is not None, xcom_value=outcome)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take up what the trigger told."""
        status = event.get("status")
        if status == "success":
            with raise_as_airflow_errors():
                return self.result_from_event(event)
        if status == "timeout":
            raise AirflowSensorTimeout(event["message"])
        raise to_airflow_exception(
            event.get("message", f"Not an event of ours: {event}"), retryable=event.get("retryable", False)
        )

    def _defer(self) -> NoReturn:
        trigger = self.trigger(
            end_time=time.time() + self.timeout,
            poll_interval=self.poke_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )
        # No timeout here: the deadline inside of the trigger holds, and tells what was awaited.
        self.defer(trigger=trigger, method_name="execute_complete", timeout=None)

    @cached_property
    def _patience(self) -> FailureTolerance:
        """In reschedule mode each poll is a process of its own and cannot count: ``timeout`` is the bound."""
        return FailureTolerance(math.inf if self.reschedule else TOLERATED_FAILURES)
