# SPDX-License-Identifier: Apache-2.0
"""How IBM Quantum's errors become Airflow's: whether a retry of the task can help decides which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError


class AirflowApiUnavailableError(IBMQuantumError):
    """Airflow does not tell what is needed; nothing was sent. It may tell at the next try."""

    retryable = True

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class IBMQuantumTaskError(AirflowException):
    """A failure that a retry of the task may get past; its cause is the client's error."""


class TaskSupersededError(IBMQuantumTaskError):
    """The attempt was killed, and another goes on with what it has begun: that is not to be ended."""


def to_airflow_exception(message: str, *, retryable: bool) -> AirflowException:
    """The exception that makes Airflow retry the task, or not."""
    return IBMQuantumTaskError(message) if retryable else AirflowFailException(message)


@contextmanager
def raise_as_airflow_errors(final: tuple[type[IBMQuantumError], ...] | None = None) -> Iterator[None]:
    """
    Translate the client's errors inside of this.

    :param final: Errors after which the task is not to be retried; by default those that say so.
    :raises AirflowFailException: For errors that trying again cannot mend: the task fails without retries.
    :raises IBMQuantumTaskError: For the others.
    """
    try:
        yield
    except IBMQuantumError as error:
        retryable = error.retryable if final is None else not isinstance(error, final)
        raise to_airflow_exception(str(error), retryable=retryable) from error
