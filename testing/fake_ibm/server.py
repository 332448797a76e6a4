# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import select
import socket
import struct
from typing import TYPE_CHECKING

from airflow_provider_ibm_sessions.emulator.server import Exchange

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.emulator.service.responses import Response

    from .faults import Fault


class FaultyExchange(Exchange):
    """An exchange that can be delayed, dropped or dripped."""

    fault: Fault | None = None

    def delay(self, seconds: float) -> None:
        """Wait in real time; ends at once when the server stops."""
        if seconds > 0:
            self.handler.server.stopping.wait(seconds)

    @property
    def gone(self) -> bool:
        """Return true if the client has closed its side, or the server is about to close its own."""
        connection = self.handler.connection
        if self.handler.server.stopping.is_set():
            return True
        try:
            readable = bool(select.select([connection], [], [], 0)[0])
            return readable and not connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def drop(self, *, reset: bool) -> None:
        """Close the connection without a response."""
        self.handler.close_connection = True
        if reset:
            # Lingering for no time makes close() send RST.
            self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.handler.server.resets.add(self.handler.connection)

    def write(self, response: Response) -> None:
        """Write the bytes of a response, one by one if the fault says so."""
        if self.fault is None or not self.fault.drip:
            super().write(response)
            return
        head, body = response.head(), response.body or b"".join(response.chunks or ())
        if not self.fault.drip_headers:
            self.handler.wfile.write(head)
        for byte in head + body if self.fault.drip_headers else body:
            self.handler.wfile.write(bytes([byte]))
            if self.handler.server.stopping.wait(self.fault.drip):
                raise ConnectionAbortedError
