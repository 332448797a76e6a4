# SPDX-License-Identifier: Apache-2.0
"""Choose a QPU."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.backend_selection import REQUIREMENTS, BackendRequirements
from airflow_provider_ibm_sessions.client.errors import NoBackendError
from airflow_provider_ibm_sessions.client.validation import is_template, validate_bool
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors, to_airflow_exception
from airflow_provider_ibm_sessions.operators.base import IBMQuantumOperator, WaitingOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context

    from airflow_provider_ibm_sessions.triggers.backend import IBMQuantumBackendTrigger


class IBMQuantumSelectBackendOperator(WaitingOperator, IBMQuantumOperator):
    """
    Choose the best QPU that meets the requirements. Returns its name.

    The XCom ``backend`` holds what it was chosen by. QPUs that are offline or paused, and devices for dry
    runs, are never chosen. Tasks that come after, and their retries, keep the choice. A figure that IBM does
    not tell for a QPU meets no bound.

    :param min_qubits: The least number of qubits. (templated)
    :param among: Names of QPUs: choose one of these. (templated)
    :param exclude: Names of QPUs: choose none of these. (templated)
    :param processor_family: Such as ``Heron``. (templated)
    :param max_queue_length: The most jobs in its queue. (templated)
    :param max_wait: The longest wait time, by IBM's figure for half of the jobs: seconds, a timedelta, or
        text such as ``"30m"``. The Open plan has none. (templated)
    :param max_two_q_error: The highest median error rate of the two-qubit gates, such as 0.005. (templated)
    :param max_readout_error: The highest median error rate of the readout. (templated)
    :param order_by: The figure that decides among those that meet all this, the lowest first:
        ``wait_time``, ``queue_length`` or ``two_q_error``. Without wait times it is ``queue_length``, and the
        log says so. (templated)
    :param wait: Wait if no QPU meets the requirements now, and one may later. Else the task fails.
    :param poll_interval: Seconds between looks, 30 at least, or a timedelta.

    Further arguments are those of :class:`WaitingOperator` and :class:`IBMQuantumOperator`.
    """

    template_fields: Sequence[str] = (*REQUIREMENTS, "ibm_quantum_conn_id")
    operator_extra_links: Collection[BaseOperatorLink] = ()

    def __init__(
        self,
        *,
        min_qubits: int | str | None = None,
        among: Sequence[str] | str | None = None,
        exclude: Sequence[str] | str | None = None,
        processor_family: str | None = None,
        max_queue_length: int | str | None = None,
        max_wait: int | str | timedelta | None = None,
        max_two_q_error: float | str | None = None,
        max_readout_error: float | str | None = None,
        order_by: str = "wait_time",
        wait: bool = False,
        poll_interval: float | timedelta = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(poll_interval=poll_interval, **kwargs)
        self.min_qubits = min_qubits
        self.among = among
        self.exclude = exclude
        self.processor_family = processor_family
        self.max_queue_length = max_queue_length
        self.max_wait = max_wait
        self.max_two_q_error = max_two_q_error
        self.max_readout_error = max_readout_error
        self.order_by = order_by
        self._waits = validate_bool(wait, "wait")  # `wait` is a method of the base
        given = {name: getattr(self, name) for name in REQUIREMENTS}
        BackendRequirements.validate(
            **{name: value for name, value in given.items() if not is_template(value)}
        )

    def execute(self, context: Context) -> str:
        """Choose at once if a QPU meets the requirements; else fail, or wait."""
        with raise_as_airflow_errors():
            requirements = self._requirements()
            try:
                selection = requirements.select(self.hook.list_backends())
            except NoBackendError as error:
                if not (self._waits and error.retryable):
                    raise
                self.log.info("%s. Waiting", error)
            else:
                return self._choose(context, selection.to_json(), str(selection))
        return self.execute_complete(context, self.wait(time.time() + self.timeout))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Return the QPU that the trigger has found."""
        event = self.settle_event(event)
        if event["status"] != "success":
            raise to_airflow_exception(event["message"], retryable=False)
        return self._choose(context, event["selection"], event["message"])

    def trigger(self, end_time: float) -> IBMQuantumBackendTrigger:
        """Return the trigger that waits for a QPU."""
        from airflow_provider_ibm_sessions.triggers.backend import IBMQuantumBackendTrigger

        return IBMQuantumBackendTrigger(
            self._requirements().to_json(),
            end_time=end_time,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )

    def _requirements(self) -> BackendRequirements:
        return BackendRequirements.validate(**{name: getattr(self, name) for name in REQUIREMENTS})

    def _choose(self, context: Context, selection: dict[str, Any], message: str) -> str:
        self.log.info("%s", message)
        context["ti"].xcom_push(key="backend", value=selection)
        return str(selection["name"])
