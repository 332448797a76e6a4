# SPDX-License-Identifier: Apache-2.0
"""HTTP responses, and errors in IBM's shapes."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

ErrorShape = Literal["errors", "singular", "message", "iam"]

MORE_INFO = "https://quantum.cloud.ibm.com/docs/errors"
WEB_APPLICATION = (
    b'<!DOCTYPE html><html lang="en"><head><title>IBM Quantum Platform</title></head><body><div id="root">'
    + b"<!-- app shell -->" * 16_000
    + b"</div></body></html>"
)
"""IBM's web application, which answers unknown paths and empty ids: 200, text/html, about 285 KB."""


@dataclass
class Response:
    """One HTTP response: ``body``, or ``chunks`` if given; ``length`` is what Content-Length claims."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Iterator[bytes] | None = None
    length: int | None = None
    close: bool = False
    """Close the connection after it."""

    def head(self) -> bytes:
        """Return the status line and the headers."""
        lines = [
            f"HTTP/1.1 {self.status} {PHRASES.get(self.status, 'Unknown')}",
            "Server: ibm-quantum-emulator",
        ]
        if self.content_type:
            lines.append(f"Content-Type: {self.content_type}")
        if self.status != 204:
            lines.append(f"Content-Length: {len(self.body) if self.length is None else self.length}")
        if self.close:
            lines.append("Connection: close")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


PHRASES = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    411: "Length Required",
    423: "Locked",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def ok(value: Any) -> Response:
    """Return 200 with JSON; bytes are JSON already."""
    return Response(200, value if isinstance(value, bytes) else json.dumps(value).encode())


def text(value: str) -> Response:
    """Return 200 with plain text."""
    return Response(200, value.encode(), "text/plain; charset=utf-8")


def no_content() -> Response:
    """Return 204."""
    return Response(204, b"", None)


def web_application() -> Response:
    """Return what IBM's gateway answers on unknown paths: the web application."""
    return Response(200, WEB_APPLICATION, "text/html; charset=utf-8")


DEFAULT_CODES: dict[int, int | str] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    423: "locked",
    429: "too_many_requests",
    500: 9999,
    503: 1999,
}
"""Numbers are from IBM's error registry; strings stand where the code is not known."""


def error(
    status: int,
    message: str,
    code: int | str | None = None,
    *,
    shape: ErrorShape = "errors",
    solution: str | None = None,
) -> Response:
    """Return an error in one of the shapes that IBM's services have been seen to send."""
    number = DEFAULT_CODES.get(status, "internal_error") if code is None else code
    body = _SHAPES[shape](status, message, number, solution or "Correct the request and try again.")
    return Response(status, json.dumps(body).encode())


def _errors(status: int, message: str, code: int | str, solution: str) -> dict[str, Any]:
    item = {"code": code, "message": message, "solution": solution, "more_info": MORE_INFO}
    return {"errors": [item], "trace": str(uuid.uuid4())}


def _singular(status: int, message: str, code: int | str, solution: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _message(status: int, message: str, code: int | str, solution: str) -> dict[str, Any]:
    return {"message": message}


def _iam(status: int, message: str, code: int | str, solution: str) -> dict[str, Any]:
    item = {"code": str(code), "message": message}
    return {"trace": str(uuid.uuid4()), "errors": [item], "status_code": status}


_SHAPES = {"errors": _errors, "singular": _singular, "message": _message, "iam": _iam}


def not_found(message: str) -> Response:
    """Return 404 with IBM's string code."""
    return error(404, message, "not_found")


def unknown_calibration(calibration_id: str) -> str:
    """Return the message for a calibration that a QPU does not have. IBM's own is not known."""
    return f"calibration not found: {calibration_id}"


def bad_request(message: str, code: int | str | None = None) -> Response:
    """Return 400."""
    return error(400, message, code)
