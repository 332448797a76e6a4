# SPDX-License-Identifier: Apache-2.0
"""Waiting for a session, without the waiting itself: what a poll's answer, or its failure, means."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    IBMQuantumError,
    SessionClosedError,
)

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.models.sessions import Session

TOLERATED_FAILURES = 5
"""Polls in a row that may fail, each after the client's own attempts, before waiting is given up."""


def has_reached(session: Session, target_states: Collection[str]) -> bool:
    """
    Whether the session is in one of the wanted states. States never seen before are waited through.

    :raises SessionClosedError: If it closed while another state was awaited; it will never get there.
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
    Whether waiting on may get past a failed poll: not with a bad key or an unknown session.

    A web page in place of an answer is passing trouble for who has had an answer before.
    """
    return error.retryable or isinstance(error, BadResponseError)


class FailureTolerance:
    """
    Decides which failed polls are waited through.

    :param failures: How many in a row are tolerated.
    :param answered: Whether there has been an answer: without one, a web page means a wrong URL.
    :param honours_retry_after: Whether the caller makes the pauses that IBM asks for; such failures do not
        count.
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
        self.pause = 0.0
        self._answered = answered
        self._makes_pauses = honours_retry_after

    def tolerates(self, error: IBMQuantumError) -> bool:
        """Count one failure; False if it is one too many. ``pause`` is what IBM asked for, in seconds."""
        self.pause = error.retry_after or 0.0
        self.count += not (self._makes_pauses and self.pause)
        passing = is_transient(error) if self._answered else error.retryable
        return passing and self.count <= self.failures

    def reset(self) -> None:
        """There was an answer: forget the failures."""
        self.count = 0
        self.pause = 0.0
        self._answered = True


def jittered(seconds: float) -> float:
    """The pause before the next poll: within a fifth of ``seconds``, so that many waiters spread out."""
    return seconds * random.uniform(0.8, 1.2)


def first_pause(seconds: float) -> float:
    """The pause before the first poll: anywhere within ``seconds``, for waiters that start together."""
    return random.uniform(0, seconds)
