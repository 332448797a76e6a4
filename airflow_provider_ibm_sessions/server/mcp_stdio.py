# SPDX-License-Identifier: Apache-2.0
"""The MCP face over standard input and output, for an assistant that starts its servers itself."""

from __future__ import annotations

import asyncio
import io
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

import anyio
from mcp.server.stdio import stdio_server

from airflow_provider_ibm_sessions.client.operations import PUBLIC, Operation
from airflow_provider_ibm_sessions.server.callers import Caller, Debt
from airflow_provider_ibm_sessions.server.mcp import mcp_server
from airflow_provider_ibm_sessions.server.service import ClientSource, Desk
from airflow_provider_ibm_sessions.server.signals import heed

_INTERRUPTED: Final = 130

log = logging.getLogger(__name__)


async def serve_stdio(source: ClientSource, operations: Sequence[Operation[Any]] = PUBLIC) -> None:
    """
    Serve one client over standard input and output, until the input ends.

    SIGTERM, SIGHUP, SIGINT and an output that nobody reads end the process as well, with exit code 130, after
    the same settling.
    """
    output = Output(_claimed_output())
    server = mcp_server(Desk(source), operations, output)
    heed("SIGTERM", "SIGHUP", "SIGINT")
    async with stdio_server(stdout=cast("Any", output)) as (read, write):
        try:
            await server.run(read, write, server.create_initialization_options())
        except asyncio.CancelledError:
            os._exit(_INTERRUPTED)  # any other end waits for the thread that reads the input, which waits too


class Output:
    """Writes answers, and knows which of those that have to arrive were taken."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self._owing: set[Caller] = set()

    def caller(self) -> Caller:
        """One who waits for the answer to one request."""
        return _Waiting(self._owing)

    async def write(self, text: str) -> None:
        """Write one message, whole. An error means that the other end has gone."""
        try:
            await anyio.to_thread.run_sync(self._send, text)
        except OSError:
            log.error("The output is closed: ending")  # noqa: TRY400 - it has no bug to trace
            raise
        for caller in [each for each in self._owing if each.is_owed(text.encode())]:
            caller.got_it()
            self._owing.discard(caller)

    async def flush(self) -> None:
        """Nothing: what is written is flushed."""

    def end(self) -> None:
        """Nothing more can be written."""
        for caller in self._owing:
            caller.end()

    def _send(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


class _Waiting(Caller):
    def __init__(self, owing: set[Caller]) -> None:
        super().__init__()
        self._owing = owing

    def owe(self, debt: Debt) -> None:
        self._owing.add(self)
        super().owe(debt)


def _claimed_output() -> io.TextIOBase:
    """Standard output, for answers only: what else is printed goes to standard error from here on."""
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with suppress(OSError):
        os.dup2(2, 1)
    return wire
