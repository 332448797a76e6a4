# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json as jsonlib
import random
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_ibm_sessions.emulator.service.responses import (
    WEB_APPLICATION,
    ErrorShape,
    Response,
    error,
)
from airflow_provider_ibm_sessions.emulator.service.service import IAM_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_ibm_sessions.emulator.service.requests import Request

UNSET: Any = object()
CHUNK = b"x" * 65_536
GARBAGE = random.Random(7).randbytes(512)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with the requests it matches.

    At most one kind of response (`drop`, `truncate`, `html`, `garbage`, `empty`, `no_content`, `json`,
    `huge`, `echo`), or `status` alone for an error response; `status` also sets the status of those kinds.
    `delay` and `drip` combine with any of them, or stand alone and spoil nothing but the timing.
    """

    method: str = "*"
    path: str = "*"
    """fnmatch pattern on the path below /api (`*` crosses slashes), or on `/identity/token`."""
    times: int | None = 1
    """How many requests it hits; None: all."""
    skip: int = 0
    """How many matching requests it lets pass first."""
    phase: Literal["before", "after"] = "before"
    """Fail before or after the work was done. With a delay before the work, it is done after the delay,
    unless the client has left meanwhile."""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = UNSET
    """Body of an error response, instead of one in `error_shape`: text, bytes, or any JSON value."""
    code: int | str | None = None
    message: str = "The service is temporarily unavailable."
    error_shape: ErrorShape | None = None
    """None: `errors`, and IAM's own shape on IAM's path."""
    drop: bool | Literal["fin", "rst"] = False
    """Close the connection without a response: True or "fin" politely, "rst" with a reset."""
    truncate: bool | Literal["length"] = False
    """True: invalid JSON of the right length. "length": fewer bytes than Content-Length says, then closed."""
    html: bool = False
    garbage: bool = False
    empty: bool = False
    no_content: bool = False
    json: Any = UNSET
    huge: int = 0
    """A JSON body of so many bytes."""
    echo: bool = False
    """An error that repeats the request's headers and body, to see whether a client hides secrets."""
    delay: float = 0.0
    """Real seconds before the response."""
    drip: float = 0.0
    """Real seconds between the bytes of the body."""
    drip_headers: bool = False
    """Drip the headers too."""

    def __post_init__(self) -> None:
        if self.phase not in ("before", "after"):
            raise ValueError(f"phase is before or after, not {self.phase!r}")
        if len(self.kinds) > 1:
            raise ValueError(f"one kind of fault at a time, not {', '.join(self.kinds)}")
        if not (self.replaces or self.delay or self.drip):
            raise ValueError("a fault that does nothing")

    @property
    def kinds(self) -> list[str]:
        names = ("drop", "truncate", "html", "garbage", "empty", "no_content", "huge", "echo")
        chosen = [name for name in names if getattr(self, name)]
        return chosen + (["json"] if self.json is not UNSET else [])

    @property
    def replaces(self) -> bool:
        """Return true if the client gets something else than the real response."""
        return bool(self.kinds) or self.status is not None

    def matches(self, request: Request) -> bool:
        return self.method in ("*", request.method) and fnmatchcase(request.path, self.path)

    def __str__(self) -> str:
        what = self.kinds or ([f"status {self.status}"] if self.status else [])
        what += [f"{name} {value} s" for name in ("delay", "drip") if (value := getattr(self, name))]
        return f"{', '.join(what)} ({self.phase} the work)"

    def disguise(self, request: Request, real: Response | None) -> Response:
        """Return the response that the client gets. `real` is None if no work was done."""
        if not self.replaces and real is not None:
            return real
        response = getattr(self, f"_{(self.kinds or ['error'])[0]}")(request, real)
        assert isinstance(response, Response)
        response.status = self.status or response.status
        response.headers |= dict(self.headers)
        return response

    def _error(self, request: Request, real: Response | None) -> Response:
        status = self.status or 500
        if self.body is not UNSET:
            return Response(status, *_encoded(self.body))
        shape = self.error_shape or ("iam" if request.path == IAM_PATH else "errors")
        return error(status, self.message, self.code, shape=shape)

    def _echo(self, request: Request, real: Response | None) -> Response:
        headers = "; ".join(f"{name}: {value}" for name, value in request.headers.items())
        body = request.body.decode("utf-8", "replace")
        said = f"Cannot process: {request.method} {request.target}; {headers}; {body}"
        return error(500, said, self.code, shape=self.error_shape or "errors")

    def _truncate(self, request: Request, real: Response | None) -> Response:
        whole = real.body if real is not None and real.body else b'{"id": "0d1f5b1e", "state": "open"}'
        part = whole[: max(1, len(whole) // 2)]
        if self.truncate == "length":
            return Response(200, part, length=len(whole), close=True)
        return Response(200, part)

    def _html(self, request: Request, real: Response | None) -> Response:
        return Response(200, WEB_APPLICATION, "text/html; charset=utf-8")

    def _garbage(self, request: Request, real: Response | None) -> Response:
        return Response(200, GARBAGE)

    def _empty(self, request: Request, real: Response | None) -> Response:
        return Response(200)

    def _no_content(self, request: Request, real: Response | None) -> Response:
        return Response(204, b"", None)

    def _json(self, request: Request, real: Response | None) -> Response:
        return Response(200, jsonlib.dumps(self.json).encode())

    def _huge(self, request: Request, real: Response | None) -> Response:
        return Response(200, chunks=_stuffing(self.huge), length=self.huge)

    def _drop(self, request: Request, real: Response | None) -> Response:
        raise AssertionError("a dropped connection has no response")


def _encoded(body: Any) -> tuple[bytes, str]:
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return jsonlib.dumps(body).encode(), "application/json"


def _stuffing(size: int) -> Iterator[bytes]:
    """Yield a JSON object of exactly `size` bytes (at least 8)."""
    left = max(size, 8) - 8
    yield b'{"a":"'
    while left:
        part = CHUNK[:left]
        left -= len(part)
        yield part
    yield b'"}'


class Script:
    """The faults still to come, in order: a request takes the first that matches it and is not used up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[list[Any]] = []

    def add(self, *faults: Fault | Mapping[str, Any]) -> None:
        """Append faults, or mappings with a fault's fields."""
        ready = [fault if isinstance(fault, Fault) else Fault(**fault) for fault in faults]
        with self._lock:
            self._armed += [[fault, fault.skip, fault.times] for fault in ready]

    def clear(self) -> None:
        """Forget what is left."""
        with self._lock:
            self._armed.clear()

    @property
    def left(self) -> list[Fault]:
        """Return the faults that have not been used up."""
        with self._lock:
            return [fault for fault, _, times in self._armed if times != 0]

    def take(self, request: Request) -> Fault | None:
        """Return the fault that hits this request, if any."""
        with self._lock:
            for armed in self._armed:
                fault, skip, times = armed
                if times == 0 or not fault.matches(request):
                    continue
                if skip == 0:
                    armed[2] = None if times is None else times - 1
                    return fault if isinstance(fault, Fault) else None
                armed[1] -= 1
            return None
