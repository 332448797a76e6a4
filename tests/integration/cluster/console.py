# SPDX-License-Identifier: Apache-2.0
"""Prints what happens, and where it stands when nothing has happened for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SILENCE_SECONDS = 8.0


class Console:
    """Lines with the time, never more than ten seconds apart."""

    def __init__(self) -> None:
        self._status: Callable[[], str] = lambda: "starting"
        self._started = self._last = time.monotonic()
        self._lock = threading.Lock()
        threading.Thread(target=self._fill_silence, daemon=True).start()

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._started

    def watch(self, status: Callable[[], str]) -> None:
        """Print this status from now on, whenever nothing else is printed."""
        self._status = status

    def say(self, line: str) -> None:
        """Print a line."""
        with self._lock:
            self._last = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)

    def _fill_silence(self) -> None:
        while True:
            time.sleep(0.5)
            if time.monotonic() - self._last > SILENCE_SECONDS:
                self.say(f"  ... {self._status()}")
