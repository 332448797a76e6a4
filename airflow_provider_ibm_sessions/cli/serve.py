# SPDX-License-Identifier: Apache-2.0
"""The command ``serve``: the operations over REST or MCP."""

from __future__ import annotations

import argparse
import asyncio
import logging
import textwrap
from collections.abc import Callable
from typing import Any, Final

from airflow_provider_ibm_sessions.cli import output
from airflow_provider_ibm_sessions.cli.arguments import WIDTH, Commands, Parser, examples
from airflow_provider_ibm_sessions.cli.connection import add_connection, credentials_for
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.usage import format_duration
from airflow_provider_ibm_sessions.client.validation import DEFAULT_MAX_TTL, to_seconds
from airflow_provider_ibm_sessions.server.service import client_factory

_HOST: Final = "127.0.0.1"
_REST_PORT: Final = 8080
_MCP_PORT: Final = 9090
_DESCRIPTION: Final = textwrap.fill(
    "Serve the session operations. Clients send a bearer token: that of the variable "
    "IBM_QUANTUM_SESSIONS_TOKEN or of --token-file, else one that is made and printed at the start. "
    "Addresses other than loopback need one of the first two.",
    WIDTH,
)


def add_commands(commands: Commands) -> None:
    """Add the command, with a subcommand for each service."""
    program = commands.program
    command = commands.subparsers.add_parser(
        "serve",
        help="Serve the operations over REST or MCP",
        description=_DESCRIPTION,
        epilog=examples(program, "serve rest"),
    )
    kinds = command.add_subparsers(metavar="rest|mcp", required=True, parser_class=Parser)
    rest = kinds.add_parser(
        "rest",
        help="a REST service",
        description=_DESCRIPTION,
        epilog=examples(
            program, "serve rest", "serve rest --host 0.0.0.0 --name quantum.example --token-file FILE"
        ),
    )
    mcp = kinds.add_parser(
        "mcp",
        help="a Model Context Protocol server",
        description=_DESCRIPTION,
        epilog=examples(program, "serve mcp", "serve mcp --stdio"),
    )
    # It writes to standard output then, as other commands do.
    mcp.add_argument(
        "--stdio", action="store_true", dest="prints", help="serve one client over stdin and stdout"
    )
    for service, port, run in ((rest, _REST_PORT, _serve_rest), (mcp, _MCP_PORT, _serve_mcp)):
        service.add_argument("--host", default=_HOST, help="address to listen on (default: %(default)s)")
        service.add_argument(
            "--port", type=int, default=port, help="default: %(default)s; 0 takes a free one"
        )
        service.add_argument("--name", action="append", default=[], help="a further host name of the service")
        service.add_argument("--token-file", metavar="FILE", help="file with the clients' bearer token")
        service.add_argument("--no-token", action="store_true", help="loopback only: let in all local users")
        longest = f"longest max_ttl that clients may ask for (default: {format_duration(DEFAULT_MAX_TTL)})"
        service.add_argument("--max-ttl", default=DEFAULT_MAX_TTL, metavar="DURATION", help=longest)
        add_connection(service, commands.conn_id)
        service.set_defaults(run=run, prints=False)


def _serve_rest(options: argparse.Namespace) -> None:
    from airflow_provider_ibm_sessions.server.rest import rest_app

    _serve(options, rest_app)


def _serve_mcp(options: argparse.Namespace) -> None:
    try:
        from airflow_provider_ibm_sessions.server import mcp
        from airflow_provider_ibm_sessions.server.mcp_stdio import serve_stdio
    except ModuleNotFoundError as error:
        hint = "serve mcp needs the extra: pip install 'airflow-provider-ibm-sessions[mcp]'"
        raise ConfigurationError(hint, field="mcp") from error

    if not options.prints:
        _serve(options, mcp.mcp_app, mcp.PATH)
        return
    unused = {"host": _HOST, "port": _MCP_PORT, "name": [], "token_file": None, "no_token": False}
    for field, default in unused.items():
        if getattr(options, field) != default:
            option = "--" + field.replace("_", "-")
            raise ConfigurationError(f"{option} is for a service that listens, not for --stdio", field=field)
    max_ttl = to_seconds(options.max_ttl, "max_ttl")
    factory = client_factory(credentials_for(options.conn_id))
    output.log_to_stderr(logging.INFO)
    asyncio.run(serve_stdio(factory, max_ttl=max_ttl))


def _serve(options: argparse.Namespace, make_app: Callable[..., Any], path: str = "") -> None:
    from airflow_provider_ibm_sessions.server.run import access_policy_from_options, serve

    policy, made_token = access_policy_from_options(
        options.host, options.name, options.token_file, no_token=options.no_token
    )
    max_ttl = to_seconds(options.max_ttl, "max_ttl")
    factory = client_factory(credentials_for(options.conn_id))
    output.log_to_stderr(logging.INFO)
    serve(make_app(factory, policy, max_ttl=max_ttl), options.host, options.port, path, made_token)
