# SPDX-License-Identifier: Apache-2.0
"""Middleware: who may call, limits of a request, and disconnects."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_ibm_sessions.client.credentials import is_loopback
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.server.problem_details import ProblemDetails

HEALTH_PATH: Final = "/health"
MIN_TOKEN_LENGTH: Final = 16
MAX_BODY_BYTES: Final = 64 * 2**10
"""The largest request that makes sense has a few hundred."""
BODY_TIMEOUT: Final = 30.0
_HOST: Final = re.compile(
    r"(?P<name>[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[(?P<ipv6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
)
"""A Host header: a name or an address and a port, without user, path or query."""

_CONNECTION: Final = "ibm_quantum_connection"

log = logging.getLogger(__name__)


def validate_token(token: str, source: str) -> str:
    """
    Return the bearer token that clients must send.

    :param source: Where it comes from, for the error.
    :raises ConfigurationError: If it can be guessed, or not be sent. The error does not contain it.
    """
    if len(token) >= MIN_TOKEN_LENGTH and token.isascii() and token.isprintable() and " " not in token:
        return token
    raise ConfigurationError(
        f"The bearer token from {source} needs {MIN_TOKEN_LENGTH} or more printable ASCII letters, no spaces",
        field="token",
    )


@dataclass(frozen=True)
class AccessPolicy:
    """
    Conditions that a request must meet.

    :param token: The bearer token that clients must send; None lets in all that reach the loopback address.
    :param host: The address that the service listens on.
    :param names: Further host names of the service.
    :raises ConfigurationError: If other machines could call without a token.
    """

    token: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    names: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in sorted(self.names):
            if _parse_host(name) != name and _parse_address(name) is None:
                raise ConfigurationError(
                    f"--name {name!r} is not a host name; give it without scheme, port and path", field="name"
                )
        for name in (self.host, *sorted(self.names)):
            if self.token is None and not is_loopback(name):
                raise ConfigurationError(
                    f"Other machines can reach {name or 'every address'}: this needs a bearer token",
                    field="token",
                )

    def allows_host(self, host: str) -> bool:
        """
        Return True if a Host header names this service.

        A web page can make its own name lead to our address (DNS rebinding), but not an address.
        """
        name = _parse_host(host)
        if name is None:
            return False
        if name in self.names or name == self.host.lower():
            return True
        if is_loopback(self.host):
            return is_loopback(name)
        listens_on = _parse_address(self.host)
        return listens_on is not None and listens_on.is_unspecified and _parse_address(name) is not None

    def is_authorized(self, authorization: str) -> bool:
        """Return True if an Authorization header has the token. Takes the same time for all that do not."""
        if self.token is None:
            return True
        scheme, _, token = authorization.partition(" ")
        is_equal = hmac.compare_digest(token.strip().encode(), self.token.encode())
        return is_equal and scheme.lower() == "bearer"

    def find_problem(self, headers: Mapping[str, str], *, needs_token: bool) -> ProblemDetails | None:
        """Return the reason to refuse a request with these headers, or None."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        if not self.allows_host(host):
            return ProblemDetails.from_status(421, "The Host header names another service", "Host")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return ProblemDetails.from_status(403, "Web pages of other origins may not call", "Origin")
        if needs_token and not self.is_authorized(headers.get("authorization", "")):
            detail = "Send the bearer token of this service: Authorization: Bearer <token>"
            return ProblemDetails.from_status(401, detail, "Authorization")
        return None


class ClientDisconnected(Exception):  # noqa: N818 - it is an event, as Starlette's ClientDisconnect
    """The client that waited for the response has disconnected."""


class ClientConnection:
    """
    The connection on which one response is awaited. Without a server it never disconnects.

    :param address: The client's address for the log. Without one, nothing is logged.
    """

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.reached_service = False
        self.disconnected = asyncio.Event()
        self._compensate: Callable[[], object] | None = None

    async def wait_for(self, task: asyncio.Task[Any]) -> None:
        """
        Wait until the task ends, by success or by failure.

        :raises ClientDisconnected: If the client disconnects first.
        """
        disconnect = asyncio.create_task(self.disconnected.wait())
        try:
            await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            disconnect.cancel()
        if not task.done():
            raise ClientDisconnected

    def compensate_unless_delivered(self, compensate: Callable[[], object]) -> None:
        """Call ``compensate`` if the client disconnects before :meth:`mark_delivered`."""
        self._compensate = compensate
        if self.disconnected.is_set():
            self.disconnect()

    def mark_delivered(self) -> None:
        """Note that the response was written."""
        self._compensate = None

    def disconnect(self) -> None:
        """Note that nothing more can be written."""
        self.disconnected.set()
        if self._compensate is not None:
            compensate, self._compensate = self._compensate, None
            compensate()


