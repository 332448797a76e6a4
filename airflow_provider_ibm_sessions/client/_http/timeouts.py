# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC109 (the signatures are httpcore's)
"""
Total timeout of a blocking exchange, and small steps of one in an event loop.

httpx bounds each read, so that a server which sends a byte now and then is never too late. An event loop has
``asyncio.timeout`` against that; blocking sockets have this: each wait is for what is left of the whole.

httpcore parses all that it has read before it reads again, which stops an event loop: for a tenth of a second
if it has read thousands of interim responses, headers, or trailers. So it gets little at once, and only so
much of what is no part of a body. Many small parts of a body are the matter of ``LimitedStream``.

This is the one module that uses private attributes of httpx and httpcore: httpx gives its pool no network
backend of ours, while httpcore's pool takes one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpcore
import httpx

from airflow_provider_ibm_sessions.client.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl

TransportT = TypeVar("TransportT", httpx.HTTPTransport, httpx.AsyncHTTPTransport)
SUPPORTED: Final = "httpx>=0.27,<1 and httpcore>=1.0,<2"

HEAD_READ: Final = 2048
"""Bytes that a read returns in an event loop before the body; the head of IBM's responses has less."""
BODY_READ: Final = 16_384
MAX_HEAD_BYTES: Final = 32_768
"""Bytes in a row that are no part of a body: headers with all interim responses before them, or trailers."""

_thread = threading.local()


@contextmanager
def total_timeout(seconds: float) -> Iterator[Callable[[], None]]:
    """
    End everything that this thread exchanges in this context within so many seconds, with a timeout error.

    Yields a function that starts the time again: what IAM takes for a token is not the request's own.
    """
    outer = getattr(_thread, "end", None)

    def restart() -> None:
        _thread.end = time.monotonic() + seconds

    restart()
    try:
        yield restart
    finally:
        _thread.end = outer


def install_total_timeout(transport: httpx.HTTPTransport) -> httpx.HTTPTransport:
    """
    Make the connections of a transport obey :func:`total_timeout`.

    :raises ConfigurationError: If the installed httpx or httpcore has none of the attributes that are needed.
    """
    return _wrap_backend(transport, httpcore.NetworkBackend, _Backend)


def install_small_steps(transport: httpx.AsyncHTTPTransport) -> httpx.AsyncHTTPTransport:
    """
    Make the connections of a transport read little at once, and bounded heads: see :class:`AsyncStream`.

    :raises ConfigurationError: If the installed httpx or httpcore has none of the attributes that are needed.
    """
    return _wrap_backend(transport, httpcore.AsyncNetworkBackend, _AsyncBackend)


def _wrap_backend(transport: TransportT, kind: type, wrapper: Callable[[Any], Any]) -> TransportT:
    pool = _private_attribute(transport, "_pool")
    backend = _private_attribute(pool, "_network_backend")
    if not isinstance(backend, kind):
        raise _unsupported(f"{type(pool).__name__}._network_backend is a {type(backend).__name__}")
    pool._network_backend = wrapper(backend)
    return transport


def _private_attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        raise _unsupported(f"{type(owner).__name__} has no {name}") from None


def _unsupported(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"httpx {httpx.__version__} with httpcore {httpcore.__version__} is not supported: install "
        f"{SUPPORTED} ({reason})"
    )


def _time_left(timeout: float | None, error: type[Exception]) -> float | None:
    """Return the seconds that a single wait may take."""
    end: float | None = getattr(_thread, "end", None)
    if end is None:
        return timeout
    left = end - time.monotonic()
    if left <= 0:
        raise error("the time for the whole exchange is over")
    return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _time_left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _time_left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        timeout = _time_left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        timeout = _time_left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_tcp(host, port, timeout, local_address, socket_options))


class AsyncStream(httpcore.AsyncNetworkStream):
    """A connection of an event loop, which is ``network_stream`` in the extensions of its responses."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._size = HEAD_READ
        self._head_bytes = 0

    def note_body(self) -> None:
        """Note that a part of a body has arrived, or may be next."""
        self._size, self._head_bytes = BODY_READ, 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._head_bytes >= MAX_HEAD_BYTES:
            raise httpcore.RemoteProtocolError(f"more than {MAX_HEAD_BYTES:,} bytes of headers")
        await asyncio.sleep(0)  # what has come over TLS already is read without waiting
        data = await self._stream.read(min(max_bytes, self._size), timeout)
        self._head_bytes += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._size, self._head_bytes = HEAD_READ, 0  # of another response
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return AsyncStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _AsyncBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return AsyncStream(stream)
