# SPDX-License-Identifier: Apache-2.0
"""Wait until a QPU is online, and its queue short enough."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.backend_selection import BackendRequirements
from airflow_provider_ibm_sessions.client.errors import NoBackendError
from airflow_provider_ibm_sessions.client.validation import is_template, validate_backend
from airflow_provider_ibm_sessions.sensors.base import IBMQuantumSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context

    from airflow_provider_ibm_sessions.triggers.backend import IBMQuantumBackendTrigger


class IBMQuantumBackendSensor(IBMQuantumSensor):
    """
    Wait until a QPU is online, and its queue short enough. Returns its figures. Changes and cancels nothing.

    Fails at once if the instance has no QPU of that name: it was retired, or the name is misspelled. All
    sensors that are deferred on one connection share one request per interval.

    :param backend: Name of the QPU, such as ``ibm_fez``. (templated)
    :param max_queue_length: The most jobs in its queue. (templated)
    :param max_wait: The longest wait time, by IBM's figure for half of the jobs: seconds, a timedelta, or
        text such as ``"30m"``. The Open plan has none. (templated)
    :param timeout: Seconds until the sensor gives up; Airflow's default is 7 days.
    :param poke_interval: Seconds between looks, 30 at least, or a timedelta.

    Further arguments are those of :class:`IBMQuantumSensor`.
    """

    template_fields: Sequence[str] = (
        "backend",
        "max_queue_length",
        "max_wait_time",
        "ibm_quantum_conn_id",
    )
    operator_extra_links: Collection[BaseOperatorLink] = ()

    def __init__(
        self,
        *,
        backend: str,
        max_queue_length: int | str | None = None,
        max_wait: int | str | timedelta | None = None,
        poke_interval: float | timedelta = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.backend = backend
        self.max_queue_length = max_queue_length
        self.max_wait_time = max_wait  # Airflow's sensors have a `max_wait` of another meaning
        self.check_literals(backend=validate_backend)
        self._shortfall: str | None = None
        bounds = {"max_queue_length": max_queue_length, "max_wait": max_wait}
        BackendRequirements.validate(
            **{name: value for name, value in bounds.items() if not is_template(value)}
        )

    def validate(self, context: Context) -> None:
        """Validate the name and the bounds."""
        self._requirements()

    def poll_once(self) -> dict[str, Any] | None:
        """Look at the QPU."""
        try:
            selection = self._requirements().select(self.hook.list_backends())
        except NoBackendError as error:
            if not error.retryable:
                raise
            if str(error) != self._shortfall:
                self._shortfall = str(error)
                self.log.info("%s", error)
            return None
        return selection.backend.summary()

    def result_from_event(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the figures of the QPU."""
        backend: dict[str, Any] = event["backend"]
        return backend

    def trigger(self, **waiting: Any) -> IBMQuantumBackendTrigger:
        """Return the trigger that waits for the same."""
        from airflow_provider_ibm_sessions.triggers.backend import IBMQuantumBackendTrigger

        return IBMQuantumBackendTrigger(self._requirements().to_json(), **waiting)

    def _requirements(self) -> BackendRequirements:
        return BackendRequirements.validate(
            among=[validate_backend(self.backend)],
            max_queue_length=self.max_queue_length,
            max_wait=self.max_wait_time,
        )
