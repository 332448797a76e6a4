# SPDX-License-Identifier: Apache-2.0
"""
The command ``ibm-quantum-sessions``: the session operations at a terminal, and the two services.

Exit codes: 0 done; 2 wrong input, nothing was sent; 3 IBM refused; 4 IBM failed or could not be reached,
or nobody took the output; 5 a session may have been opened or not; 130 interrupted (serve and list end by
SIGTERM itself, 143).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.cli import output, sweep
from airflow_provider_ibm_sessions.cli.arguments import add_fields, arguments_from
from airflow_provider_ibm_sessions.cli.sources import credentials_for, source_of
from airflow_provider_ibm_sessions.client.enums import SessionMode
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    OutcomeUnknownError,
    RequestRejectedError,
)
from airflow_provider_ibm_sessions.client.operations import PUBLIC, Operation
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.server.callers import Caller
from airflow_provider_ibm_sessions.server.service import ClientSource, Desk, as_json
from airflow_provider_ibm_sessions.server.signals import SETTLING, heed

WRONG, REFUSED, FAILED, UNKNOWN, INTERRUPTED = 2, 3, 4, 5, 130
PROGRAM: Final = "ibm-quantum-sessions"
_HOST: Final = "127.0.0.1"
_REST_PORT: Final = 8080
_MCP_PORT: Final = 9090
_LISTED: Final = {SessionMode.DEDICATED.value: "session", SessionMode.BATCH.value: "batch"}
_MOST_LISTED: Final = 10_000
_STILL_OPEN: Final = ["pending", "in_progress"]


_Parser: Final[Any] = partial(argparse.ArgumentParser, allow_abbrev=False)
"""``--clo`` is no ``--close``."""


def main(
    arguments: Sequence[str] | None = None, *, conn_id: str | None = None, program: str = PROGRAM
) -> int:
    """
    Run the command.

    :param arguments: What stands on the command line; by default this process's.
    :param conn_id: The Airflow connection, if none is named. None: the environment's variables.
    :param program: The command's name in its help.
    :returns: The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not have what IBM sends
    options = parser(program, conn_id).parse_args(arguments)
    _log_to_stderr()
    try:
        if options.answers and sys.stdout is None:
            raise OSError("standard output is closed, where answers would go")
        options.run(options)
    except IBMQuantumError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return code_of(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"{program}: {error}", file=sys.stderr)
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return FAILED
    return 0


def code_of(error: IBMQuantumError) -> int:
    """The exit code that tells of an error."""
    if isinstance(error, ConfigurationError):
        return WRONG
    if isinstance(error, OutcomeUnknownError):
        return UNKNOWN
    return REFUSED if isinstance(error, RequestRejectedError) else FAILED


def parser(program: str = PROGRAM, conn_id: str | None = None) -> argparse.ArgumentParser:
    """The command line; one subcommand for each public operation, and some more."""
    whole: argparse.ArgumentParser = _Parser(
        prog=program, description="IBM Quantum sessions.", epilog=_epilog()
    )
    whole.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for operation in PUBLIC:
        _add_operation(commands, operation, conn_id)
    _add_list(commands, conn_id)
    _add_sweep(commands, conn_id)
    _add_serve(commands, conn_id)
    return whole


def _epilog() -> str:
    return "Exit codes: " + (__doc__ or "").partition("Exit codes: ")[2].replace("\n", " ").strip()


def _add_operation(commands: Any, operation: Operation[Any], conn_id: str | None) -> None:
    face = operation.offered_as
    command = commands.add_parser(face.verb, help=operation.summary, description=face.description)
    add_fields(command, operation)
    _add_common(command, conn_id)
    command.set_defaults(run=_carry_out, operation=operation)


def _add_list(commands: Any, conn_id: str | None) -> None:
    words = "List sessions and batches, the youngest first; those that are still open unless told otherwise."
    command = commands.add_parser("list", help="List sessions and batches", description=words)
    command.add_argument("--all", action="store_true", help="those that have ended as well")
    command.add_argument("--mine", action="store_true", help="only those of the API key's user")
    command.add_argument("--mode", choices=sorted(_LISTED), help="only these")
    command.add_argument("--backend", help="only those on this QPU")
    command.add_argument(
        "--limit", type=_count, default=50, metavar="N", help="at most so many (default: 50)"
    )
    _add_common(command, conn_id)
    command.set_defaults(run=_list)


def _add_sweep(commands: Any, conn_id: str | None) -> None:
    command = commands.add_parser("sweep", help="Close what no live run of an Airflow owns")
    sweep.add_fields(command)
    # The sessions that an Airflow has opened are those of one of its connections.
    _add_common(command, conn_id or DEFAULT_CONN_ID)
    command.set_defaults(run=_sweep)


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_LISTED:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MOST_LISTED}")


