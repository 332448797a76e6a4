# SPDX-License-Identifier: Apache-2.0
"""
Faults of the connection itself, for one operation at a time: the request is sent to another address.

Behind each address is the real thing: a port on which nobody listens, a listener that accepts no connection,
a name that does not exist, and a TLS server with a self-signed certificate.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import httpx

UNKNOWN_HOST = "quantum.invalid"


class NetworkFault:
    """
    Sends requests of one operation to another address.

    :param where: A key of the addresses.
    :param times: How many requests; None for all.
    :param skip: How many requests pass before.
    """

    def __init__(self, where: str, method: str, path: str, *, times: int | None, skip: int) -> None:
        self.where, self.method, self.path = where, method, path
        self.times, self.skip = times, skip
        self.hits = 0

    def applies_to(self, request: httpx.Request) -> bool:
        """Return True if the request is to be redirected, and count it."""
        path = request.url.path.removeprefix("/api")
        if request.method != self.method or not fnmatchcase(path, self.path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return self.times is None or self.hits <= self.times


_armed: list[NetworkFault] = []


def arm(fault: NetworkFault) -> None:
    """Let this fault apply from now on, in place of another."""
    _armed[:] = [fault]


def hits() -> int:
    """Return how many requests have met the armed fault."""
    return sum(fault.hits for fault in _armed)


def clear() -> None:
    """Let no fault apply any more."""
    _armed.clear()


def install() -> None:
    """Put the faults between httpx's clients, blocking and async, and their connections."""
    send = httpx.HTTPTransport.handle_request
    send_async = httpx.AsyncHTTPTransport.handle_async_request

    def handle_request(self: Any, request: httpx.Request) -> httpx.Response:
        with _redirected(request):
            return send(self, request)

    async def handle_async_request(self: Any, request: httpx.Request) -> httpx.Response:
        with _redirected(request):
            return await send_async(self, request)

    httpx.HTTPTransport.handle_request = handle_request
    httpx.AsyncHTTPTransport.handle_async_request = handle_async_request
    _resolve_unknown_host_at_once()


@contextlib.contextmanager
def _redirected(request: httpx.Request) -> Iterator[None]:
    url = request.url
    if _armed and _armed[0].applies_to(request):
        request.url = url.copy_with(**_ADDRESSES[_armed[0].where]())
    try:
        yield
    finally:
        request.url = url


def _resolve_unknown_host_at_once() -> None:
    """Without a network, the machine's own resolver may take seconds to fail."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in (UNKNOWN_HOST, UNKNOWN_HOST.encode()):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


def _refusing() -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": _bound().getsockname()[1]}


@cache
def _bound() -> socket.socket:
    """A port of ours, on which nobody listens."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


def _silent() -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": _full()[0].getsockname()[1]}


@cache
def _full() -> list[socket.socket]:
    """A listener whose queue is full: further connections are not accepted."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(listener.getsockname())
    return [listener, *waiting]


def _unknown() -> dict[str, Any]:
    return {"host": UNKNOWN_HOST}


def _untrusted() -> dict[str, Any]:
    return {"scheme": "https", "host": "127.0.0.1", "port": _tls_server()}


@cache
def _tls_server() -> int:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, _self_signed()), daemon=True).start()
    return int(listener.getsockname()[1])


def _accept(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)


def _self_signed() -> ssl.SSLContext:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    day = datetime.timedelta(days=1)
    certificate = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.pem"
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        path.write_bytes(secret + certificate.public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
    return context


_ADDRESSES = {"refusing": _refusing, "silent": _silent, "unknown": _unknown, "untrusted": _untrusted}
