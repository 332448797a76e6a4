# SPDX-License-Identifier: Apache-2.0
"""The service's clock, and instants as IBM writes them."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime


class Clock:
    """The service's clock, in seconds since the epoch (UTC), which tests can freeze and move."""

    def __init__(self, *, frozen: bool = False, speed: float = 1.0) -> None:
        """
        Start at the host's time.

        :param frozen: Move by ``advance`` only, not with real time.
        :param speed: Seconds of this clock per second of real time.
        """
        self.frozen = frozen
        self.speed = speed
        self._start = time.time()
        # Monotonic: a change of the host's clock must never run the service's timers backwards.
        self._monotonic_start = time.monotonic()
        self._offset = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the seconds since the epoch."""
        with self._lock:
            elapsed = 0.0 if self.frozen else (time.monotonic() - self._monotonic_start) * self.speed
            return self._start + elapsed + self._offset

    def advance(self, seconds: float) -> float:
        """Move the clock forward by ``seconds`` and return the new time."""
        if seconds < 0:
            raise ValueError(f"a service's clock does not run backwards: {seconds} s")
        with self._lock:
            self._offset += seconds
        return self.now()


def iso(when: float | None) -> str | None:
    """Format an instant as IBM does: ISO 8601, UTC, with a Z."""
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_iso(text: str) -> float:
    """
    Return the seconds since the epoch; without a time zone the text is UTC.

    :raises ValueError: If the text is no date-time.
    """
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
