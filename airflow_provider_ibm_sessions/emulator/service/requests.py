# SPDX-License-Identifier: Apache-2.0
"""HTTP requests as the service reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NO_JSON = object()
"""The body is not JSON, or was not declared as JSON."""


@dataclass
class Request:
    """One HTTP request as the service sees it."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes = b""
    client_port: int = 0
    host: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    """The path's variable parts, decoded."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.target)
        self.path = _below_api(_normal(parts.path))
        self.query = parse_qs(parts.query, keep_blank_values=True)
        self.json = self._json()

    def _json(self) -> Any:
        if "json" not in self.headers.get("content-type", ""):
            return NO_JSON
        try:
            return json.loads(self.body)
        except ValueError:
            return NO_JSON

    @property
    def segments(self) -> list[str]:
        """Return the path's parts, percent-decoded after the split: ``..%2Fx`` is an id, ``../x`` is not."""
        return [unquote(part) for part in self.path.split("/")[1:]]

    def first(self, name: str, default: str = "") -> str:
        """Return the first value of a query parameter."""
        return self.query.get(name, [default])[0]

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean query parameter."""
        return self.first(name, str(default)).lower() in ("true", "1")


def _normal(path: str) -> str:
    """Resolve dot segments, as IBM's gateway does. Empty segments stay: an empty id is no id."""
    done: list[str] = []
    for part in path.split("/"):
        if part == "..":
            done = done[:-1] or [""]
        elif part != ".":
            done.append(part)
    return "/".join(done) or "/"


def _below_api(path: str) -> str:
    """Map ``/api/v1/x`` to ``/v1/x``. Anything else is no API path, not even ``/v1/x`` at the root."""
    if path.startswith("/api/v1/"):
        return path.removeprefix("/api")
    return f"/{path}" if path.startswith("/v1/") else path
