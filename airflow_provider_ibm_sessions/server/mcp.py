# SPDX-License-Identifier: Apache-2.0
"""The MCP face: one tool for each public operation; over streamable HTTP, or as ``stdio.py`` has it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, Protocol

from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
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
from airflow_provider_ibm_sessions.client.operations import PUBLIC, Operation, Safety
from airflow_provider_ibm_sessions.server.callers import (
    HEALTH,
    Attended,
    Caller,
    CallerLeftError,
    caller_of,
)
from airflow_provider_ibm_sessions.server.health import health_of
from airflow_provider_ibm_sessions.server.problem_details import Problem
from airflow_provider_ibm_sessions.server.security import Guard, Rules
from airflow_provider_ibm_sessions.server.service import ClientSource, Desk

PATH: Final = "/mcp"
_PREFIX: Final = "ibm-quantum-"
_MOST_SESSIONS: Final = 1000
_IDLE_SECONDS: Final = 600.0

log = logging.getLogger(__name__)


class Wire(Protocol):
    """What a server speaks over that serves one client without HTTP."""

    def caller(self) -> Caller:
        """One who waits for the answer to one request."""

    def end(self) -> None:
        """Nothing more can be answered."""


class Done(BaseModel):
    """Output of a tool whose operation IBM answers with no more than that it is done."""

    id: str = Field(description="What it was done to")
    done: Literal[True] = True


def tool_for(operation: Operation[Any]) -> Tool:
    """Describe an operation as a tool."""
    face = operation.offered_as
    return Tool(
        name=_PREFIX + operation.name,
        title=operation.summary,
        description=face.description,
        input_schema=operation.arguments.model_json_schema(),
        output_schema=(operation.response_model or Done).model_json_schema(mode="serialization"),
        annotations=ToolAnnotations(
            title=operation.summary,
            read_only_hint=operation.safety is Safety.SAFE,
            destructive_hint=face.destructive,
            idempotent_hint=face.repeatable,
            open_world_hint=True,
        ),
    )


def mcp_server(
    desk: Desk, operations: Sequence[Operation[Any]] = PUBLIC, wire: Wire | None = None
) -> Server[Any]:
    """
    The MCP server, on no transport yet.

    :param desk: Where the operations are carried out; opened and closed by the server.
    :param operations: What is offered.
    :param wire: What it is spoken over, if not HTTP.
    """
    offered = {_PREFIX + operation.name: operation for operation in operations}
    tools = {name: tool_for(operation) for name, operation in offered.items()}

    async def list_tools(*_: Any) -> ListToolsResult:
        return ListToolsResult(tools=list(tools.values()))

    async def call_tool(context: Any, params: CallToolRequestParams) -> CallToolResult:
        operation = offered.get(params.name)
        if operation is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool {params.name!r}: there are {', '.join(offered)}")
        caller = wire.caller() if wire else caller_of(context.request.scope)
        return await _result(desk, operation, params.arguments or {}, caller)

    @asynccontextmanager
    async def lifespan(_: Server[Any]) -> AsyncIterator[None]:
        async with desk:
            try:
                yield
            finally:
                if wire:
                    wire.end()

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
    source: ClientSource, rules: Rules | None = None, operations: Sequence[Operation[Any]] = PUBLIC
) -> Starlette:
    """
    The MCP service over streamable HTTP.

    :param source: Lends the client for the process.
    :param rules: Who may call; by default whoever reaches the loopback address.
    :param operations: What is offered.
    """
    desk = Desk(source)

    async def health(_: Request) -> Response:
        return await health_of(desk)

    app = mcp_server(desk, operations).streamable_http_app(
        streamable_http_path=PATH,
        max_sessions=_MOST_SESSIONS,
        session_idle_timeout=_IDLE_SECONDS,
        # The guard checks Host and Origin, for both services by the same rules.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        custom_starlette_routes=[Route(HEALTH, health)],
    )
    app.add_middleware(Attended)
    app.add_middleware(Guard, rules=rules or Rules())
    return app


async def _result(
    desk: Desk, operation: Operation[Any], arguments: Mapping[str, Any], caller: Caller
) -> CallToolResult:
    """
    Carry out a tool call. Failures are results as well, so that an assistant sees them.

    :raises MCPError: If the caller has left: nobody reads it.
    """
    try:
        answer = await desk.carry_out(operation.parse_arguments(arguments), caller)
    except CallerLeftError:
        raise MCPError(INTERNAL_ERROR, "The caller has left") from None
    except IBMQuantumError as error:
        problem = Problem.of(error).model_dump(exclude_none=True)
        return CallToolResult(content=[_text(str(error))], is_error=True, _meta={"problem": problem})
    except Exception:  # a bug: the SDK would tell its text, whatever that holds
        log.exception("%s failed", operation.summary)
        return CallToolResult(content=[_text("The service failed; its log says how")], is_error=True)
    if operation.response_model is None:
        answer = Done(id=str(arguments.get("id"))).model_dump()
    return CallToolResult(content=[_text(json.dumps(answer))], structured_content=answer)


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)
