# SPDX-License-Identifier: Apache-2.0
"""How the REST service describes itself (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.client.operations import Operation
from airflow_provider_ibm_sessions.server.callers import HEALTH
from airflow_provider_ibm_sessions.server.health import Health
from airflow_provider_ibm_sessions.server.problem_details import Problem, declared

OPERATIONS: Final = "Sessions"
SERVICE: Final = "Service"
_ALWAYS: Final[dict[int | str, str]] = {
    400: "IBM refuses it, or the body is no JSON",
    401: "The bearer token of this service is missing or wrong, or IBM does not accept the service's own",
    403: "The API key may not do this, or a web page of another origin called",
    404: "IBM does not know it",
    408: "The body did not arrive in time",
    409: "It is in a state that forbids this",
    413: "The body is too long",
    421: "The Host header names another service",
    422: "A field is wrong; nothing was sent to IBM",
    423: "It is locked",
    429: "IBM asks to wait; Retry-After says how long",
    500: "This service or IBM failed",
    502: "IBM could not be reached, or its answer could not be read",
    503: "IBM is not available, or too many requests are in work here",
    504: "IBM did not answer in time",
}


ABOUT: Final[dict[str, Any]] = {
    "title": "IBM Quantum sessions",
    "version": __version__,
    "summary": "Open, read, drain and close sessions on IBM's quantum computers.",
    "description": (
        "The session operations of IBM Quantum, behind one client that keeps the API key, fetches "
        "tokens, sends again what is safe to send again, and closes the session of a caller who leaves "
        "before the answer. Errors are problem bodies (RFC 9457) with IBM's own status, code and trace."
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
"""Arguments for FastAPI: what stands at the top of the description."""


def failures(operation: Operation[Any]) -> dict[int | str, dict[str, Any]]:
    """The failures of an operation. Any other status of IBM's is passed on as well."""
    meanings: dict[int | str, str] = dict(_ALWAYS)
    meanings["default"] = "Another answer of IBM's"
    if operation.undo:
        for status in (500, 502, 503, 504):
            meanings[status] += ". The session may have been opened all the same"
    return declared(meanings)


def health_failures() -> dict[int | str, dict[str, Any]]:
    """The failures of ``GET /health``."""
    meanings: dict[int | str, str] = {status: _ALWAYS[status] for status in (403, 421)}
    return {**declared(meanings), 503: {"model": Health, "description": "It is live, but not ready"}}


def describe(app: FastAPI, *, secured: bool) -> None:
    """
    Replace FastAPI's description by one with problem bodies.

    :param secured: Whether callers need a bearer token.
    """

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app, secured=secured)
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]


def _schema(app: FastAPI, *, secured: bool) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        servers=app.servers,
        contact=app.contact,
        license_info=app.license_info,
    )
    components = schema["components"]
    components["schemas"]["Problem"] = Problem.model_json_schema()
    if secured:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"bearer": []}]
        schema["paths"][HEALTH]["get"]["security"] = []
    return schema