def _add_serve(commands: Any, conn_id: str | None) -> None:
    command = commands.add_parser("serve", help="Serve the operations to others", description=_SERVE)
    faces = command.add_subparsers(metavar="rest|mcp", required=True, parser_class=_Parser)
    rest = faces.add_parser("rest", help="a REST service", description=_SERVE)
    mcp = faces.add_parser("mcp", help="a Model Context Protocol server", description=_SERVE)
    # It answers on the output then, as other commands do.
    mcp.add_argument(
        "--stdio", action="store_true", dest="answers", help="serve one client over standard input and output"
    )
    for face, port, run in ((rest, _REST_PORT, _serve_rest), (mcp, _MCP_PORT, _serve_mcp)):
        face.add_argument("--host", default=_HOST, help="address to listen on (default: %(default)s)")
        face.add_argument("--port", type=int, default=port, help="default: %(default)s; 0 takes a free one")
        face.add_argument("--name", action="append", default=[], help="a further host name that leads here")
        face.add_argument("--token-file", metavar="FILE", help="file with the bearer token of callers")
        _add_connection(face, conn_id)
        face.set_defaults(run=run, answers=False)


_SERVE: Final = (
    "Serve the session operations. On another address than loopback, callers need a bearer token: set "
    "IBM_QUANTUM_SESSIONS_TOKEN, or name a file."
)


def _add_common(command: argparse.ArgumentParser, conn_id: str | None) -> None:
    command.add_argument("--json", action="store_true", help="print JSON in place of a table")
    command.set_defaults(answers=True)
    _add_connection(command, conn_id)


def _add_connection(command: argparse.ArgumentParser, conn_id: str | None) -> None:
    where = f"default: {conn_id}" if conn_id else "default: the variables IBM_CLOUD_API_KEY, IBM_QUANTUM_CRN"
    command.add_argument("--conn-id", default=conn_id, help=f"an Airflow connection ({where})")


def _source(options: argparse.Namespace) -> ClientSource:
    credentials = credentials_for(options.conn_id)
    _log_to_stderr()  # Airflow, if that has loaded it, logs to where the answers go
    return source_of(credentials)


def _log_to_stderr() -> None:
    form = "%(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, stream=sys.stderr, force=True)


def _carry_out(options: argparse.Namespace) -> None:
    operation: Operation[Any] = options.operation
    call = operation.parse_arguments(arguments_from(options, operation))
    show = output.show_json if options.json else output.show_fields

    async def work() -> None:
        caller = Caller()
        heed("SIGTERM", "SIGHUP", "SIGINT", words=SETTLING if operation.undo else "")
        async with Desk(_source(options)) as desk:
            try:
                answer = await desk.carry_out(call, caller)
                _print(
                    lambda: (
                        show(answer) if operation.response_model else show({"id": call.path_id, "done": True})
                    )
                )
                caller.got_it()
            finally:
                # What could not be printed, nobody knows of.
                caller.end()

    asyncio.run(work())


def _list(options: argparse.Namespace) -> None:
    filters: dict[str, Any] = {"backend": options.backend, "user": "me" if options.mine else None}
    filters["status"] = None if options.all else _STILL_OPEN
    modes = [options.mode] if options.mode else list(_LISTED)

    async def work() -> list[Any]:
        found: list[Any] = []
        async with _source(options)() as client:
            for mode in modes:
                given = {name: value for name, value in filters.items() if value is not None}
                count = 0
                async for workload in client.list_workloads(mode=_LISTED[mode], **given):
                    found.append(as_json(workload))
                    count += 1
                    if count > options.limit:
                        break
        return sorted(found, key=lambda each: str(each.get("created")), reverse=True)

    found = asyncio.run(work())
    rows = found[: options.limit]
    _print(lambda: output.show_json(rows) if options.json else output.show_rows(rows))
    if len(found) > len(rows):
        print(f"There are more than these {len(rows)}: see --limit", file=sys.stderr)


def _sweep(options: argparse.Namespace) -> None:
    sides = sweep.sides(options.conn_id)
    _log_to_stderr()  # Airflow logs to where the answers go
    sweep.sweep(options, *sides)


def _print(show: Callable[[], None]) -> None:
    show()
    sys.stdout.flush()


def _serve_rest(options: argparse.Namespace) -> None:
    from airflow_provider_ibm_sessions.server.rest import rest_app
    from airflow_provider_ibm_sessions.server.run import rules_for, serve

    rules = rules_for(options.host, options.name, options.token_file)
    serve(rest_app(_source(options), rules), options.host, options.port)


def _serve_mcp(options: argparse.Namespace) -> None:
    try:
        from airflow_provider_ibm_sessions.server import mcp
        from airflow_provider_ibm_sessions.server.mcp_stdio import serve_stdio
    except ModuleNotFoundError as error:
        hint = "serve mcp needs the extra: pip install 'airflow-provider-ibm-sessions[mcp]'"
        raise ConfigurationError(hint, field="mcp") from error
    from airflow_provider_ibm_sessions.server.run import rules_for, serve

    if options.answers:
        _refuse_listening(options)
        asyncio.run(serve_stdio(_source(options)))
        return
    rules = rules_for(options.host, options.name, options.token_file)
    serve(mcp.mcp_app(_source(options), rules), options.host, options.port, mcp.PATH)


def _refuse_listening(options: argparse.Namespace) -> None:
    unused = {"host": _HOST, "port": _MCP_PORT, "name": [], "token_file": None}
    for field, default in unused.items():
        if getattr(options, field) != default:
            option = "--" + field.replace("_", "-")
            raise ConfigurationError(
                f"{option} is for a service that listens, and not with --stdio", field=field
            )


if __name__ == "__main__":
    sys.exit(main())
