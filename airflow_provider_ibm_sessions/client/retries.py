# SPDX-License-Identifier: Apache-2.0
"""
The one retry policy, read off the operation's safety.

==================  ======================================================================
``SAFE``            retried on connect errors, timeouts, drops, broken responses, 429, 5xx
``IDEMPOTENT``      the same
``NON_IDEMPOTENT``  retried only if it was surely not carried out: never sent, or 429
==================  ======================================================================

Delays grow and are jittered, ``Retry-After`` is obeyed, and the whole is bounded by ``max_elapsed`` seconds.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from tenacity import RetryCallState, retry_if_exception, stop_before_delay, wait_random_exponential

from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    OutcomeUnknownError,
    RequestRejectedError,
)
from airflow_provider_ibm_sessions.client.operations import Operation, Safety
from airflow_provider_ibm_sessions.client.validation import validate_seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    Limits on the time and the number of attempts.

    :param max_elapsed: Seconds from the first attempt during which another may start. 0: one attempt only.
    :param initial_backoff: Upper bound in seconds of the first delay; each further bound is twice the last.
    :param max_backoff: Upper bound in seconds of any delay that IBM did not ask for.
    :param list_lag: Seconds within which IBM lists a session or a job whose create response was lost.
    :raises ConfigurationError: If one of them is no number of seconds.
    """

    max_elapsed: float = 90.0
    initial_backoff: float = 0.5
    max_backoff: float = 15.0
    list_lag: float = 15.0

    def __post_init__(self) -> None:
        for field in fields(self):
            seconds = validate_seconds(getattr(self, field.name), field.name, allow_zero=True)
            object.__setattr__(self, field.name, seconds)

    def tenacity_options(self, operation: Operation[Any]) -> dict[str, Any]:
        """Return the arguments for tenacity's ``Retrying`` and ``AsyncRetrying``."""
        grow = wait_random_exponential(multiplier=self.initial_backoff, max=self.max_backoff)
        is_over = stop_before_delay(self.max_elapsed)

        def wait(state: RetryCallState) -> float:
            error = _error_of(state)
            # Added to what IBM asked for: clients that were asked the same are not to come back together.
            jitter = random.uniform(0, self.initial_backoff)
            if error.retry_immediately:
                return jitter
            # "0", or a date that has passed by this clock, may come each time: those delays grow as well.
            return error.retry_after + jitter if error.retry_after else grow(state)

        return {
            "retry": retry_if_exception(lambda error: is_retryable(operation, error)),
            "wait": wait,
            "stop": lambda state: not _error_of(state).retry_immediately and is_over(state),
            "before_sleep": _log_retry,
            "reraise": True,
        }


NO_RETRY = RetryPolicy(max_elapsed=0.0, list_lag=0.0)
"""One attempt; for a task that is being killed."""


def is_retryable(operation: Operation[Any], error: BaseException) -> bool:
    """Return True if the policy allows the operation to be sent again after this error."""
    if not isinstance(error, IBMQuantumError):
        return False
    if error.retry_immediately or not error.retryable:
        return error.retry_immediately
    return operation.safety is not Safety.NON_IDEMPOTENT or _not_carried_out(error)


def _not_carried_out(error: IBMQuantumError) -> bool:
    return not error.sent or isinstance(error, RequestRejectedError | ConfigurationError)


@contextmanager
def flag_unknown_outcome(operation: Operation[Any]) -> Iterator[None]:
    """
    Turn an error that leaves the outcome of a request open into an ``OutcomeUnknownError``.

    :raises OutcomeUnknownError: If a request that must be sent once only may have been carried out.
    """
    try:
        yield
    except IBMQuantumError as error:
        if operation.safety is not Safety.NON_IDEMPOTENT or _not_carried_out(error):
            raise
        raise OutcomeUnknownError(
            f"{error.message}. It may have been carried out, so it is not sent again",
            status=error.status,
            code=error.code,
            trace=error.trace,
        ) from error


def _log_retry(state: RetryCallState) -> None:
    error = _error_of(state)
    log.warning(
        "%s. Attempt %d failed; the next one is in %.1f s", error, state.attempt_number, state.upcoming_sleep
    )


def _error_of(state: RetryCallState) -> IBMQuantumError:
    """Return the error of the last attempt; there is one, and ours, wherever tenacity asks."""
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, IBMQuantumError) else IBMQuantumError(str(error))
