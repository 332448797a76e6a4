# SPDX-License-Identifier: Apache-2.0
"""
Callers at once, a connection each, on bare sockets: an HTTP library would cost more than what is measured.

Prints JSON: answers, errors, answers a second, and times in ms.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from statistics import median, quantiles

from benchmarks.stub_server import SESSION, STUCK

_NAME = str(SESSION["id"])
_VERSION = "2026-07-28"
_CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {
        "name": "ibm-quantum-get-session",
        "arguments": {"id": _NAME},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": _VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    },
}


def request(kind: str, host: str) -> bytes:
    """The bytes of one request."""
    if kind == "mcp":
        body = json.dumps(_CALL).encode()
        lines = ["POST /mcp HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += ["Accept: application/json, text/event-stream", f"MCP-Protocol-Version: {_VERSION}"]
        lines += ["Mcp-Method: tools/call", "Mcp-Name: ibm-quantum-get-session"]
    else:
        body = b'{"accepting_jobs": false}' if kind == "stuck-write" else b""
        paths = {
            "rest": f"GET /v1/sessions/{_NAME}",
            "close": f"DELETE /v1/sessions/{_NAME}/close",
            "stuck": f"GET /v1/sessions/{STUCK}",
            "stuck-write": f"PATCH /v1/sessions/{STUCK}",
        }
        lines = [f"{paths[kind]} HTTP/1.1"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, f"Host: {host}", "", ""]).encode() + body


class Caller:
    """One connection."""

    def __init__(self, kind: str, url: str) -> None:
        self._host = url.removeprefix("http://")
        self._request = request(kind, self._host)
        self._good = b" 204 " if kind == "close" else b" 200 "
        self.times: list[float] = []
        self.errors = 0

    async def ask(self, times: int) -> None:
        """Ask so many times, one after the other."""
        host, port = self._host.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(times):
            start = time.perf_counter()
            writer.write(self._request)
            good = await self._answer(reader)
            self.times.append(time.perf_counter() - start)
            self.errors += not good
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
        body = await reader.readexactly(int(length or b"0"))
        return self._good in head and (b" 204 " in head or _NAME.encode() in body)


async def measure(kind: str, url: str, callers: int, calls: int, stuck: int) -> dict[str, float]:
    """Let all ask at once; the stuck ones, each other one of which writes, are let go at the end."""
    kinds = ("stuck", "stuck-write")
    waiting = [asyncio.create_task(Caller(kinds[each % 2], url).ask(1)) for each in range(stuck)]
    await Caller(kind, url).ask(1)  # not counted: it fetches the token
    asking = [Caller(kind, url) for _ in range(callers)]
    start = time.perf_counter()
    await asyncio.gather(*[caller.ask(calls) for caller in asking])
    wall = time.perf_counter() - start
    for task in waiting:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    times = [moment * 1000 for caller in asking for moment in caller.times]
    return {
        "answers": len(times),
        "errors": sum(caller.errors for caller in asking),
        "rate": len(times) / wall,
        "median": median(times),
        "p99": quantiles(times, n=100)[98],
    }


if __name__ == "__main__":
    kind, url, *numbers = sys.argv[1:]
    callers, calls, stuck = map(int, numbers)
    print(json.dumps(asyncio.run(measure(kind, url, callers, calls, stuck))))
