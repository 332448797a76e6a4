# SPDX-License-Identifier: Apache-2.0
"""The MCP service over standard input and output, for an assistant that starts its servers itself."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

import anyio
from mcp.server.stdio import stdio_server

from airflow_provider_ibm_sessions.client.validation import DEFAULT_MAX_TTL
from airflow_provider_ibm_sessions.server.exposure import EXPOSED, Exposure
from airflow_provider_ibm_sessions.server.mcp import mcp_server
from airflow_provider_ibm_sessions.server.run import cancel_on_signals
from airflow_provider_ibm_sessions.server.security import ClientConnection
from airflow_provider_ibm_sessions.server.service import ClientFactory, SessionService

_INTERRUPTED: Final = 130

log = logging.getLogger(__name__)


async def serve_stdio(
    client_factory: ClientFactory,
    exposed: Sequence[Exposure] = EXPOSED,
    *,
    max_ttl: int = DEFAULT_MAX_TTL,
) -> None:
    """
    Serve one client over standard input and output, until the input ends.

    SIGTERM, SIGHUP, SIGINT and a closed output end the process as well, with exit code 130, after closing the
    sessions whose responses were not written.
    """
    service = SessionService(client_factory, max_ttl=max_ttl)
    transport = StdoutWriter(_claim_stdout())
    server = mcp_server(service, exposed, transport.connection_for)
    cancel_on_signals("SIGTERM", "SIGHUP", "SIGINT")
    async with stdio_server(stdout=cast("Any", transport)) as (read, write):
        try:
            await server.run(read, write, server.create_initialization_options())
        except asyncio.CancelledError:
            os._exit(_INTERRUPTED)  # any other end waits for the thread that reads the input, which waits too


class StdoutWriter:
    """A file for the SDK's transport, which notes which responses were written."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self._connections: dict[Any, ClientConnection] = {}

    def connection_for(self, context: Any) -> ClientConnection:
        """Return the connection of a request."""
        return self._connections.setdefault(context.request_id, ClientConnection("stdio"))

    async def write(self, text: str) -> None:
        """
        Write one message.

        :raises OSError: If the other end is closed; all that wait for a response are disconnected then.
        """
        try:
            await anyio.to_thread.run_sync(self._write, text)
        except OSError:
            log.error("Standard output is closed: shutting down")  # noqa: TRY400 - a traceback says nothing more
            for connection in self._connections.values():
                connection.disconnect()
            raise
        request_id = json.loads(text).get("id")
        if request_id in self._connections:
            self._connections.pop(request_id).mark_delivered()

    async def flush(self) -> None:
        """Do nothing: :meth:`write` has flushed."""

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


def _claim_stdout() -> io.TextIOBase:
    """Return standard output, for responses only: all other output goes to standard error from now on."""
    file = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with suppress(OSError):
        os.dup2(2, 1)
    return file
