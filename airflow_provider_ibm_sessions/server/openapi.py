# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI description of the REST service (3.1)."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.server.exposure import Exposure
from airflow_provider_ibm_sessions.server.problem_details import ProblemDetails, openapi_responses
from airflow_provider_ibm_sessions.server.security import HEALTH_PATH
from airflow_provider_ibm_sessions.server.service import Health

OPERATIONS: Final = "Sessions"
SERVICE: Final = "Service"
_DESCRIPTIONS: Final[dict[int | str, str]] = {
    400: "IBM refused the request, or the body is not JSON",
    401: "The bearer token is missing or wrong, or IBM does not accept the service's own token",
    403: "The API key may not do this, or a web page of another origin called",
    404: "IBM does not know the session",
    408: "The body did not arrive in time",
    409: "The session is in a state that forbids this",
    413: "The body is too long",
    421: "The Host header names another service",
    422: "A field is wrong; nothing was sent to IBM",
    423: "The resource is locked",
    429: "IBM limits the rate; Retry-After says how long to wait",
    500: "The service or IBM failed",
    502: "IBM could not be reached, or its response could not be read",
    503: "IBM is not available, or too many requests wait for it",
    504: "IBM did not respond in time",
}

ABOUT: Final[dict[str, Any]] = {
    "title": "IBM Quantum sessions",
    "version": __version__,
    "summary": "Open, read, drain and close sessions on IBM's quantum computers.",
    "description": (
        "The session operations of IBM Quantum through one client, which keeps the API key, renews tokens, "
        "retries what is safe to retry, and closes a session whose client disconnects before the response. "
        "Errors are problem details (RFC 9457) with IBM's own status, code and trace."
    ),
    "contact": {"name": "airflow-provider-ibm-sessions"},
    "license_info": {
        "name": "Apache-2.0",
        "url": "https://www.apache.org/licenses/LICENSE-2.0",
    },
    "servers": [{"url": "/", "description": "This service"}],
    "openapi_tags": [
        {"name": OPERATIONS, "description": "Sessions and batches of IBM Quantum."},
        {"name": SERVICE, "description": "This service itself."},
    ],
}
"""Arguments for FastAPI: the head of the description."""


def error_responses(exposure: Exposure) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of an operation. Any other status of IBM's is passed on as well."""
    descriptions: dict[int | str, str] = {**_DESCRIPTIONS, "default": "Another response of IBM's"}
    if exposure.compensation:
        for status in (500, 502, 503, 504):
            descriptions[status] += ". The session may have been opened all the same"
    return openapi_responses(descriptions)


def health_error_responses() -> dict[int | str, dict[str, Any]]:
    """Return the error responses of ``GET /health``."""
    descriptions: dict[int | str, str] = {status: _DESCRIPTIONS[status] for status in (403, 421)}
    not_ready = {"model": Health, "description": "The service is live, but not ready"}
    return {**openapi_responses(descriptions), 503: not_ready}


def install_openapi(app: FastAPI, *, secured: bool) -> None:
    """
    Complete FastAPI's description by the schema of problem details, and by the token.

    :param secured: True if clients need a bearer token.
    """
    describe = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = describe()
            schema["components"]["schemas"]["Problem"] = ProblemDetails.model_json_schema()
            if secured:
                schema["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
                schema["security"] = [{"bearer": []}]
                schema["paths"][HEALTH_PATH]["get"]["security"] = []
        return app.openapi_schema or {}

    app.openapi = complete  # type: ignore[method-assign]
