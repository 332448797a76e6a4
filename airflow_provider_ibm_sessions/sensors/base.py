# SPDX-License-Identifier: Apache-2.0
"""Wait in a worker (poke), between polls without one (reschedule), or deferred."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, BaseSensorOperator, PokeReturnValue

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.polling import TOLERATED_FAILURES, FailureTolerance
from airflow_provider_ibm_sessions.client.validation import validate_bool, validate_conn_id, validate_seconds
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.lifecycle.task_mixin import (
    DEFAULT_DEFERRABLE,
    DEFAULT_RETRIES,
    DEFAULT_RETRY_BACKOFF,
    IBMQuantumTaskMixin,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.triggers.base import IBMQuantumTrigger


class IBMQuantumSensor(IBMQuantumTaskMixin, BaseSensorOperator):
    """
    Base of the sensors: poll until there is something to return. Changes and cancels nothing.

    Five failed polls in a row are tolerated; an authentication error is not. When deferred, Airflow's
    ``exponential_backoff`` and ``silent_fail`` change nothing.

    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    :param deferrable: Wait in the triggerer, without a worker slot. Else ``mode`` decides.
    :param poke_interval: Seconds between polls, or a timedelta.
    :param retries: As for any task; by default 3, with growing delays.
    """

    def __init__(
        self,
        *,
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = DEFAULT_DEFERRABLE,
        poke_interval: float | timedelta = 10,
        retries: int | None = DEFAULT_RETRIES,
        retry_delay: timedelta | float = timedelta(seconds=30),
        retry_exponential_backoff: float = DEFAULT_RETRY_BACKOFF,
        **kwargs: Any,
    ) -> None:
        if "timeout" in kwargs:  # Airflow takes True for a second
            kwargs["timeout"] = validate_seconds(kwargs["timeout"], "timeout", allow_zero=True)
        super().__init__(
            poke_interval=validate_seconds(poke_interval, "poke_interval"),
            retries=retries,
            retry_delay=retry_delay,
            retry_exponential_backoff=retry_exponential_backoff,
            **kwargs,
        )
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.check_literals(ibm_quantum_conn_id=validate_conn_id)
        self.deferrable = validate_bool(deferrable, "deferrable")

    @abstractmethod
    def validate(self, context: Context) -> None:
        """Validate the arguments, before anything is sent."""

    @abstractmethod
    def poll_once(self) -> Any:
        """Poll once, and return what the sensor returns, or None if it is too early."""

    @abstractmethod
    def result_from_event(self, event: dict[str, Any]) -> Any:
        """Return what the sensor returns after the trigger has succeeded."""

    @abstractmethod
    def trigger(self, **waiting: Any) -> IBMQuantumTrigger:
        """Return the trigger that waits for the same."""

    def execute(self, context: Context) -> Any:
        """Poll once; if that is not the end, wait as asked."""
        with raise_as_airflow_errors():
            self.validate(context)
        if not self.deferrable:
            return super().execute(context)
        # Airflow applies soft_fail and never_fail to methods that it resumes at; so it does to this one.
        end_time = time.time() + self.timeout
        return self.resume_execution("_poll_then_defer", {"end_time": end_time}, context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once, and tolerate a failure."""
        with raise_as_airflow_errors():
            try:
                result = self.poll_once()
            except IBMQuantumError as error:
                if not self._tolerance.tolerates(error):
                    raise
                self.log.warning("%s. Waiting on; failure %d in a row", error, self._tolerance.count)
                return PokeReturnValue(is_done=False)
        self._tolerance.reset()
        return PokeReturnValue(is_done=result is not None, xcom_value=result)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return what the trigger has reported; after an error on its host, poll from this worker."""
        status = event.get("status")
        if status == "success":
            with raise_as_airflow_errors():
                return self.result_from_event(event)
        if status == "timeout":
            raise AirflowSensorTimeout(event["message"])
        self.log.warning(
            "%s. Polling from this worker", event.get("message", f"Unexpected trigger event: {event}")
        )
        end_time = event.get("end_time", 0.0)
        self.timeout = max(0.0, end_time - time.time())  # the time of the first deferral holds
        if event.get("retryable") and self.timeout:
            return self._poll_then_defer(context, end_time)
        return super().execute(context)  # the triggerer cannot wait, and this worker can

    def _poll_then_defer(self, context: Context, end_time: float) -> Any:
        reached = self.poke(context)
        if reached:
            return reached.xcom_value
        trigger = self.trigger(
            end_time=end_time,
            poll_interval=self.poke_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )
        # No timeout here: the deadline inside of the trigger holds, and says what was awaited.
        return self.defer(trigger=trigger, method_name="execute_complete", timeout=None)

    @cached_property
    def _tolerance(self) -> FailureTolerance:
        # In reschedule mode each poll is a process of its own and cannot count: ``timeout`` is the bound.
        return FailureTolerance(math.inf if self.reschedule else TOLERATED_FAILURES)
