# SPDX-License-Identifier: Apache-2.0
"""
The fastest server at hand: answers any GET with a session and any POST with a token, and checks nothing.

A slow server would hide what a client costs. Ends with its standard input, and says what it was asked for.
The seconds that it takes for an answer may be given, and how many sessions the list of workloads has, and
their state. GETs of the session ``stuck`` and PATCHes get no answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

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
SESSION_ID = str(SESSION["id"]).encode()
# As long as IBM's tokens.
TOKEN = {"access_token": "t" * 1200, "token_type": "Bearer", "expires_in": 3600}


STUCK = "stuck"

_PAGE = 50
_OLDEST = datetime.now(UTC) - timedelta(hours=6)


def session_id(number: int) -> str:
    """The id of a session in the list of workloads."""
    return f"{number:08}-0d0b-4b7e-9a52-3a6f6a1f3f10"


def _number_at(text: str) -> int:
    """The row of that time, or the last one before."""
    return (datetime.fromisoformat(text) - _OLDEST) // timedelta(seconds=1)


def _workload(number: int) -> bytes:
    """One row of the list, a second younger than the one before."""
    usage = {"qpu_charge_time_seconds": 0, "status": "pending"}
    facts = {"id": session_id(number), "created": (_OLDEST + timedelta(seconds=number)).isoformat()}
    facts |= {"ended": None, "backend": "ibm_fez", "instance": "crn:v1:bluemix:public:quantum-computing:::::"}
    facts |= {"user_id": SESSION["user_id"], "accepting_jobs": True, "mode": "session", "status": "pending"}
    more = {"usage": usage, "usage_seconds": 0, "tags": [], "estimated_running_time_seconds": None}
    return json.dumps({**facts, **more}).encode()


def _reply(body: object) -> bytes:
    return _with_head(json.dumps(body).encode())


def _with_head(content: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Answering(asyncio.Protocol):
    """One connection. A request is taken to come in one piece, as small ones on loopback do."""

    session, token = _reply(SESSION), _reply(TOKEN)
    done = b"HTTP/1.1 204 No Content\r\n\r\n"
    latency = 0.0
    asked: ClassVar[Counter[str]] = Counter()
    rows: tuple[bytes, ...] = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.asked["connections"] += 1

    def data_received(self, data: bytes) -> None:
        """Answer. A form's body, alone or before a request, is part of what was answered."""
        if b"GET /" in data:
            target = data[data.index(b"GET /") + 4 :].split(b" ", 1)[0]
            if target.startswith(b"/v1/workloads"):
                self.asked["lists"] += 1
                self._write(self._page(target.decode()))
            elif STUCK.encode() not in target:
                self.asked["reads"] += 1
                name = target.partition(b"/v1/sessions/")[2]
                self._write(
                    self.session.replace(SESSION_ID, name) if len(name) == len(SESSION_ID) else self.session
                )
        elif b"DELETE /" in data:
            self._write(self.done)
        elif data.startswith(b"POST "):
            self.asked["tokens"] += 1
            self._write(self.token)

    def _page(self, target: str) -> bytes:
        """A page of the sessions, oldest first; there are no batches."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        first, last = 0, len(self.rows)
        if "created_after" in query:
            first = max(0, _number_at(query["created_after"]))
        if "created_before" in query:
            last = min(last, _number_at(query["created_before"]) + 1)
        start = int(query.get("next", first))
        end = min(start + _PAGE, last) if query.get("mode") != "batch" else start
        more = b""
        if end < last and end > start:
            more = b', "next": {"href": "https://ibm/api/v1/workloads?next=%d"}' % end
        return _with_head(b'{"workloads": [%s], "limit": 50%s}' % (b", ".join(self.rows[start:end]), more))

    def _write(self, reply: bytes) -> None:
        if self.latency:
            asyncio.get_running_loop().call_later(self.latency, self._transport.write, reply)
        else:
            self._transport.write(reply)


async def serve(latency: str = "0", sessions: str = "0", state: str = "active") -> None:
    """Print the address, then answer until the input ends."""
    loop = asyncio.get_running_loop()
    Answering.latency = float(latency)
    Answering.session = _reply({**SESSION, "state": state})
    Answering.rows = tuple(map(_workload, range(int(sessions)))) if state != "closed" else ()
    server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=512)
    port = server.sockets[0].getsockname()[1]
    names = [session_id(number) for number in range(int(sessions))]
    about = {"url": f"http://127.0.0.1:{port}", "session": SESSION["id"], "sessions": names}
    print(json.dumps(about), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(json.dumps({**Answering.asked, "cpu_seconds": time.process_time()}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
