# SPDX-License-Identifier: Apache-2.0
"""Who may call: checked before anything else is done with a request."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_ibm_sessions.client.credentials import is_loopback
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.server.callers import HEALTH
from airflow_provider_ibm_sessions.server.problem_details import Problem

MOST_AT_ONCE: Final = 1000
"""Requests in work. More are sent away, so that memory is bounded."""
MIN_TOKEN: Final = 16


def validate_token(token: str, where: str) -> str:
    """
    Return the bearer token that callers must have.

    :param where: Where it comes from, for the error.
    :raises ConfigurationError: If it can be guessed, or not be sent. The token itself is not shown.
    """
    if len(token) >= MIN_TOKEN and token.isascii() and token.isprintable() and " " not in token:
        return token
    raise ConfigurationError(
        f"The bearer token from {where} must be {MIN_TOKEN} or more printable ASCII characters, no spaces",
        field="token",
    )


@dataclass(frozen=True)
class Rules:
    """
    Who may call.

    :param token: The bearer token that callers must have; None: whoever reaches us may call.
    :param host: The address that is listened on.
    :param names: Further host names under which callers may know us.
    :param most_at_once: Requests in work.
    :raises ConfigurationError: If others than this machine could call without a token.
    """

    token: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    names: frozenset[str] = frozenset()
    most_at_once: int = MOST_AT_ONCE

    def __post_init__(self) -> None:
        for name in sorted(self.names):
            if _name_of(name) != name and not _is_address(name):
                raise ConfigurationError(
                    f"{name!r} is no name of a host; without scheme, port and path, please", field="name"
                )
        for name in (self.host, *sorted(self.names)):
            if self.token is None and not is_loopback(name):
                raise ConfigurationError(
                    f"{name} can be reached from other machines: that needs a bearer token", field="token"
                )

    def knows(self, host: str) -> bool:
        """
        Whether a Host header may name us so.

        A web page can have its own name lead to our address (DNS rebinding), but not an address.
        """
        name = _name_of(host)
        if name in self.names or name == self.host.lower():
            return True
        if is_loopback(self.host):
            return is_loopback(name)
        return _is_address(name) and _is_everywhere(self.host)

    def admits(self, authorization: str) -> bool:
        """Whether an Authorization header holds the token. Takes the same time for all that do not."""
        if self.token is None:
            return True
        scheme, _, token = authorization.partition(" ")
        same = hmac.compare_digest(token.strip().encode(), self.token.encode())
        return same and scheme.lower() == "bearer"


class Guard:
    """ASGI middleware that keeps the rules; ``GET /health`` is for all who know our name."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules
        self._at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server, for each request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            is_health = scope["path"] == HEALTH
            admitted = self._app if is_health else self._counted
            refusal = self._refusal(_headers(scope), is_health=is_health)
            await (refusal or admitted)(scope, receive, send)

    def _refusal(self, headers: Mapping[str, str], *, is_health: bool) -> Response | None:
        """Why the request is not let in, if it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._rules.knows(host):
            return Problem.plain(421, "The Host header names another service", "Host").response()
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return Problem.plain(403, "Web pages of other origins may not call", "Origin").response()
        if is_health:
            # It needs no token, so it must not be able to use up what those with one need.
            return None
        if not self._rules.admits(headers.get("authorization", "")):
            detail = "Send the bearer token of this service: Authorization: Bearer <token>"
            return Problem.plain(401, detail, "Authorization").response({"WWW-Authenticate": "Bearer"})
        if self._at_once >= self._rules.most_at_once:
            return Problem.plain(503, "Too many requests at once").response({"Retry-After": "1"})
        return None

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._at_once += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._at_once -= 1


def _headers(scope: Scope) -> dict[str, str]:
    """Header by name. One that is sent twice is as good as wrong: its values are joined."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _name_of(host: str) -> str:
    """The name or address of a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_everywhere(host: str) -> bool:
    return _is_address(host) and ip_address(host).is_unspecified
