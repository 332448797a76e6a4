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


class ProblemDetails(BaseModel):
    """Problem details of an error (RFC 9457)."""

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
    status: int = Field(description="HTTP status; IBM's own, if IBM responded", ge=400, le=599)
    detail: str = Field(description="What is wrong and how to fix it")
    field: str | None = Field(default=None, description="The field that is wrong")
    code: str | None = Field(default=None, description="IBM's own error code")
    trace: str | None = Field(default=None, description="IBM's trace id; its support asks for it")
    candidates: list[str] | None = Field(
        default=None,
        description="Ids of the sessions that the request may have opened, as far as they are known",
    )

    @classmethod
    def from_status(cls, status: int, detail: str, field: str | None = None) -> Self:
        """Return a problem that has no type beyond its HTTP status."""
        return cls(status=status, title=_title(status), detail=detail, field=field)

    @classmethod
    def from_error(cls, error: IBMQuantumError) -> Self:
        """Return the problem that describes one of the client's errors."""
        status = http_status_for(error)
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

    def to_response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return it as an HTTP response, in ASCII: what a client has sent may not be valid Unicode."""
        body = json.dumps(self.model_dump(exclude_none=True)).encode("ascii")
        return Response(body, self.status, dict(headers or {}), MEDIA_TYPE)


def error_response(error: IBMQuantumError) -> Response:
    """Return the HTTP response for one of the client's errors."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    problem = ProblemDetails.from_error(error)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="IBM Quantum"'
    return problem.to_response(headers)


def http_status_for(error: IBMQuantumError) -> int:
    """Return IBM's own status if its API sent a readable response, else 422, 502 or 504."""
    if isinstance(error, ConfigurationError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    root = error.__cause__ if isinstance(error, OutcomeUnknownError) else error
    # A web page's status says nothing, and IAM's is about the service's key, not about the client's token.
    is_ours = isinstance(root, BadResponseError) or (isinstance(root, IBMQuantumError) and root.from_iam)
    if error.status and 400 <= error.status <= 599 and not is_ours:
        return error.status
    return HTTPStatus.GATEWAY_TIMEOUT if _timed_out(error) else HTTPStatus.BAD_GATEWAY


def _timed_out(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return True
        error = error.__cause__
    return False


def _kind(error: IBMQuantumError) -> str:
    """Return ``outcome-unknown`` for ``OutcomeUnknownError``."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def openapi_responses(descriptions: Mapping[int | str, str]) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's responses for these statuses and descriptions."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": text, "content": content} for status, text in descriptions.items()}
