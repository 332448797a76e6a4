# SPDX-License-Identifier: Apache-2.0
"""Waiting for a session, without the waiting itself: what a poll's answer, or its failure, means."""

from __future__ import annotations

import random
from collections.abc import Collection

from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    IBMQuantumError,
    SessionClosedError,
)
from airflow_provider_ibm_sessions.client.models import Session

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


class Patience:
    """
    Decides which failed polls are waited through.

    Not those that waiting cannot mend: a bad key, an unknown session. A web page in place of an answer is
    one of these at first (a wrong URL), and a passing trouble once there has been an answer.

    :param failures: How many in a row are tolerated. One for which IBM named a pause is not counted.
    """

    def __init__(self, failures: float = TOLERATED_FAILURES) -> None:
        self.failures = failures
        self.count = 0
        self.pause = 0.0
        self._answered = False

    def tolerates(self, error: IBMQuantumError) -> bool:
        """Count one failure; False if it is one too many. ``pause`` is what IBM asked for, in seconds."""
        self.pause = error.retry_after or 0.0
        self.count += error.retry_after is None
        passing = error.retryable or (self._answered and isinstance(error, BadResponseError))
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
