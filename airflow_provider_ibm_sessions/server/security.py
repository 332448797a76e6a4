# SPDX-License-Identifier: Apache-2.0
"""Access checks: they come before anything else is done with a request."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_ibm_sessions.client.credentials import is_loopback
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.server.problem_details import ProblemDetails
from airflow_provider_ibm_sessions.server.service import HEALTH_PATH, client_address, connection_in

MIN_TOKEN_LENGTH: Final = 16
_HOST: Final = re.compile(
    r"(?P<name>[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[(?P<ipv6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
)
"""A Host header: a name or an address and a port, without user, path or query."""

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
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.allows_host(host):
            return ProblemDetails.from_status(421, "The Host header names another service", "Host")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return ProblemDetails.from_status(403, "Web pages of other origins may not call", "Origin")
        if needs_token and not self.is_authorized(headers.get("authorization", "")):
            detail = "Send the bearer token of this service: Authorization: Bearer <token>"
            return ProblemDetails.from_status(401, detail, "Authorization")
        return None


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
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
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
