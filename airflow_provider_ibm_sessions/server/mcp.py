# SPDX-License-Identifier: Apache-2.0
"""The MCP service: one tool for each exposed operation, over streamable HTTP or another transport."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.validation import DEFAULT_MAX_TTL, short_repr
from airflow_provider_ibm_sessions.server.exposure import EXPOSED, Exposure
from airflow_provider_ibm_sessions.server.problem_details import ProblemDetails
from airflow_provider_ibm_sessions.server.security import (
    HEALTH_PATH,
    AccessMiddleware,
    AccessPolicy,
    ClientConnection,
    ClientDisconnected,
    DisconnectMiddleware,
    connection_in,
)
from airflow_provider_ibm_sessions.server.service import ClientFactory, SessionService, health_response

PATH: Final = "/mcp"
_PREFIX: Final = "ibm-quantum-"

log = logging.getLogger(__name__)


class Done(BaseModel):
    """Output of a tool whose operation returns nothing."""

    id: str = Field(description="The session that was changed")
    done: Literal[True] = True


def describe_tool(exposure: Exposure) -> Tool:
    """Return the description of an operation as a tool."""
    operation = exposure.operation
    return Tool(
        name=_PREFIX + operation.name,
        title=operation.summary,
        description=exposure.description,
        input_schema=operation.arguments.model_json_schema(),
        output_schema=(operation.response_model or Done).model_json_schema(mode="serialization"),
        annotations=ToolAnnotations(
            title=operation.summary,
            read_only_hint=exposure.is_read_only,
            destructive_hint=exposure.destructive,
            idempotent_hint=exposure.idempotent,
            open_world_hint=True,
        ),
    )


def mcp_server(
    service: SessionService,
    exposed: Sequence[Exposure] = EXPOSED,
    connection_for: Callable[[Any], ClientConnection] = lambda context: connection_in(context.request.scope),
) -> Server[Any]:
    """
    Return the MCP server, without a transport.

    :param service: Calls the operations; the server opens and closes it.
    :param exposed: The operations to offer.
    :param connection_for: Returns the connection of a request, from the SDK's context.
    """
    exposures = {_PREFIX + exposure.operation.name: exposure for exposure in exposed}
    tools = {name: describe_tool(exposure) for name, exposure in exposures.items()}

    async def list_tools(*_: Any) -> ListToolsResult:
        return ListToolsResult(tools=list(tools.values()))

    async def call_tool(context: Any, params: CallToolRequestParams) -> CallToolResult:
        exposure = exposures.get(params.name)
        arguments = params.arguments or {}
        if exposure is None:
            raise MCPError(
                INVALID_PARAMS,
                f"Unknown tool {short_repr(params.name)}; the tools are {', '.join(exposures)}",
            )
        # An error is a result as well, so that the assistant sees it.
        try:
            response = await service.call(exposure, arguments, connection_for(context))
        except ClientDisconnected:
            raise MCPError(INTERNAL_ERROR, "The client has disconnected") from None
        except IBMQuantumError as error:
            problem = ProblemDetails.from_error(error).model_dump(exclude_none=True)
            return CallToolResult(content=[_text(str(error))], is_error=True, _meta={"problem": problem})
        except Exception:  # a bug: the SDK would send its message, whatever that contains
            log.exception("%s failed", exposure.operation.summary)
            return CallToolResult(
                content=[_text("The service failed; its log has the details")], is_error=True
            )
        if exposure.operation.response_model is None:
            response = Done(id=str(arguments.get("id"))).model_dump()
        return CallToolResult(content=[_text(json.dumps(response))], structured_content=response)

    @asynccontextmanager
    async def lifespan(_: Server[Any]) -> AsyncIterator[None]:
        async with service:
            yield

    return Server(
        "ibm-quantum-sessions",
        version=__version__,
        title="IBM Quantum sessions",
        instructions="Sessions on IBM's quantum computers. They cost money: close them, or drain them.",
        lifespan=lifespan,
        get_tool_input_schema=lambda name: tools[name].input_schema if name in tools else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def mcp_app(
    client_factory: ClientFactory,
    policy: AccessPolicy | None = None,
    exposed: Sequence[Exposure] = EXPOSED,
    *,
    max_ttl: int = DEFAULT_MAX_TTL,
) -> Starlette:
    """
    Return the MCP service over streamable HTTP.

    It keeps no state between requests, so there are no MCP sessions to run out of, and no stream to resume:
    only POST is allowed.

    :param client_factory: Opens the client of the process.
    :param policy: Who may call; by default all that reach the loopback address.
    :param exposed: The operations to offer.
    :param max_ttl: The longest ``max_ttl`` that may be asked for, in seconds.
    """
    service = SessionService(client_factory, max_ttl=max_ttl)
    # AccessMiddleware checks Host and Origin, for both services in the same way.
    manager = StreamableHTTPSessionManager(mcp_server(service, exposed), stateless=True)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with manager.run():
            yield

    async def health(_: Request) -> Response:
        return await health_response(service)

    routes = [
        Route(PATH, StreamableHTTPASGIApp(manager), methods=["POST"]),
        Route(HEALTH_PATH, health),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(DisconnectMiddleware)
    app.add_middleware(AccessMiddleware, policy=policy or AccessPolicy())
    return app


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)
