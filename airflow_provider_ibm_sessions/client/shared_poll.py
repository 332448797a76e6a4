# SPDX-License-Identifier: Apache-2.0
"""
One list per interval in place of a request per wait, where many wait on a connection in an event loop.

The list decides when a wait polls, and never what it reports: whatever has left the list, or has another
state in it, the wait reads by itself. So a list that lags behind, skips a row as its pages shift, or cannot
be read costs requests and nothing else.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from weakref import WeakKeyDictionary

from airflow_provider_ibm_sessions.client.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.polling import jittered
from airflow_provider_ibm_sessions.client.shared_list import Listing, ListReader

log = logging.getLogger(__name__)

MIN_WAITS = 50
"""From so many waits of one kind and interval on, a list is read in place of each session or job."""

_POLLS_AT_ONCE = 50
"""Waits that are due at the same time; where there are more, they are spread over the interval."""

_POLLS_IN_FLIGHT = 75
"""Polls of a client under way at the same time: a list shall not wait for one of its 100 connections."""

_MIN_SECONDS = 5.0
"""Seconds that a list may take however short the interval is."""


_poll_slots: WeakKeyDictionary[AsyncIBMQuantumClient, asyncio.Semaphore] = WeakKeyDictionary()
"""The slots of each client, for all that wait with it."""


def poll_slots(client: AsyncIBMQuantumClient) -> asyncio.Semaphore:
    """Return what to hold during a poll with this client, so that not all poll at the same time."""
    return _poll_slots.setdefault(client, asyncio.Semaphore(_POLLS_IN_FLIGHT))


class Wait:
    """One of the waits that share a list."""

    def __init__(self, shared: SharedPoll) -> None:
        self._shared = shared
        self._states: Mapping[str, str] = {}
        self._answered: dict[str, str | None] = {}
        self._due: asyncio.Future[list[str]] | None = None

    @property
    def is_shared(self) -> bool:
        """Return True if so many wait that they share a list."""
        return self._shared.is_shared

    async def until_due(
        self, states: Mapping[str, str], seconds: float, *, first: bool = False
    ) -> list[str] | None:
        """
        Wait for as long as the list shows these states, and return the ids with another one, or in no list.

        There are none if too few wait by now.

        :param states: The state of each id, as it was read last.
        :param seconds: The longest that this may take.
        :param first: True before the first poll, for which the list as it was last read will do.
        :returns: None if the time is over, and the list still shows these states.
        """
        self._states = states
        self._due = asyncio.get_running_loop().create_future()
        self._shared.start()
        if first and self._shared.listed is not None and (found := self.find_different(self._shared.listed)):
            self.end(found)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await self._due
        except TimeoutError:
            listed = self._shared.listed or {}
            return None if all(listed.get(name) == state for name, state in states.items()) else []
        finally:
            self._due = None

    def find_different(self, listed: Mapping[str, str]) -> list[str]:
        """
        Return the ids that the list shows with other states, or not at all; none of a wait that polls.

        A difference that the last poll has not resolved is polled for at every second list only: IBM may
        never list what another user has started.
        """
        if self._due is None:
            return []
        different = {
            name: listed.get(name) for name, state in self._states.items() if listed.get(name) != state
        }
        self._answered = {} if different == self._answered else different
        return list(self._answered)

    def end(self, different: list[str]) -> None:
        """End the waiting."""
        if self._due is not None and not self._due.done():
            self._due.set_result(different)


class SharedPoll:
    """
    The waits of one kind, interval and connection in an event loop, and the list that they share.

    :param interval: Seconds between lists, on average.
    """

    def __init__(self, client: AsyncIBMQuantumClient, listing: Listing, interval: float) -> None:
        self._client = client
        self._listing = listing
        self._interval = interval
        self._reading: asyncio.Task[None] | None = None
        self._edges: list[list[datetime]] = [[] for _ in listing.value]
        self._problem: str | None = None
        self.waits: set[Wait] = set()
        self.listed: dict[str, str] | None = None
        """The states in the last list; None before the first one."""

    @property
    def is_shared(self) -> bool:
        """Return True if there are so many waits that a list is worth it."""
        return len(self.waits) >= MIN_WAITS

    def start(self) -> None:
        """Read the list at each interval from now on, for as long as it is worth it."""
        if self._reading is None or self._reading.done():
            # In a context of its own: what it logs is not about the task of the wait that came first.
            self._reading = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    def stop(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()

    async def _run(self) -> None:
        try:
            while self.is_shared:
                next_at = time.monotonic() + jittered(self._interval)
                try:
                    self.listed = await self._read()
                    due = await self._find_due(self.listed)
                except Exception:  # a bug must neither stop the waits nor let them poll without a delay
                    log.exception("The list of %s is of no use: all are polled singly", self._listing.name)
                    self.listed, due = None, [(wait, []) for wait in self.waits]
                await self._end(due, max(next_at, time.monotonic() + self._interval / 2))
                await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        finally:
            self.listed = None
            # Too few are left for a list. They poll in the course of an interval, and not all at once.
            for wait in self.waits:
                asyncio.get_running_loop().call_later(random.uniform(0, self._interval), wait.end, [])

    async def _find_due(self, listed: Mapping[str, str]) -> list[tuple[Wait, list[str]]]:
        """Return the waits that the list calls to poll, and for which ids."""
        due = []
        for number, wait in enumerate(list(self.waits)):
            if different := wait.find_different(listed):
                due.append((wait, different))
            if number % _POLLS_AT_ONCE == 0:
                await asyncio.sleep(0)  # so that a thousand do not hold up the loop
        return due

    @staticmethod
    async def _end(due: Sequence[tuple[Wait, list[str]]], end_time: float) -> None:
        """End the waiting of those that are due: of few at once, of many spread until ``end_time``."""
        for first in range(0, len(due), _POLLS_AT_ONCE):
            if first:
                left = max(0.0, end_time - time.monotonic())
                await asyncio.sleep(left * _POLLS_AT_ONCE / (len(due) - first + _POLLS_AT_ONCE))
            for wait, different in due[first : first + _POLLS_AT_ONCE]:
                wait.end(different)

    async def _read(self) -> dict[str, str]:
        """Return the states in the list. What takes longer than the interval, or fails, is left out."""
        reader = ListReader(self._client, self._listing, self.waits)
        await reader.read(self._edges, max(self._interval, _MIN_SECONDS))
        self._edges = reader.edges
        problem = reader.problems[0] if reader.problems else None
        if problem and problem != self._problem:
            log.warning(
                "The list of %s was not read to its end: %s. What it has not shown is polled singly",
                self._listing.name.lower(),
                problem,
            )
        self._problem = problem
        return reader.states


_polls: dict[tuple[AsyncIBMQuantumClient, Listing, float], SharedPoll] = {}


@contextmanager
def shared_wait(client: AsyncIBMQuantumClient, listing: Listing, interval: float) -> Iterator[Wait]:
    """
    Enter one more wait, and leave when it is over.

    :param client: The running loop's client for the connection, as :func:`shared_client` lends it.
    :param interval: Seconds between polls, on average.
    """
    key = client, listing, interval
    shared = _polls.setdefault(key, SharedPoll(*key))
    wait = Wait(shared)
    shared.waits.add(wait)
    try:
        yield wait
    finally:
        shared.waits.discard(wait)
        if not shared.waits:
            del _polls[key]
            shared.stop()
