# SPDX-License-Identifier: Apache-2.0
"""The REST service: the exposed operations under IBM's own paths."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from inspect import Parameter, Signature
from typing import Annotated, Any, Final
from urllib.parse import unquote

from fastapi import Body, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError
from airflow_provider_ibm_sessions.client.models.base import PathId
from airflow_provider_ibm_sessions.client.operations import field_path, format_errors
from airflow_provider_ibm_sessions.client.validation import DEFAULT_MAX_TTL
from airflow_provider_ibm_sessions.server import openapi
from airflow_provider_ibm_sessions.server.exposure import EXPOSED, Exposure, accept_strings
from airflow_provider_ibm_sessions.server.problem_details import ProblemDetails, error_response
from airflow_provider_ibm_sessions.server.security import (
    HEALTH_PATH,
    AccessMiddleware,
    AccessPolicy,
    ClientDisconnected,
    DisconnectMiddleware,
    connection_in,
)
from airflow_provider_ibm_sessions.server.service import (
    CLIENT_CLOSED_REQUEST,
    ClientFactory,
    Health,
    SessionService,
    health_response,
)

_DOUBLED_PREFIX: Final = "/v1"
"""The capability document has the prefix twice in every path; both forms are served."""
_ERROR_DETAILS: Final = {
    400: "The body cannot be read as JSON",
    404: "There is nothing under this path",
    405: "This path does not allow the method; the header Allow lists those it does",
}


def rest_app(
    client_factory: ClientFactory,
    policy: AccessPolicy | None = None,
    exposed: Sequence[Exposure] = EXPOSED,
    *,
    max_ttl: int = DEFAULT_MAX_TTL,
) -> FastAPI:
    """
    Return the REST service.

    :param client_factory: Opens the client of the process.
    :param policy: Who may call; by default all that reach the loopback address.
    :param exposed: The operations to offer.
    :param max_ttl: The longest ``max_ttl`` that may be asked for, in seconds.
    """
    service = SessionService(client_factory, max_ttl=max_ttl)
    policy = policy or AccessPolicy()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    async def health() -> Response:
        """``live``: this process serves. ``ready``: IBM accepts its API key and its instance."""
        return await health_response(service)

    app = FastAPI(**openapi.ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    for exposure in exposed:
        _add_routes(app, exposure, service)
    app.add_api_route(
        HEALTH_PATH,
        health,
        operation_id="get-health",
        summary="Check the service",
        tags=[openapi.SERVICE],
        response_model=Health,
        response_description="The service is live and ready",
        responses=openapi.health_error_responses(),
    )
    _add_error_handlers(app)
    openapi.install_openapi(app, secured=policy.token is not None)
    app.add_middleware(EncodedSlashMiddleware)
    app.add_middleware(DisconnectMiddleware)
    app.add_middleware(AccessMiddleware, policy=policy)
    return app


def _add_routes(app: FastAPI, exposure: Exposure, service: SessionService) -> None:
    """Offer an operation under its path and the doubled one."""
    operation = exposure.operation

    async def endpoint(request: Request, **given: Any) -> Response:
        # FastAPI checks a query or a body only where one is declared; elsewhere it would be ignored.
        for name in () if operation.query else request.query_params:
            raise ConfigurationError(f"{name}: {operation.summary} has no query", field=name)
        if not operation.body and await request.body():
            raise ConfigurationError(f"{operation.summary} has no body", field="body")
        query = given.pop("query", None)
        arguments = {**given, **(query.model_dump(exclude_none=True) if query else {})}
        response = await service.call(exposure, arguments, connection_in(request.scope))
        if operation.response_model is None:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return Response(json.dumps(response), media_type="application/json")

    # FastAPI reads from the signature what to check and to describe.
    annotations: dict[str, Any] = {"request": Request}
    if operation.has_id:
        annotations["id"] = Annotated[PathId, Path(description=operation.id_description)]
    if operation.query:
        annotations["query"] = Annotated[accept_strings(operation.query), Query()]
    if operation.body:
        annotations["body"] = Annotated[operation.body, Body()]
    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in annotations.items()
    ]
    endpoint.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    for prefix in ("", _DOUBLED_PREFIX):
        app.add_api_route(
            prefix + operation.path,
            endpoint,
            methods=[operation.method],
            operation_id=operation.name,
            summary=operation.summary,
            description=exposure.description,
            tags=[openapi.OPERATIONS],
            status_code=HTTPStatus.OK if operation.response_model else HTTPStatus.NO_CONTENT,
            response_model=operation.response_model,
            response_description="IBM's response" if operation.response_model else "IBM has done it",
            responses=openapi.error_responses(exposure),
            include_in_schema=not prefix,
        )


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every error with problem details."""

    @app.exception_handler(IBMQuantumError)
    async def _ibm(_: Request, error: IBMQuantumError) -> Response:
        return error_response(error)

    @app.exception_handler(ClientDisconnected)
    async def _disconnected(_: Request, __: ClientDisconnected) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        # The first part of a place is body, path or query.
        items: list[dict[str, Any]] = [{**item, "loc": item["loc"][1:]} for item in error.errors()]
        if items[0]["type"] == "json_invalid":
            return ProblemDetails.from_status(400, _ERROR_DETAILS[400]).to_response()
        return error_response(ConfigurationError(format_errors(items), field=field_path(items[0]) or "body"))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            routes = [route for route in app.routes if route.matches(request.scope)[0] is not Match.NONE]
            methods = {method for route in routes for method in getattr(route, "methods", None) or ()}
            headers["Allow"] = ", ".join(sorted(methods))
        detail = _ERROR_DETAILS.get(error.status_code, str(error.detail))
        return ProblemDetails.from_status(error.status_code, detail).to_response(headers)

    @app.exception_handler(Exception)
    async def _bug(_: Request, __: Exception) -> Response:
        return ProblemDetails.from_status(500, "The service failed; its log has the details").to_response()


class EncodedSlashMiddleware:
    """ASGI middleware that keeps a ``%2F`` as part of an id, which is then refused: it is no separator."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        raw = scope.get("raw_path") or b""
        if b"%2f" in raw.lower():
            kept = re.sub("%2f", "%252F", raw.decode("latin-1"), flags=re.IGNORECASE)
            scope = {**scope, "path": unquote(kept)}
        await self._app(scope, receive, send)
