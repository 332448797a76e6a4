# SPDX-License-Identifier: Apache-2.0
"""
Pools of HTTP clients, because httpcore's own pool of connections fails its users in two ways.

Under threads, it may close a connection that it has just given to another thread: "Bad file descriptor", or
a wait until the timeout. So a blocking client is never used by two threads at once. In an event loop, it
compares each request with every connection and every other request: with a hundred in flight that takes most
of a core, and ten pools of ten take a tenth. In both, a forked child gets connections of its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx

MAX_THREADS: Final = 10
"""Exchanges at once of a blocking client, each on a connection of its own."""
POOL_SHARDS: Final = 10
"""Of an async client; a hundred exchanges at once are a thousand polls each 10 s at 1 s for a response."""
CONNECTIONS_PER_SHARD: Final = 10
"""Exchanges at once in one shard."""


@dataclass(slots=True)
class _Threads:
    """The part of an :class:`ExclusivePool` that one process uses."""

    pid: int = field(default_factory=os.getpid)
    room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_THREADS))
    idle: list[httpx.Client] = field(default_factory=list)


class ExclusivePool:
    """
    Lends a blocking HTTP client to one thread at a time. The last one used is lent first.

    :param make_client: Makes a client; called when none is idle.
    """

    def __init__(self, make_client: Callable[[], httpx.Client]) -> None:
        self._make_client = make_client
        self._threads = _Threads()
        self._is_closed = False

    @contextmanager
    def client(self, timeout: float) -> Iterator[httpx.Client]:
        """
        Lend a client for one exchange.

        :param timeout: Seconds to wait for one while all are in use.
        :raises httpx.PoolTimeout: If none became free.
        """
        if self._threads.pid != os.getpid():
            self._threads = _Threads()  # a forked child shares the sockets of its parent, who goes on
        threads = self._threads
        if not threads.room.acquire(timeout=timeout):
            raise httpx.PoolTimeout(f"{MAX_THREADS} other threads use all connections of this client")
        try:
            try:
                http = threads.idle.pop()
            except IndexError:
                http = self._make_client()
            try:
                yield http
            finally:
                threads.idle.append(http)
                if self._is_closed:
                    self.close()
        finally:
            threads.room.release()

    def close(self) -> None:
        """Close all connections; those in use, when their exchange ends."""
        self._is_closed = True
        if self._threads.pid == os.getpid():
            while self._threads.idle:
                self._threads.idle.pop().close()


@dataclass(slots=True)
class _Shard:
    http: httpx.AsyncClient
    in_use: int = 0


class ShardedPool:
    """
    Lends an async HTTP client for one exchange. The first shard is filled first, so that few are needed.

    :param make_client: Makes a client; called when a shard is first needed.
    :param pool_shards: How many shards there may be.
    """

    def __init__(self, make_client: Callable[[], httpx.AsyncClient], pool_shards: int = POOL_SHARDS) -> None:
        self._make_client = make_client
        self._pool_shards = pool_shards
        self._reset()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Lend the HTTP client of a shard with room; wait for one if all are full."""
        if self._pid != os.getpid():
            self._reset()
        async with self._room:
            shard = next((each for each in self._shards if each.in_use < CONNECTIONS_PER_SHARD), None)
            if shard is None:
                shard = _Shard(self._make_client())
                self._shards.append(shard)
            shard.in_use += 1
            try:
                yield shard.http
            finally:
                shard.in_use -= 1

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(shard.http.aclose() for shard in self._shards), return_exceptions=True)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._shards: list[_Shard] = []
        self._room = asyncio.Semaphore(self._pool_shards * CONNECTIONS_PER_SHARD)
