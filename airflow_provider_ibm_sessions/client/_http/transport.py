# SPDX-License-Identifier: Apache-2.0
"""How one exchange with IBM is made and bounded, and how its failures are told."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import httpx

from airflow_provider_ibm_sessions.client._http import tls
from airflow_provider_ibm_sessions.client._http.proxies import proxy_options
from airflow_provider_ibm_sessions.client.auth import REFRESHING, SENT, timeouts
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConfigurationError,
    IBMQuantumError,
    TransportError,
)
from airflow_provider_ibm_sessions.client.operations import LARGE_PAYLOAD
from airflow_provider_ibm_sessions.client.responses import clean

MAX_RESPONSE_BYTES: Final = 32 * 2**20
MAX_LARGE_RESPONSE_BYTES: Final = 512 * 2**20
LARGE_PAYLOAD_TIMEOUT_FACTOR: Final = 10
"""So many times the connection's timeout may be taken by an exchange that carries a user's data."""
MAX_CONNECTIONS: Final = 10
KEEP_ALIVE: Final = 30.0

_NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class LimitedStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The bytes of a reply, as long as they are not too many."""

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream, most: int) -> None:
        self._stream = cast("Any", stream)
        self._left = most

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            yield self._checked(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield self._checked(chunk)

    def _checked(self, chunk: bytes) -> bytes:
        self._left -= len(chunk)
        if self._left < 0:
            raise BadResponseError("The reply is too large")
        return chunk

    def close(self) -> None:
        """Called by a blocking httpx client."""
        self._stream.close()

    async def aclose(self) -> None:
        """Called by an async httpx client."""
        await self._stream.aclose()


def bound(response: httpx.Response) -> None:
    """
    Bound a reply before it is read.

    We ask for none to be compressed. One that is all the same may be as long as it would be at gzip's best.
    """
    packed = response.headers.get("content-encoding", "identity") != "identity"
    most = MAX_LARGE_RESPONSE_BYTES if response.request.extensions.get(LARGE_PAYLOAD) else MAX_RESPONSE_BYTES
    response.stream = LimitedStream(response.stream, most // 1024 if packed else most)


async def alimit_response_size(response: httpx.Response) -> None:
    """The same, called by an async httpx client."""
    bound(response)


def seconds_for(request: httpx.Request, credentials: Credentials) -> float:
    """How long one exchange may take as a whole; each wait for bytes is bounded by the timeout itself."""
    return credentials.timeout * (
        LARGE_PAYLOAD_TIMEOUT_FACTOR if request.extensions.get(LARGE_PAYLOAD) else 1
    )


def options(credentials: Credentials) -> dict[str, Any]:
    """
    Arguments for ``httpx.Client`` and ``httpx.AsyncClient`` alike. May read a file of CA certificates.

    :raises ConfigurationError: If that file is gone since the credentials were checked, or a proxy or CA file
        of the environment cannot be used.
    """
    context = tls.context(credentials.verify)
    return {
        "timeout": timeouts(credentials),
        "verify": context,
        **proxy_options(credentials, context),
        "follow_redirects": False,
        "limits": httpx.Limits(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEP_ALIVE,
        ),
    }


@contextmanager
def translate_errors(request: httpx.Request, doing: str) -> Iterator[None]:
    """
    Send the request inside of this.

    :raises TransportError: For every failure to exchange bytes, with ``sent`` as exact as can be known.
    """
    request.extensions[SENT] = request.extensions[REFRESHING] = False
    try:
        with _only_our_errors(request, doing):
            yield
    except IBMQuantumError as error:
        error.sent = error.sent and _sent(request)
        error.retry_immediately = bool(request.extensions[REFRESHING])
        raise


@contextmanager
def _only_our_errors(request: httpx.Request, doing: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise _transport_error(error, request, doing) from error
    except TimeoutError as error:
        raise TransportError(f"{doing}: no complete reply in time") from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigurationError(f"{doing}: {type(error).__name__} in the URL", field="url") from error


def _transport_error(error: httpx.HTTPError, request: httpx.Request, doing: str) -> TransportError:
    host = request.url.host if _sent(request) else "IAM or " + request.url.host
    translated = TransportError(
        f"{doing}: {type(error).__name__} at {host}{_reason(error, request)}",
        sent=_sent(request) and not isinstance(error, _NEVER_SENT),
    )
    translated.retryable = not _is_bad_certificate(error)
    return translated


def _sent(request: httpx.Request) -> bool:
    return bool(request.extensions.get(SENT))


def _reason(error: httpx.HTTPError, request: httpx.Request) -> str:
    # What a server has written may stand in it, and it may have written back what we sent.
    failed = getattr(error, "_request", None) or request
    text = clean(clean(str(error), request), failed).rstrip(".")
    return f": {text}" if text else ""


def _is_bad_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
