# SPDX-License-Identifier: Apache-2.0
"""One async client, and so one set of connections, for all tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from airflow_provider_ibm_sessions.client._http import tls
from airflow_provider_ibm_sessions.client._http.pool import POOL_SHARDS
from airflow_provider_ibm_sessions.client.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.credentials import Credentials


@dataclass(slots=True)
class _Shared:
    client: AsyncIBMQuantumClient
    users: int = 0


_shared: dict[tuple[asyncio.AbstractEventLoop, Credentials, int], _Shared] = {}


@asynccontextmanager
async def shared_client(
    credentials: Credentials, *, pool_shards: int = POOL_SHARDS
) -> AsyncIterator[AsyncIBMQuantumClient]:
    """Lend the running loop's client for these credentials; its last user closes it."""
    key = (asyncio.get_running_loop(), credentials, pool_shards)
    if key not in _shared:
        await asyncio.to_thread(tls.context, credentials.verify)  # may read a file: not in the loop
    if key not in _shared:
        _shared[key] = _Shared(AsyncIBMQuantumClient(credentials, pool_shards=pool_shards))
    entry = _shared[key]
    entry.users += 1
    try:
        yield entry.client
    finally:
        entry.users -= 1
        if not entry.users:
            del _shared[key]
            await entry.client.close()
