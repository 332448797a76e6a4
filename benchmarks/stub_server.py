# SPDX-License-Identifier: Apache-2.0
"""
The fastest server at hand: answers any GET with one session and any POST with a token, and checks nothing.

A slow server would hide what a client costs. Ends with its standard input, and says how many tokens it gave.
The seconds that it takes for an answer may be given. GETs of the session ``stuck`` and PATCHes get none.
"""

from __future__ import annotations

import asyncio
import json
import sys

SESSION = {
    "id": "6f1c9c2e-0d0b-4b7e-9a52-3a6f6a1f3f10",
    "backend_name": "ibm_fez",
    "mode": "dedicated",
    "state": "active",
    "state_reason": None,
    "accepting_jobs": True,
    "max_ttl": 28800,
    "interactive_ttl": 60,
    "active_ttl": 28700,
    "started_at": "2026-10-01T12:00:00.000000Z",
    "activated_at": "2026-10-01T12:00:00.000000Z",
    "closed_at": None,
    "last_job_started": "2026-10-01T12:00:00.000000Z",
    "last_job_completed": "2026-10-01T12:01:00.000000Z",
    "elapsed_time": 100.5,
    "user_id": "IBMid-0123456789",
    "timestamps": [
        {"status": "open", "timestamp": "2026-10-01T11:59:00.000000Z"},
        {"status": "active", "timestamp": "2026-10-01T12:00:00.000000Z"},
    ],
}
# As long as IBM's tokens.
TOKEN = {"access_token": "t" * 1200, "token_type": "Bearer", "expires_in": 3600}


STUCK = "stuck"


def _reply(body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Answering(asyncio.Protocol):
    """One connection. A request is taken to come in one piece, as small ones on loopback do."""

    session, token = _reply(SESSION), _reply(TOKEN)
    done = b"HTTP/1.1 204 No Content\r\n\r\n"
    latency = 0.0
    tokens = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer. A form's body, alone or before a request, is part of what was answered."""
        if b"GET /" in data:
            if STUCK.encode() not in data:
                self._write(self.session)
        elif b"DELETE /" in data:
            self._write(self.done)
        elif data.startswith(b"POST "):
            Answering.tokens += 1
            self._write(self.token)

    def _write(self, reply: bytes) -> None:
        if self.latency:
            asyncio.get_running_loop().call_later(self.latency, self._transport.write, reply)
        else:
            self._transport.write(reply)


async def serve(latency: float = 0.0) -> None:
    """Print the address, then answer until the input ends."""
    loop = asyncio.get_running_loop()
    Answering.latency = latency
    server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=512)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}", "session": SESSION["id"]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(json.dumps({"tokens": Answering.tokens}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(*map(float, sys.argv[1:])))
