# SPDX-License-Identifier: Apache-2.0
"""HTTP on 127.0.0.1 with the standard library: a thread per connection."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .service.requests import Request
from .service.responses import Response, error


class Exchange:
    """One request on one connection, and the way to answer it."""

    def __init__(self, handler: Handler, request: Request) -> None:
        self.handler = handler
        self.request = request

    def send(self, response: Response) -> None:
        """Send a response. A server that stops sends none."""
        try:
            if not self.handler.server.stopping.is_set():
                self.write(response)
                self.handler.close_connection |= response.close
                return
        except OSError:
            pass
        self.handler.close_connection = True

    def write(self, response: Response) -> None:
        """Write the bytes of a response."""
        write = self.handler.wfile.write
        if response.chunks is None:
            # One send for head and body: two would meet delayed acknowledgements.
            write(response.head() + response.body)
            return
        write(response.head())
        for chunk in response.chunks:
            write(chunk)


Answer = Callable[[Any], None]
"""Called with an ``Exchange`` in the connection's own thread."""


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive; all else is left to the server's ``answer``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def _serve(self) -> None:
        body = self._body()
        if body is not None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            port, host = self.client_address[1], headers.get("host", "")
            request = Request(self.command, self.path, headers, body, port, host)
            self.server.answer(self.server.exchange_class(self, request))

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_OPTIONS = _serve  # noqa: N815

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" not in self.headers and length.isdigit():
            return self.rfile.read(int(length))
        self.wfile.write(error(411, "Length required.").head())
        self.close_connection = True
        return None

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Write nothing to standard error for each request."""


class Server(ThreadingHTTPServer):
    """A server on 127.0.0.1 that stops at once, whatever its connections are doing."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, port: int, answer: Answer, exchange_class: type[Exchange] = Exchange) -> None:
        self.answer = answer
        self.exchange_class = exchange_class
        self.accepted = 0
        self.stopping = threading.Event()
        self.resets: set[socket.socket] = set()
        """Connections that were told to close with a reset."""
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def server_bind(self) -> None:
        """Bind without HTTPServer's question to the name service, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count the connection and serve it in a thread."""
        self.accepted += 1
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection politely, or at once where a reset is wanted."""
        self._open.discard(request)
        if request in self.resets:
            self.resets.discard(request)
            request.close()
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that went away; errors of the service itself are caught where they happen."""

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
