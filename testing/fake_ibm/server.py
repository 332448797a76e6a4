# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import select
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .replies import Reply, error
from .requests import Request

if TYPE_CHECKING:
    from .faults import Fault

Answer = Callable[["Exchange"], None]


class Exchange:
    """One request on one connection: what the core may do to the socket."""

    def __init__(self, handler: Handler, request: Request) -> None:
        self._handler = handler
        self.request = request

    def pause(self, seconds: float) -> None:
        """Wait in real time; ends at once when the server stops."""
        if seconds > 0:
            self._handler.server.stopping.wait(seconds)

    @property
    def gone(self) -> bool:
        """Has the client closed its side, or are we about to?"""
        connection = self._handler.connection
        if self._handler.server.stopping.is_set():
            return True
        try:
            readable = bool(select.select([connection], [], [], 0)[0])
            return readable and not connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def drop(self, *, reset: bool) -> None:
        """Close the connection without a reply."""
        self._handler.close_connection = True
        if reset:
            # Lingering for no time makes close() send RST.
            self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._handler.server.resets.add(self._handler.connection)

    def send(self, reply: Reply, fault: Fault | None = None) -> None:
        """Send a reply, in one piece unless the fault says otherwise. A server that stops answers no more."""
        try:
            if not self._handler.server.stopping.is_set():
                self._send(reply, fault)
                self._handler.close_connection |= reply.hang_up
                return
        except OSError:
            pass
        self._handler.close_connection = True

    def _send(self, reply: Reply, fault: Fault | None) -> None:
        write = self._handler.wfile.write
        if fault is not None and fault.drip:
            self._drip(reply, fault)
        elif reply.chunks is None:
            # One send for head and body: two would meet delayed acknowledgements.
            write(reply.head() + reply.body)
        else:
            write(reply.head())
            for chunk in reply.chunks:
                write(chunk)

    def _drip(self, reply: Reply, fault: Fault) -> None:
        head, body = reply.head(), reply.body or b"".join(reply.chunks or ())
        if not fault.drip_headers:
            self._handler.wfile.write(head)
        for byte in head + body if fault.drip_headers else body:
            self._handler.wfile.write(bytes([byte]))
            if self._handler.server.stopping.wait(fault.drip):
                raise ConnectionAbortedError


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive; everything else is the core's."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def _serve(self) -> None:
        body = self._body()
        if body is not None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            port, host = self.client_address[1], headers.get("host", "")
            request = Request(self.command, self.path, headers, body, port, host)
            self.server.answer(Exchange(self, request))

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_OPTIONS = _serve  # noqa: N815

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" not in self.headers and length.isdigit():
            return self.rfile.read(int(length))
        self.wfile.write(error(411, "Length required.").head())
        self.close_connection = True
        return None

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing on standard error: the journal says it all."""


class Server(ThreadingHTTPServer):
    """A server on 127.0.0.1 that stops at once, whatever its connections are doing."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, port: int, answer: Answer) -> None:
        self.answer = answer
        self.accepted = 0
        self.stopping = threading.Event()
        self.resets: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def server_bind(self) -> None:
        # Not HTTPServer's: that one asks the name service who we are, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        self.accepted += 1
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        if request in self.resets:
            self.resets.discard(request)
            request.close()
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; mistakes of the fake itself are kept by the core."""

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._thread.join()
