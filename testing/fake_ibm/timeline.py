# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Timeline:
    """Things that will happen on the service by themselves: job starts and ends, timers.

    Nothing runs in the background. `settle(now)` carries out everything that is due, in order of time, each
    at its own instant; so a test that moves the clock by eight hours sees eight hours of history.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()

    def at(self, when: float, action: Callable[[float], None]) -> None:
        """Call `action(when)` once the clock has reached `when`. The action checks that it still applies."""
        heapq.heappush(self._due, (when, next(self._order), action))

    def settle(self, now: float) -> None:
        """Carry out what is due, including what the actions themselves schedule."""
        while self._due and self._due[0][0] <= now:
            when, _, action = heapq.heappop(self._due)
            action(when)
