# SPDX-License-Identifier: Apache-2.0
"""
A deadline for the whole of a blocking exchange.

httpx bounds each read, so that a server which sends a byte now and then is never too late. An event loop has
``asyncio.timeout`` against that; blocking sockets have this: each wait is for what is left of the whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpcore

if TYPE_CHECKING:
    import ssl

    import httpx

_thread = threading.local()


@contextmanager
def within(seconds: float) -> Iterator[Callable[[], None]]:
    """
    What this thread exchanges inside of this ends within ``seconds``, by a timeout if need be.

    Yields a function that gives them anew: the time for a token is not taken from the request's own.
    """
    outer = getattr(_thread, "end", None)

    def restart() -> None:
        _thread.end = time.monotonic() + seconds

    restart()
    try:
        yield restart
    finally:
        _thread.end = outer


def install_total_timeout(client: httpx.Client) -> httpx.Client:
    """Make a client's connections heed :func:`within`."""
    # httpx hands its pool no network backend of ours; httpcore's pool takes one.
    for transport in (client._transport, *client._mounts.values()):
        if pool := getattr(transport, "_pool", None):
            pool._network_backend = _Backend(pool._network_backend)
    return client


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    """What a single wait may take."""
    end: float | None = getattr(_thread, "end", None)
    if end is None:
        return timeout
    left = end - time.monotonic()
    if left <= 0:
        raise late("the time for the whole exchange is over")
    return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        timeout = _left(timeout, httpcore.ConnectTimeout)
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
        timeout = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_tcp(host, port, timeout, local_address, socket_options))
