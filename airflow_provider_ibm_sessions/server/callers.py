# SPDX-License-Identifier: Apache-2.0
"""Whether those who asked are still there, and what is done about an answer that did not reach them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_ibm_sessions.server.problem_details import Problem

HEALTH: Final = "/health"
MOST_BYTES: Final = 64 * 2**10
"""Bytes of a request's body. The largest that makes sense has a few hundred."""
BODY_SECONDS: Final = 30.0
LISTEN_SECONDS: Final = 0.02
"""A connection whose other end has gone answers our bytes with a reset. So long we listen for it."""
_LISTENINGS: Final = 4
_KEY: Final = "ibm_quantum_caller"


class CallerLeftError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class Debt:
    """An answer that must arrive. ``mark`` are bytes of it; ``cancel`` is called if it does not."""

    mark: bytes
    cancel: Callable[[], None]


class Caller:
    """One who waits for one answer. Made alone, it is one who does not leave."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self._debt: Debt | None = None
        self._over = False

    async def wait_for(self, working: asyncio.Task[Any]) -> None:
        """
        Wait until the work is done, well or not.

        :raises CallerLeftError: If the caller leaves before.
        """
        leaving = asyncio.create_task(self.left.wait())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
        if not working.done():
            raise CallerLeftError

    def owe(self, debt: Debt) -> None:
        """From now on this has to be delivered."""
        self._debt = debt
        if self._over:
            self.end()

    def is_owed(self, body: bytes) -> bool:
        """Whether these bytes hold what is owed."""
        return self._debt is not None and self._debt.mark in body

    def got_it(self) -> None:
        """The answer has been delivered."""
        self._debt = None

    def end(self) -> None:
        """Nothing more can be delivered."""
        self._over = True
        if self._debt is not None:
            self._debt.cancel()
            self._debt = None


def caller_of(scope: MutableMapping[str, Any]) -> Caller:
    """Whose request this is."""
    caller = scope.get(_KEY)
    return caller if isinstance(caller, Caller) else Caller()


class Attended:
    """
    ASGI middleware: reads a request whole and within bounds, then watches whether its caller stays.

    What an answer owes (see :meth:`Caller.owe`) is JSON, alone or in an event. It is sent up to its last
    brace; only if the connection still stands then, the rest follows, and the answer counts as delivered.
    ``/health`` is for callers without a token: nothing of theirs is read or waited for.
    """

    def __init__(self, app: ASGIApp, most_bytes: int = MOST_BYTES) -> None:
        self._app = app
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server, for each request."""
        if scope["type"] != "http" or scope["path"] == HEALTH:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._whole(receive)
        except CallerLeftError:
            return
        if isinstance(body, Problem):
            await body.response()(scope, receive, send)
            return
        await self._attend(body, scope, receive, send)

    async def _whole(self, receive: Receive) -> bytes | Problem:
        """The body, or why it is refused."""
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise CallerLeftError
                    body += message.get("body", b"")
                    if len(body) > self._most:
                        return Problem.plain(413, f"The body must not be longer than {self._most} bytes")
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            return Problem.plain(408, f"The body did not arrive within {BODY_SECONDS:g} s")

    async def _attend(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope[_KEY] = Caller()
        delivery = _Delivery(caller, send)
        watching = asyncio.create_task(_watch(receive, caller))
        try:
            await self._app(scope, _replay(body, caller), delivery)
        except asyncio.CancelledError:  # by the server, which ends
            if delivery.has_begun:
                raise
            ends = "The service ends, and IBM has not answered yet; what it opens is closed"
            await Problem.plain(503, ends).response()(scope, receive, send)
        finally:
            watching.cancel()
            caller.end()


async def _watch(receive: Receive, caller: Caller) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    caller.left.set()


def _replay(body: bytes, caller: Caller) -> Receive:
    """What the application receives: the body, and then the news that its caller has left."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await caller.left.wait()
        return {"type": "http.disconnect"}

    return receive


class _Delivery:
    """Sends the answer."""

    def __init__(self, caller: Caller, send: Send) -> None:
        self._caller = caller
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        if message["type"] == "http.response.body" and self._caller.is_owed(message.get("body", b"")):
            await self._deliver(message)
        else:
            await self._send(message)

    async def _deliver(self, message: Message) -> None:
        body = message["body"]
        end = body.rindex(b"}")
        await self._send({**message, "body": body[:end], "more_body": True})
        if not await self._leaves():
            await self._send({**message, "body": body[end:]})
            self._caller.got_it()

    async def _leaves(self) -> bool:
        """Listens in parts: a loop that was busy for long sees the clock and the sockets at the same time."""
        for _ in range(_LISTENINGS):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._caller.left.wait(), LISTEN_SECONDS / _LISTENINGS)
                return True
        return False
