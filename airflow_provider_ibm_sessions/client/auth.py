# SPDX-License-Identifier: Apache-2.0
"""
IAM: exchanges the API key for a bearer token and puts the token on every request.

One exchange per process and key, whatever the number of clients, threads and event loops: the token is cached
here, renewed ahead of time by one caller while the others go on with the old one, and renewed once more when
IBM answers 401. Facts: IBM Cloud's IAM token API (tokens live an hour at most).
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing
from typing import Any, Final

import httpx

from airflow_provider_ibm_sessions.client import responses
from airflow_provider_ibm_sessions.client.credentials import Credentials, Secret
from airflow_provider_ibm_sessions.client.errors import (
    AuthenticationError,
    BadResponseError,
    IBMQuantumError,
    RateLimitedError,
    RequestRejectedError,
    TransportError,
)
from airflow_provider_ibm_sessions.client.exchange import IAM, Exchange, exchange_of

GRANT_TYPE: Final = "urn:ibm:params:oauth:grant-type:apikey"
CONNECT_TIMEOUT: Final = 10.0
_ACTION: Final = "Get an IAM token"
_MIN_MARGIN: Final = 360.0
_RETRY_REFRESH_AFTER: Final = 60.0
_ASYNC_LOCK_POLL: Final = 0.05


class TokenCache:
    """The token of one API key. Times are monotonic seconds, so that clock jumps do not matter."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._token = ""
        self._refresh_at = self._expires_at = -math.inf

    def get(self) -> str | None:
        """Return the token if it is still valid."""
        return self._token if time.monotonic() < self._expires_at else None

    def needs_refresh(self) -> bool:
        """Return True if less than max(360 s, 10 %) of the token's life is left; at most half of it."""
        return time.monotonic() >= self._refresh_at

    def store(self, token: str, lifetime: float) -> str:
        """Keep a new token that lives for ``lifetime`` seconds from now."""
        margin = min(max(_MIN_MARGIN, lifetime / 10), lifetime / 2)
        now = time.monotonic()
        self._token, self._refresh_at, self._expires_at = token, now + lifetime - margin, now + lifetime
        return token

    def discard(self, token: str) -> None:
        """Forget a token that IBM refused, unless another caller has renewed it since."""
        if token == self._token:
            self._refresh_at = self._expires_at = -math.inf

    def defer_refresh(self) -> None:
        """Go on for a minute with a token that is still valid, after its renewal failed."""
        self._refresh_at = time.monotonic() + _RETRY_REFRESH_AFTER


_caches: dict[tuple[str, Secret], TokenCache] = {}
_token_callbacks: list[Callable[[str], None]] = []
# A forked child must not inherit a lock that a thread of its parent holds.
os.register_at_fork(after_in_child=_caches.clear)


def token_cache(credentials: Credentials) -> TokenCache:
    """Return this process's cache for one key at one IAM."""
    return _caches.setdefault((credentials.iam_url, credentials.api_key), TokenCache())


def on_new_token(callback: Callable[[str], None]) -> None:
    """
    Call back with each token that this process gets, before it is used, so that logs can hide it.

    Tokens that are in use already are handed over at once. The callback runs in the thread that asks for the
    token, in that of an event loop as well: it must return soon, and what it raises fails the request.
    """
    _token_callbacks.append(callback)
    for cache in list(_caches.values()):
        if token := cache.get():
            callback(token)


def timeouts(credentials: Credentials) -> httpx.Timeout:
    """Return how long the steps of one exchange may take, with the API or with IAM."""
    seconds = credentials.timeout
    return httpx.Timeout(seconds, connect=min(CONNECT_TIMEOUT, seconds))


