# SPDX-License-Identifier: Apache-2.0
"""Rules of polling, without the waiting itself: what a poll's response, or its failure, means."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow_provider_ibm_sessions.client.errors import (
    USER_ACTION_REQUIRED,
    BadResponseError,
    IBMQuantumError,
    RequestRejectedError,
    SessionClosedError,
)

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.models.sessions import Session

TOLERATED_FAILURES = 5
"""Failed polls in a row that are tolerated, each after the client's own retries."""

MAX_DELAY = 300.0
"""Seconds by which a ``Retry-After`` of IBM's may delay the next poll: a session may be billed meanwhile."""

MAX_INITIAL_JITTER = 6.0
"""Seconds: tasks that another triggerer takes over are to be polled soon."""


def has_reached(session: Session, target_states: Collection[str]) -> bool:
    """
    Return True if the session is in one of the target states. States never seen before are waited through.

    :raises SessionClosedError: If it closed while another state was awaited, which it will never reach.
    """
    if session.state in target_states:
        return True
    if session.is_closed:
        reason = session.state_reason or "IBM gave no reason"
        raise SessionClosedError(
            f"Session {session.id} closed while waiting for {' or '.join(sorted(target_states))}: {reason}",
            sent=False,
        )
    return False


def is_transient(error: IBMQuantumError) -> bool:
    """
    Return True if another poll may succeed: not with a bad key or an unknown session.

    After one valid response, a web page counts as transient too.
    """
    return error.retryable or isinstance(error, BadResponseError)


def may_pass(error: IBMQuantumError) -> bool:
    """
    Return True if a refused poll may succeed soon: IBM may not show yet what it has just accepted.

    A bad key, or one without the rights, stays refused.
    """
    return isinstance(error, RequestRejectedError) and not isinstance(error, USER_ACTION_REQUIRED)


class FailureTolerance:
    """
    Decides which failed polls are tolerated.

    :param failures: How many in a row are tolerated.
    :param answered: True after a valid response; without one, a web page means a wrong URL.
    :param honours_retry_after: True if the caller waits for ``delay`` seconds; such failures do not count.
    """

    def __init__(
        self,
        failures: float = TOLERATED_FAILURES,
        *,
        answered: bool = False,
        honours_retry_after: bool = False,
    ) -> None:
        self.failures = failures
        self.count = 0
        self.delay = 0.0
        self._answered = answered
        self._honours_retry_after = honours_retry_after

    @property
    def has_failed(self) -> bool:
        """Return True if the last poll has failed."""
        return bool(self.count or self.delay)

    def tolerates(self, error: IBMQuantumError) -> bool:
        """Count one failure; False if it is one too many. ``delay`` is what IBM asked for, in seconds."""
        self.delay = min(error.retry_after or 0.0, MAX_DELAY)
        if not (self._honours_retry_after and self.delay):
            self.count += 1
        transient = is_transient(error) if self._answered else error.retryable
        return transient and self.count <= self.failures

    def reset(self) -> None:
        """Forget the failures, after a valid response."""
        self.count = 0
        self.delay = 0.0
        self._answered = True


def jittered(seconds: float) -> float:
    """Return the delay before the next poll: ``seconds``, give or take a fifth, so that polls spread out."""
    return seconds * random.uniform(0.8, 1.2)


def initial_jitter(seconds: float) -> float:
    """Return the delay before the first poll: up to ``seconds``, 6 at most, for tasks that start together."""
    return random.uniform(0, min(seconds, MAX_INITIAL_JITTER))
