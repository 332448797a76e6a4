# SPDX-License-Identifier: Apache-2.0
"""Events in the order of their time."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class EventQueue:
    """
    Job starts, job ends and timers still to come.

    Nothing runs in the background: ``run_due(now)`` carries out everything that is due, in order of time,
    each at its own instant, so that a test that moves the clock by eight hours sees eight hours of history.
    """

    def __init__(self) -> None:
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()

    def schedule(self, when: float, action: Callable[[float], None]) -> None:
        """Call ``action(when)`` once the clock has reached ``when``; it checks that it still applies."""
        heapq.heappush(self._events, (when, next(self._order), action))

    def run_due(self, now: float) -> None:
        """Carry out what is due, including what the actions themselves schedule."""
        while self._events and self._events[0][0] <= now:
            when, _, action = heapq.heappop(self._events)
            action(when)
