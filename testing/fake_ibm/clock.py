# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time
from datetime import UTC, datetime


class Clock:
    """The fake service's own clock, in seconds since the epoch (UTC).

    It runs with real time plus whatever was added by `advance`; a frozen clock moves by `advance` only.
    """

    def __init__(self, *, frozen: bool = False) -> None:
        self.frozen = frozen
        self._start = time.time()
        # Monotonic: a step of the host's clock must never run the service's timers backwards.
        self._monotonic_start = time.monotonic()
        self._offset = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch."""
        with self._lock:
            elapsed = 0.0 if self.frozen else time.monotonic() - self._monotonic_start
            return self._start + elapsed + self._offset

    def advance(self, seconds: float) -> float:
        """Move forward by `seconds`; returns the new time."""
        if seconds < 0:
            raise ValueError(f"a service's clock does not run backwards: {seconds} s")
        with self._lock:
            self._offset += seconds
        return self.now()


def iso(when: float | None) -> str | None:
    """An instant as IBM writes it: ISO 8601, UTC, with a Z."""
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_iso(text: str) -> float:
    """Seconds since the epoch; a ValueError if the text is no date-time. Without a zone it is UTC."""
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
