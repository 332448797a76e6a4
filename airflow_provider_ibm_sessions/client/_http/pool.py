# SPDX-License-Identifier: Apache-2.0
"""
Several small connection pools in place of a large one.

For each request, httpcore's pool looks at every connection it has and at every request that waits, some of
them against each other. With a hundred in flight that takes most of a core; ten pools of ten take a tenth.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

POOL_SHARDS: Final = 10
"""With the width, a hundred requests in flight: a thousand polls each 10 s at 1 s for a reply."""
CONNECTIONS_PER_SHARD: Final = 10
"""Requests in flight in one lane."""


@dataclass(slots=True)
class _Shard:
    http: httpx.AsyncClient
    busy: int = 0


class ShardedPool:
    """
    Lends an HTTP client for one request at a time. The first lane is filled first: few need few connections.

    :param make: Makes a client; called for a lane when it is first needed.
    :param lanes: How many there may be.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient], pool_shards: int = POOL_SHARDS) -> None:
        self._make = make
        self._pool: list[_Shard] = []
        self._room = asyncio.Semaphore(pool_shards * CONNECTIONS_PER_SHARD)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """The HTTP client of a lane with room; waits for one if all are full."""
        async with self._room:
            lane = self._with_room()
            lane.busy += 1
            try:
                yield lane.http
            finally:
                lane.busy -= 1

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(lane.http.aclose() for lane in self._pool), return_exceptions=True)

    def _with_room(self) -> _Shard:
        for lane in self._pool:
            if lane.busy < CONNECTIONS_PER_SHARD:
                return lane
        self._pool.append(_Shard(self._make()))
        return self._pool[-1]
