# SPDX-License-Identifier: Apache-2.0
"""Waiting for a session, without the waiting itself: what a poll's answer, or its failure, means."""

from __future__ import annotations

import random
from collections.abc import Collection

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, SessionClosedError
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
    Counts failed polls in a row.

    :param failures: How many are tolerated. A success, told by ``reset``, starts the count again.
    """

    def __init__(self, failures: int = TOLERATED_FAILURES) -> None:
        self.failures = failures
        self.count = 0

    def tolerates(self, error: IBMQuantumError) -> bool:
        """Count one failure; False if it is one too many, or one that waiting cannot mend."""
        self.count += 1
        return error.retryable and self.count <= self.failures

    def reset(self) -> None:
        """Forget the failures."""
        self.count = 0


def jittered(seconds: float) -> float:
    """The pause before the next poll: within a fifth of ``seconds``, so that many waiters spread out."""
    return seconds * random.uniform(0.8, 1.2)


def first_pause(seconds: float) -> float:
    """The pause before the first poll: anywhere within ``seconds``, for waiters that start together."""
    return random.uniform(0, seconds)
