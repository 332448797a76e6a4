# SPDX-License-Identifier: Apache-2.0
"""The REST face: the public operations under IBM's own paths."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
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
from airflow_provider_ibm_sessions.client.operations import PUBLIC, Operation, field_path, format_errors
from airflow_provider_ibm_sessions.server import openapi, problem_details
from airflow_provider_ibm_sessions.server.callers import HEALTH, Attended, CallerLeftError, caller_of
from airflow_provider_ibm_sessions.server.health import Health, health_of
from airflow_provider_ibm_sessions.server.problem_details import Problem
from airflow_provider_ibm_sessions.server.security import Guard, Rules
from airflow_provider_ibm_sessions.server.service import ClientSource, Desk
from airflow_provider_ibm_sessions.server.texts import reading_texts

_DOUBLED: Final = "/v1"
"""The document this project was made from has every path twice prefixed; both are answered."""
_LEFT: Final = 499
_WORDS: Final = {
    400: "The body cannot be read as JSON",
    404: "There is nothing under this path",
    405: "This path does not allow the method; the header Allow says what it does",
}

Endpoint = Callable[..., Awaitable[Response]]


def rest_app(
    source: ClientSource,
    rules: Rules | None = None,
    operations: Sequence[Operation[Any]] = PUBLIC,
) -> FastAPI:
    """
    The REST service.

    :param source: Lends the client for the process.
    :param rules: Who may call; by default whoever reaches the loopback address.
    :param operations: What is offered.
    """
    desk, rules = Desk(source), rules or Rules()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with desk:
            yield

    app = FastAPI(**openapi.ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    for operation in operations:
        _add(app, operation, desk)
    _add_health(app, desk)
    _explain_errors(app)
    openapi.describe(app, secured=rules.token is not None)
    app.add_middleware(_SlashesStay)
    app.add_middleware(Attended)
    app.add_middleware(Guard, rules=rules)
    return app


def _add(app: FastAPI, operation: Operation[Any], desk: Desk) -> None:
    """Offer one operation, under its path and the doubled one."""
    success = HTTPStatus.OK if operation.response_model else HTTPStatus.NO_CONTENT
    for prefix in ("", _DOUBLED):
        app.add_api_route(
            prefix + operation.path,
            _endpoint(operation, desk),
            methods=[operation.method],
            operation_id=operation.name,
            summary=operation.summary,
            description=operation.offered_as.description,
            tags=[openapi.OPERATIONS],
            status_code=success,
            response_model=operation.response_model,
            response_description="IBM's answer" if operation.response_model else "IBM has done it",
            responses=openapi.failures(operation),
            include_in_schema=not prefix,
        )


def _endpoint(operation: Operation[Any], desk: Desk) -> Endpoint:
    """The function that FastAPI calls; it reads from the signature what to check and to describe."""

    async def endpoint(request: Request, **given: Any) -> Response:
        await _refuse_surplus(operation, request)
        query = given.pop("query", None)
        arguments = {**given, **(query.model_dump(exclude_none=True) if query else {})}
        answer = await desk.carry_out(operation.parse_arguments(arguments), caller_of(request.scope))
        return _answer(answer, empty=operation.response_model is None)

    parameters = [Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request)]
    for name, kind in _parameters(operation).items():
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind))
    endpoint.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return endpoint


async def _refuse_surplus(operation: Operation[Any], request: Request) -> None:
    """Refuse what would have no effect: FastAPI checks a query or a body only where there is one."""
    for name in () if operation.query else request.query_params:
        raise ConfigurationError(f"{name}: {operation.summary} has no query", field=name)
    if not operation.body and await request.body():
        raise ConfigurationError(f"{operation.summary} has no body", field="body")


def _parameters(operation: Operation[Any]) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    if operation.has_id:
        kinds["id"] = Annotated[PathId, Path(description=operation.id_description)]
    if operation.query:
        kinds["query"] = Annotated[reading_texts(operation.query), Query()]
    if operation.body:
        kinds["body"] = Annotated[operation.body, Body()]
    return kinds


def _answer(answer: Any, *, empty: bool) -> Response:
    if empty:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return Response(json.dumps(answer), media_type="application/json")


def _add_health(app: FastAPI, desk: Desk) -> None:
    async def health() -> Response:
        """``live``: this process serves. ``ready``: IBM accepts its key and its instance."""
        return await health_of(desk)

    app.add_api_route(
        HEALTH,
        health,
        operation_id="get-health",
        summary="Tell whether the service works",
        tags=[openapi.SERVICE],
        response_model=Health,
        response_description="It is live and ready",
        responses=openapi.health_failures(),
    )


def _explain_errors(app: FastAPI) -> None:
    """Let every failure end in a problem body."""

    @app.exception_handler(IBMQuantumError)
    async def _ibm(_: Request, error: IBMQuantumError) -> Response:
        return problem_details.response_to(error)

    @app.exception_handler(CallerLeftError)
    async def _left(_: Request, __: CallerLeftError) -> Response:
        return Response(status_code=_LEFT)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        if error.body and isinstance(error.body, bytes):
            # Read as JSON only if it says that it is: a web page may send other types without asking us.
            return Problem.plain(422, "Content-Type must be application/json", "Content-Type").response()
        items = [_placed(item) for item in error.errors()]
        wrong = ConfigurationError(format_errors(items), field=field_path(items[0]) or "body")
        return problem_details.response_to(wrong)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(app, request.scope))
        detail = _WORDS.get(error.status_code, str(error.detail))
        return Problem.plain(error.status_code, detail).response(headers)

    @app.exception_handler(Exception)
    async def _bug(_: Request, __: Exception) -> Response:
        return Problem.plain(500, "The service failed; its log says how").response()


def _placed(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """One of FastAPI's errors, its place without ``body``, ``path`` or ``query``."""
    loc = () if item["type"] == "json_invalid" else item["loc"][1:]
    return {**item, "loc": loc}


def _methods(app: FastAPI, scope: Scope) -> Iterable[str]:
    """What may be done with a path."""
    found = [route for route in app.routes if route.matches(scope)[0] is not Match.NONE]
    return sorted({method for route in found for method in getattr(route, "methods", None) or ()})


class _SlashesStay:
    """ASGI middleware: a ``%2F`` stays part of an id, which is then refused, and leads to no other path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path") or b""
        if b"%2f" in raw.lower():
            kept = re.sub("%2f", "%252F", raw.decode("latin-1"), flags=re.IGNORECASE)
            scope = {**scope, "path": unquote(kept)}
        await self._app(scope, receive, send)
