# SPDX-License-Identifier: Apache-2.0
"""Problem bodies (RFC 9457), made from the client's errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Self

import httpx
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConfigurationError,
    IBMQuantumError,
    OutcomeUnknownError,
)

MEDIA_TYPE: Final = "application/problem+json"
_URN: Final = "urn:ibm-quantum-sessions"


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": f"{_URN}:not-found",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "Get a session: Session not found. Session ID: 6f1c9c2e",
                    "code": "not_found",
                    "trace": "0b6f0a52-6d5c-4a1e-8f5e-6f1f7a1c2d3e",
                }
            ]
        }
    )

    type: str = Field(
        default="about:blank", description=f"Kind of problem: {_URN}:<kind>, or about:blank for plain HTTP"
    )
    title: str = Field(description="The status in words")
    status: int = Field(description="HTTP status; IBM's own, if IBM has answered", ge=400, le=599)
    detail: str = Field(description="What is wrong, in words a person can act on")
    field: str | None = Field(default=None, description="The field that is wrong")
    code: str | None = Field(default=None, description="IBM's own error code")
    trace: str | None = Field(default=None, description="IBM's trace id; its support asks for it")
    candidates: list[str] | None = Field(
        default=None, description="Ids of what the request may have opened, as far as they are known"
    )

    @classmethod
    def plain(cls, status: int, detail: str, field: str | None = None) -> Self:
        """A problem that has no kind beyond its HTTP status."""
        return cls(status=status, title=_title(status), detail=detail, field=field)

    @classmethod
    def of(cls, error: IBMQuantumError) -> Self:
        """The problem that one of the client's errors is."""
        status = status_of(error)
        return cls(
            type=f"{_URN}:{_kind(error)}",
            title=_title(status),
            status=status,
            detail=error.message,
            field=getattr(error, "field", None),
            code=error.code,
            trace=error.trace,
            candidates=list(getattr(error, "candidates", ())) or None,
        )

    def body(self) -> bytes:
        """As JSON, in ASCII: what a caller has sent may be no valid Unicode."""
        return json.dumps(self.model_dump(exclude_none=True)).encode("ascii")

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """As an HTTP response."""
        return Response(self.body(), self.status, dict(headers or {}), MEDIA_TYPE)


def response_to(error: IBMQuantumError) -> Response:
    """The HTTP response that tells of an error."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    problem = Problem.of(error)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="IBM Quantum"'
    return problem.response(headers)


def status_of(error: IBMQuantumError) -> int:
    """IBM's own status, if its API has answered and the answer can be trusted; else 422, 502 or 504."""
    if isinstance(error, ConfigurationError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    root = error.__cause__ if isinstance(error, OutcomeUnknownError) else error
    if error.status and 400 <= error.status <= 599 and not _is_ours(root):
        return error.status
    return HTTPStatus.GATEWAY_TIMEOUT if _timed_out(error) else HTTPStatus.BAD_GATEWAY


def _is_ours(error: BaseException | None) -> bool:
    """Whether the status says nothing to the caller: a web page's, or IAM's of a key that is not theirs."""
    return isinstance(error, BadResponseError) or (isinstance(error, IBMQuantumError) and error.from_iam)


def _timed_out(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return True
        error = error.__cause__
    return False


def _kind(error: IBMQuantumError) -> str:
    """``OutcomeUnknownError`` -> ``outcome-unknown``."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def declared(statuses: Mapping[int | str, str]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's responses for these statuses, with what each means."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": meaning, "content": content} for status, meaning in statuses.items()}
