# SPDX-License-Identifier: Apache-2.0
"""
Faults of the connection itself, for one operation at a time: the request is sent to another address.

Behind each address is the real thing: a port on which nobody listens, a listener that accepts nobody, a name
that does not exist, and a TLS server whose certificate nobody has signed.
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

from airflow_provider_ibm_sessions.client import auth
from airflow_provider_ibm_sessions.client._http import transport

NAMELESS = "quantum.invalid"


class Detour:
    """Sends requests of one operation elsewhere: ``times`` of them (None: all), after ``skip`` others."""

    def __init__(self, where: str, method: str, path: str, *, times: int | None, skip: int) -> None:
        self.where, self.method, self.path = where, method, path
        self.times, self.skip = times, skip
        self.struck = 0

    def hits(self, request: httpx.Request) -> bool:
        path = request.url.path.removeprefix("/api")
        if request.method != self.method or not fnmatchcase(path, self.path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.struck += 1
        return self.times is None or self.struck <= self.times


_current: list[Detour] = []


def arm(detour: Detour) -> None:
    _current[:] = [detour]


def armed() -> list[Detour]:
    return list(_current)


def clear() -> None:
    _current.clear()


def install() -> None:
    """Put the detours in front of both clients' attempts and of IAM's requests."""
    plain_attempt, plain_request = transport.translate_errors, auth.IAMAuth._token_request

    @contextlib.contextmanager
    def translate_errors(request: httpx.Request, action: str) -> Iterator[None]:
        url = request.url
        _redirect(request)
        try:
            with plain_attempt(request, action):
                yield
        finally:
            request.url = url

    def token_request(self: Any) -> httpx.Request:
        request = plain_request(self)
        _redirect(request)
        return request

    transport.translate_errors = translate_errors
    auth.IAMAuth._token_request = token_request
    _know_no_such_name()


def _redirect(request: httpx.Request) -> None:
    if _current and _current[0].hits(request):
        request.url = request.url.copy_with(**_ADDRESSES[_current[0].where]())


def _know_no_such_name() -> None:
    """Without a network, the machine's own resolver may take seconds to say so."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in (NAMELESS, NAMELESS.encode()):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


def _refused() -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": _bound().getsockname()[1]}


@cache
def _bound() -> socket.socket:
    """A port of ours, on which we do not listen."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def _silent() -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": _full()[0].getsockname()[1]}


@cache
def _full() -> list[socket.socket]:
    """A listener whose queue is full: further connections are not answered."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(listener.getsockname())
    return [listener, *waiting]


def _nameless() -> dict[str, Any]:
    return {"host": NAMELESS}


def _untrusted() -> dict[str, Any]:
    return {"scheme": "https", "host": "127.0.0.1", "port": _tls_server()}


@cache
def _tls_server() -> int:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_shake_hands, args=(listener, _self_signed()), daemon=True).start()
    return int(listener.getsockname()[1])


def _shake_hands(listener: socket.socket, context: ssl.SSLContext) -> None:
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


_ADDRESSES = {"refused": _refused, "silent": _silent, "nameless": _nameless, "untrusted": _untrusted}
