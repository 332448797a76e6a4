# SPDX-License-Identifier: Apache-2.0
"""
IAM: exchanges the API key for a bearer token and puts it on every request.

One exchange per process and key, whatever the number of clients, threads and event loops: the token is kept
here, renewed ahead of time by one caller while the others go on with the old one, and renewed once more when
IBM answers 401. Facts: IBM Cloud's IAM token API (tokens live an hour at most).
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Generator
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

GRANT_TYPE: Final = "urn:ibm:params:oauth:grant-type:apikey"
SENT: Final = "ibm_quantum_sent"
"""Request extension: set when the request itself, not IAM's, is handed to the network."""

HAND_OVER: Final = "ibm_quantum_hand_over"
"""Request extension: called when the request itself is handed over; its time begins, IAM's is over."""

REFRESHING: Final = "ibm_quantum_renewing"
"""Request extension: set while a token is renewed that is valid still."""

CONNECT_TIMEOUT: Final = 10.0
_MIN_MARGIN: Final = 360.0
_RETRY_RENEWAL_AFTER: Final = 60.0
_ASYNC_LOCK_POLL: Final = 0.05
_DOING: Final = "Get an IAM token"


class TokenCache:
    """The token of one API key. Times are monotonic seconds, so that clock jumps do not matter."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._token = ""
        self._renew_at = self._expires_at = -math.inf

    def usable(self) -> str | None:
        """The token, if it can be used."""
        return self._token if time.monotonic() < self._expires_at else None

    def is_due(self) -> bool:
        """Whether less than max(360 s, 10 %) of the token's life is left; at most half of it."""
        return time.monotonic() >= self._renew_at

    def store(self, token: str, lifetime: float) -> str:
        """Keep a new token that lives for ``lifetime`` seconds from now."""
        margin = min(max(_MIN_MARGIN, lifetime / 10), lifetime / 2)
        now = time.monotonic()
        self._token, self._renew_at, self._expires_at = token, now + lifetime - margin, now + lifetime
        return token

    def discard(self, token: str) -> None:
        """Forget a token that IBM refused, unless somebody has renewed it since."""
        if token == self._token:
            self._renew_at = self._expires_at = -math.inf

    def postpone(self) -> None:
        """Leave a token that is due but valid alone for a minute, after its renewal failed."""
        self._renew_at = time.monotonic() + _RETRY_RENEWAL_AFTER


_caches: dict[tuple[str, Secret], TokenCache] = {}
# A forked child must not inherit a lock that a thread of its parent holds.
os.register_at_fork(after_in_child=_caches.clear)


def token_cache(credentials: Credentials) -> TokenCache:
    """The cache of this process for one key at one IAM."""
    return _caches.setdefault((credentials.iam_url, credentials.api_key), TokenCache())


def timeouts(credentials: Credentials) -> httpx.Timeout:
    """How long one exchange may take, with the API or with IAM."""
    seconds = credentials.timeout
    return httpx.Timeout(seconds, connect=min(CONNECT_TIMEOUT, seconds))


class IAMAuth(httpx.Auth):
    """
    Puts ``Authorization: Bearer`` on requests. The raw API key goes to IAM and nowhere else.

    :raises AuthenticationError: If IAM does not accept the key.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._cache = token_cache(credentials)

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Called by a blocking httpx client."""
        with closing(self._steps(request)) as steps:
            step, reply = next(steps, None), None
            while step is not None:
                if isinstance(step, httpx.Request):
                    reply = yield step
                    if step is not request:
                        reply.read()
                elif not step.acquire(timeout=self._credentials.timeout):
                    raise _busy()
                step = _advance(steps, reply)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Called by an async httpx client."""
        with closing(self._steps(request)) as steps:
            step, reply = next(steps, None), None
            while step is not None:
                if isinstance(step, httpx.Request):
                    reply = yield step
                    if step is not request:
                        await reply.aread()
                else:
                    await self._acquire(step)
                step = _advance(steps, reply)

    def discard(self, token: str) -> None:
        """Forget a token that was refused."""
        self._cache.discard(token)

    async def _acquire(self, lock: threading.Lock) -> None:
        """Wait for the lock without blocking the loop, whose own tasks may hold it."""
        give_up = time.monotonic() + self._credentials.timeout
        while not lock.acquire(blocking=False):
            if time.monotonic() > give_up:
                raise _busy()
            await asyncio.sleep(_ASYNC_LOCK_POLL)

    def _steps(self, request: httpx.Request) -> Generator[httpx.Request | threading.Lock, Any, None]:
        """The whole flow: yields a lock to be acquired or a request to be sent; the drivers move bytes."""
        for _ in range(2):
            token = yield from self._token(request)
            request.headers["Authorization"] = f"Bearer {token}"
            request.extensions[SENT] = True
            request.extensions.get(HAND_OVER, _nothing)()
            response = yield request
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return
            request.extensions[SENT] = False
            self._cache.discard(token)

    def _token(self, request: httpx.Request) -> Generator[httpx.Request | threading.Lock, Any, str]:
        cache = self._cache
        token = cache.usable()
        if token and not (cache.is_due() and cache.lock.acquire(blocking=False)):
            return token
        if not token:
            yield cache.lock
        try:
            if (token := cache.usable()) and not cache.is_due():
                return token
            request.extensions[REFRESHING] = token is not None
            token = yield from self._exchange(token)
            request.extensions[REFRESHING] = False
            return token
        finally:
            cache.lock.release()

    def _exchange(self, old: str | None) -> Generator[httpx.Request, httpx.Response, str]:
        """Get a new token; when that fails and the old one is valid still, go on with the old one."""
        renewed = False
        try:
            response = yield self._request()
            token = self._cache.store(*_read_token(response))
            renewed = True
            return token
        except IBMQuantumError:
            if old is None:
                raise
            return old
        finally:
            if not renewed and old is not None:
                self._cache.postpone()

    def _request(self) -> httpx.Request:
        return httpx.Request(
            "POST",
            f"{self._credentials.iam_url}/identity/token",
            headers={"Accept": "application/json"},
            data={"grant_type": GRANT_TYPE, "apikey": self._credentials.api_key.reveal()},
            # httpx gives its own timeouts only to the request that is being authorized.
            extensions={"timeout": timeouts(self._credentials).as_dict()},
        )


def _advance(
    steps: Generator[httpx.Request | threading.Lock, Any, None], reply: httpx.Response | None
) -> httpx.Request | threading.Lock | None:
    try:
        return steps.send(reply)
    except StopIteration:
        return None


def _nothing() -> None:
    """What is called when nobody keeps the time."""


def _busy() -> TransportError:
    return TransportError(f"{_DOING}: another caller's exchange does not end", sent=False)


def _read_token(response: httpx.Response) -> tuple[str, float]:
    """The token and its lifetime in seconds."""
    try:
        return _granted(response)
    except IBMQuantumError as error:
        error.from_iam = True
        raise


def _granted(response: httpx.Response) -> tuple[str, float]:
    try:
        body = responses.read_json(response, _DOING)
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
        raise BadResponseError(f"{_DOING}: the reply holds no access_token", status=response.status_code)
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 0 < lifetime < 1e6:
        raise BadResponseError(f"{_DOING}: the reply holds no expires_in", status=response.status_code)
    return token, float(lifetime)