def connection_in(scope: MutableMapping[str, Any]) -> ClientConnection:
    """Return the connection of an ASGI request."""
    connection = scope.get(_CONNECTION)
    return connection if isinstance(connection, ClientConnection) else ClientConnection()


def client_address(scope: Scope) -> str:
    """Return the address of a request's client, for the log."""
    host, port = scope.get("client") or ("unknown", 0)
    return f"{host}:{port}"


class AccessMiddleware:
    """ASGI middleware that applies the policy and logs refusals; ``GET /health`` needs no token."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        status = 0

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        is_health = scope["path"] == HEALTH_PATH
        problem = self._policy.find_problem(_headers(scope), needs_token=not is_health)
        if problem is None:
            await self._app(scope, receive, note_status)
        else:
            challenge = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
            await problem.to_response(challenge)(scope, receive, note_status)
        # What the service has called is logged there, with the operation and the id.
        if status >= 400 and not is_health and not connection_in(scope).reached_service:
            path = scope["raw_path"].decode("latin-1")  # still percent-encoded: one line, whatever it holds
            log.warning(
                "Refused %s %s from %s: %d", scope["method"], path[:200], client_address(scope), status
            )


def _headers(scope: Scope) -> dict[str, str]:
    """Return headers by name. The values of one that is sent twice are joined, which no check accepts."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _parse_host(host: str) -> str | None:
    """Return the name or address of a Host header, or None if it is malformed."""
    match = _HOST.fullmatch(host.lower())
    if not match or not 0 < int(match["port"] or 1) < 2**16:
        return None
    if ipv6 := match["ipv6"]:
        return str(ipv6) if isinstance(_parse_address(ipv6), IPv6Address) else None
    return match["name"]


def _parse_address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


class DisconnectMiddleware:
    """
    ASGI middleware that reads a request within limits and notes when its client disconnects.

    A body must be declared as JSON and have no key twice. ``/health`` needs no token, so no body of its
    clients is read or waited for.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["path"] == HEALTH_PATH:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(receive)
        except ClientDisconnected:
            return
        problem = body if isinstance(body, ProblemDetails) else _json_problem(scope, body)
        if problem is not None:
            await problem.to_response()(scope, receive, send)
        elif isinstance(body, bytes):
            await self._handle(body, scope, receive, send)

    async def _read(self, receive: Receive) -> bytes | ProblemDetails:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnected
                    body += message.get("body", b"")
                    if len(body) > self._max_body_bytes:
                        detail = f"The body must not be longer than {self._max_body_bytes} bytes"
                        return ProblemDetails.from_status(413, detail)
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            return ProblemDetails.from_status(408, f"The body did not arrive within {BODY_TIMEOUT:g} s")

    async def _handle(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope[_CONNECTION] = ClientConnection(client_address(scope))
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        response_started = False

        async def replay() -> Message:
            if messages:
                return messages.pop()
            await connection.disconnected.wait()
            return {"type": "http.disconnect"}

        async def watched_send(message: Message) -> None:
            nonlocal response_started
            response_started = True
            await send(message)
            # A server drops what it is given after a disconnect.
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if is_last and not connection.disconnected.is_set():
                connection.mark_delivered()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            connection.disconnect()

        watching = asyncio.create_task(watch())
        try:
            await self._app(scope, replay, watched_send)
        except asyncio.CancelledError:  # by the server, which shuts down
            if response_started:
                raise
            detail = "The service shuts down before IBM responded; a session that was being opened is closed"
            await ProblemDetails.from_status(503, detail).to_response()(scope, receive, send)
        finally:
            watching.cancel()
            connection.disconnect()


def _json_problem(scope: Scope, body: bytes) -> ProblemDetails | None:
    """Return what is wrong with a body that its reader would not see. It reports broken JSON itself."""
    if not body:
        return None
    media_types = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
    if [value.partition(b";")[0].strip().lower() for value in media_types] != [b"application/json"]:
        # A web page may send other types to another origin without asking.
        return ProblemDetails.from_status(422, "Content-Type must be application/json", "Content-Type")
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                repeated.append(key)
            seen.add(key)

    with suppress(ValueError, RecursionError):
        json.loads(body, object_pairs_hook=note)
    if repeated:
        detail = f"The key {json.dumps(repeated[0])} stands twice in the body"
        return ProblemDetails.from_status(422, detail, repeated[0])
    return None
