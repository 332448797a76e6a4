# SPDX-License-Identifier: Apache-2.0
"""What bounds one exchange with IBM (time, size, TLS), and how its failures are told."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import httpx

from airflow_provider_ibm_sessions.client.auth import SENT
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.errors import BadResponseError, IBMQuantumError, TransportError

CONNECT_TIMEOUT: Final = 10.0
MAX_REPLY_BYTES: Final = 32 * 2**20
MAX_CONNECTIONS: Final = 20
KEEP_ALIVE: Final = 30.0

_NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class BoundedStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The bytes of a reply, as long as they are neither too many nor too late."""

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream, seconds: float) -> None:
        self._stream = cast("Any", stream)
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._left = MAX_REPLY_BYTES

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            yield self._checked(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield self._checked(chunk)

    def _checked(self, chunk: bytes) -> bytes:
        self._left -= len(chunk)
        if self._left < 0:
            raise BadResponseError(f"The reply is larger than {MAX_REPLY_BYTES // 2**20} MiB")
        if time.monotonic() > self._deadline:
            raise TransportError(f"The reply did not end within {self._seconds:g} s")
        return chunk

    def close(self) -> None:
        """Called by a blocking httpx client."""
        self._stream.close()

    async def aclose(self) -> None:
        """Called by an async httpx client."""
        await self._stream.aclose()


def options(credentials: Credentials) -> dict[str, Any]:
    """Arguments for ``httpx.Client`` and ``httpx.AsyncClient`` alike."""
    seconds = credentials.timeout
    return {
        "timeout": httpx.Timeout(seconds, connect=min(CONNECT_TIMEOUT, seconds)),
        "verify": _verify(credentials.verify),
        "proxy": credentials.proxy,
        "follow_redirects": False,
        "limits": httpx.Limits(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEP_ALIVE,
        ),
    }


def _verify(verify: bool | str) -> bool | ssl.SSLContext:
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify


@contextmanager
def one_attempt(request: httpx.Request, doing: str) -> Iterator[None]:
    """
    Send the request inside of this.

    :raises TransportError: For every failure to exchange bytes, with ``sent`` as exact as can be known.
    """
    request.extensions[SENT] = False
    try:
        yield
    except httpx.HTTPError as error:
        raise _transport_error(error, request, doing) from error
    except TimeoutError as error:
        raise TransportError(f"{doing}: no complete reply in time", sent=_sent(request)) from error
    except IBMQuantumError as error:
        error.sent = error.sent and _sent(request)
        raise


def _transport_error(error: httpx.HTTPError, request: httpx.Request, doing: str) -> TransportError:
    host = request.url.host if _sent(request) else "IAM or " + request.url.host
    translated = TransportError(
        f"{doing}: {type(error).__name__} at {host}{_reason(error)}",
        sent=_sent(request) and not isinstance(error, _NEVER_SENT),
    )
    translated.retryable = not _is_bad_certificate(error)
    return translated


def _sent(request: httpx.Request) -> bool:
    return bool(request.extensions.get(SENT))


def _reason(error: httpx.HTTPError) -> str:
    return f": {error}" if str(error) else ""


def _is_bad_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