class IAMAuth(httpx.Auth):
    """
    Puts ``Authorization: Bearer`` on requests. The API key goes to IAM and nowhere else.

    :raises AuthenticationError: If IAM does not accept the key.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._cache = token_cache(credentials)

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Run the steps for a blocking httpx client."""
        with closing(self._steps(request)) as steps:
            step = next(steps, None)
            response = None
            while step is not None:
                if isinstance(step, httpx.Request):
                    response = yield step
                    if step is not request:
                        response.read()
                elif not step.acquire(timeout=self._credentials.timeout):
                    raise _lock_timeout()
                step = _advance(steps, response)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Run the steps for an async httpx client."""
        with closing(self._steps(request)) as steps:
            step = next(steps, None)
            response = None
            while step is not None:
                if isinstance(step, httpx.Request):
                    response = yield step
                    if step is not request:
                        await response.aread()
                else:
                    give_up = time.monotonic() + self._credentials.timeout
                    # Without blocking the loop, whose own tasks may hold the lock.
                    while not step.acquire(blocking=False):
                        if time.monotonic() > give_up:
                            raise _lock_timeout()
                        await asyncio.sleep(_ASYNC_LOCK_POLL)
                step = _advance(steps, response)

    def discard(self, token: str) -> None:
        """Forget a token that was refused."""
        self._cache.discard(token)

    def _steps(self, request: httpx.Request) -> Generator[httpx.Request | threading.Lock, Any, None]:
        """Yield each lock to be acquired and each request to be sent; the two drivers above do it."""
        exchange = exchange_of(request)
        for _ in range(2):
            token = yield from self._get_token(exchange)
            request.headers["Authorization"] = f"Bearer {token}"
            if exchange:
                exchange.sent = True
                exchange.restart_timeout()
            response = yield request
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return
            if exchange:
                exchange.sent = False
            self._cache.discard(token)

    def _get_token(self, exchange: Exchange | None) -> Generator[httpx.Request | threading.Lock, Any, str]:
        cache = self._cache
        token = cache.get()
        if token and not (cache.needs_refresh() and cache.lock.acquire(blocking=False)):
            return token
        if not token:
            yield cache.lock
        try:
            if (token := cache.get()) and not cache.needs_refresh():
                return token
            if exchange:
                exchange.refreshing_token = token is not None
            token = yield from self._refresh(token)
            if exchange:
                exchange.refreshing_token = False
            return token
        finally:
            cache.lock.release()

    def _refresh(self, old: str | None) -> Generator[httpx.Request, httpx.Response, str]:
        """Get a new token; when that fails and the old one is still valid, go on with the old one."""
        refreshed = False
        try:
            response = yield self._token_request()
            token, lifetime = _read_token(response)
            for callback in _token_callbacks:
                callback(token)
            self._cache.store(token, lifetime)
            refreshed = True
            return token
        except IBMQuantumError:
            if old is None:
                raise
            return old
        finally:
            if not refreshed and old is not None:
                self._cache.defer_refresh()

    def _token_request(self) -> httpx.Request:
        request = httpx.Request(
            "POST",
            f"{self._credentials.iam_url}/identity/token",
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            data={"grant_type": GRANT_TYPE, "apikey": self._credentials.api_key.reveal()},
            # httpx gives its own timeouts only to the request that is being authorized.
            extensions={"timeout": timeouts(self._credentials).as_dict()},
        )
        return Exchange(_ACTION, IAM, self._credentials).attach(request)


def _advance(
    steps: Generator[httpx.Request | threading.Lock, Any, None], response: httpx.Response | None
) -> httpx.Request | threading.Lock | None:
    try:
        return steps.send(response)
    except StopIteration:
        return None


def _lock_timeout() -> TransportError:
    return TransportError(
        f"{_ACTION}: another caller's request to IAM does not end. Try again later", sent=False
    )


def _read_token(response: httpx.Response) -> tuple[str, float]:
    """Return the token and its lifetime in seconds."""
    try:
        return _parse_token(response)
    except IBMQuantumError as error:
        error.from_iam = True
        raise


def _parse_token(response: httpx.Response) -> tuple[str, float]:
    try:
        body = responses.read_json(response, _ACTION)
    except RateLimitedError:
        raise
    except RequestRejectedError as error:
        raise AuthenticationError(
            f"IAM does not accept the API key. {error.message}",
            status=error.status,
            code=error.code,
            trace=error.trace,
        ) from error
    token, lifetime = (
        (body.get("access_token"), body.get("expires_in")) if isinstance(body, dict) else ("", 0)
    )
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
        raise BadResponseError(f"{_ACTION}: the response holds no access_token", status=response.status_code)
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 0 < lifetime < 1e6:
        raise BadResponseError(f"{_ACTION}: the response holds no expires_in", status=response.status_code)
    return token, float(lifetime)
