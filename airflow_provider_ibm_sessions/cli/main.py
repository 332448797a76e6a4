# SPDX-License-Identifier: Apache-2.0
"""
The command ``ibm-quantum-sessions``: the session operations at a terminal, and the two services.

Exit codes:
  0    done
  2    wrong input; nothing was sent
  3    IBM refused, or the session is closed
  4    IBM failed or could not be reached, or the output could not be written
  5    unknown whether a session was opened
  130  interrupted (serve and list end by SIGTERM itself: 143)
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.cli import output, sweep, usage
from airflow_provider_ibm_sessions.cli.arguments import add_fields, arguments_from
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.enums import SessionMode, SessionState
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    OutcomeUnknownError,
    RequestRejectedError,
    SessionClosedError,
)
from airflow_provider_ibm_sessions.client.validation import DEFAULT_MAX_TTL, to_seconds
from airflow_provider_ibm_sessions.emulator import __main__ as emulator
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.server.exposure import EXPOSED, GET_SESSION, Exposure
from airflow_provider_ibm_sessions.server.security import ClientConnection
from airflow_provider_ibm_sessions.server.service import (
    ClientFactory,
    SessionService,
    as_json,
    client_factory,
)

WRONG, REFUSED, FAILED, UNKNOWN, INTERRUPTED = 2, 3, 4, 5, 130
PROGRAM: Final = "ibm-quantum-sessions"
_HOST: Final = "127.0.0.1"
_REST_PORT: Final = 8080
_MCP_PORT: Final = 9090
_WORKLOAD_MODES: Final = {SessionMode.DEDICATED.value: "session", SessionMode.BATCH.value: "batch"}
_MAX_LIMIT: Final = 10_000
_NOT_ENDED: Final = ["pending", "in_progress"]
_WIDTH: Final = 79
_SERVE: Final = textwrap.fill(
    "Serve the session operations. Clients send a bearer token: that of the variable "
    "IBM_QUANTUM_SESSIONS_TOKEN or of --token-file, else one that is made and printed at the start. "
    "Addresses other than loopback need one of the first two.",
    _WIDTH,
)

_Parser: Final[Any] = partial(
    argparse.ArgumentParser, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
)
"""``--clo`` is not ``--close``."""

log = logging.getLogger(__name__)


def main(
    arguments: Sequence[str] | None = None, *, conn_id: str | None = None, program: str = PROGRAM
) -> int:
    """
    Run the command.

    :param arguments: The command line; by default this process's.
    :param conn_id: The Airflow connection if none is named. None: the environment's variables.
    :param program: The command's name in its help.
    :returns: The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack characters that IBM sends
    options = parser(program, conn_id).parse_args(arguments)
    _log_to_stderr()
    try:
        if options.prints and sys.stdout is None:
            raise OSError("standard output is closed, and the result goes there")
        options.run(options)
    except IBMQuantumError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return exit_code_for(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"{program}: {error}", file=sys.stderr)
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        return FAILED
    return 0


def exit_code_for(error: IBMQuantumError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, ConfigurationError):
        return WRONG
    if isinstance(error, OutcomeUnknownError):
        return UNKNOWN
    return REFUSED if isinstance(error, RequestRejectedError) else FAILED


def parser(program: str = PROGRAM, conn_id: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line, with a subcommand for each exposed operation and some more."""
    exit_codes = "Exit codes:" + (__doc__ or "").partition("Exit codes:")[2]
    root: argparse.ArgumentParser = _Parser(
        prog=program,
        description="IBM Quantum sessions.",
        epilog=_examples(program, "list", "create --help", "serve rest") + "\n\n" + exit_codes,
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for exposure in EXPOSED:
        operation = exposure.operation
        epilog = _examples(program, f"{exposure.command} {exposure.example}".strip())
        description = textwrap.fill(exposure.description, _WIDTH)
        command = commands.add_parser(
            exposure.command, help=operation.summary, description=description, epilog=epilog
        )
        add_fields(command, operation)
        _add_common(command, conn_id)
        command.set_defaults(run=_run_operation, exposure=exposure)

    command = commands.add_parser(
        "list",
        help="List sessions and batches",
        description="List sessions and batches, the newest first; without --all those that have not ended.",
        epilog=_examples(program, "list --mine", "list --all --mode batch --limit 10 --json"),
    )
    command.add_argument("--all", action="store_true", help="include those that have ended")
    command.add_argument("--mine", action="store_true", help="only those of the API key's user")
    command.add_argument("--mode", choices=sorted(_WORKLOAD_MODES), help="only those of this mode")
    command.add_argument("--backend", help="only those on this QPU")
    command.add_argument("--limit", type=_limit, default=50, metavar="N", help="at most N (default: 50)")
    _add_common(command, conn_id)
    command.set_defaults(run=_list)

    command = commands.add_parser(
        "sweep",
        help="Close sessions that no active run of an Airflow owns",
        epilog=_examples(program, "sweep", "sweep --close --min-age 1h"),
    )
    sweep.add_fields(command)
    # An Airflow's sessions are those of one of its connections.
    _add_common(command, conn_id or DEFAULT_CONN_ID)
    command.set_defaults(run=_sweep)

    command = commands.add_parser(
        "usage",
        help="Print what a Dag run has used and cost",
        epilog=_examples(program, "usage --dag-id nightly --run-id manual__2026-11-01T00:00:00+00:00"),
    )
    usage.add_fields(command)
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(run=_usage, prints=True)

    _add_serve(commands, program, conn_id)
    return root


def _add_serve(commands: Any, program: str, conn_id: str | None) -> None:
    command = commands.add_parser(
        "emulator",
        help="Emulate IBM Quantum on this machine, with simulated circuits",
        description="Emulate IBM Quantum on 127.0.0.1, with simulated circuits. Needs the extra local.",
    )
    emulator.add_arguments(command)
    command.set_defaults(run=emulator.run, prints=False)

    command = commands.add_parser(
        "serve",
        help="Serve the operations over REST or MCP",
        description=_SERVE,
        epilog=_examples(program, "serve rest"),
    )
    kinds = command.add_subparsers(metavar="rest|mcp", required=True, parser_class=_Parser)
    rest = kinds.add_parser(
        "rest",
        help="a REST service",
        description=_SERVE,
        epilog=_examples(
            program, "serve rest", "serve rest --host 0.0.0.0 --name quantum.example --token-file FILE"
        ),
    )
    mcp = kinds.add_parser(
        "mcp",
        help="a Model Context Protocol server",
        description=_SERVE,
        epilog=_examples(program, "serve mcp", "serve mcp --stdio"),
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
        longest = (
            f"longest max_ttl that clients may ask for (default: {output.format_duration(DEFAULT_MAX_TTL)})"
        )
        service.add_argument("--max-ttl", default=DEFAULT_MAX_TTL, metavar="DURATION", help=longest)
        _add_connection(service, conn_id)
        service.set_defaults(run=run, prints=False)


def _examples(program: str, *examples: str) -> str:
    return "Examples:\n" + "\n".join(f"  {program} {example}" for example in examples)


def _limit(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) <= _MAX_LIMIT:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MAX_LIMIT}")


def _add_common(command: argparse.ArgumentParser, conn_id: str | None) -> None:
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(prints=True)
    _add_connection(command, conn_id)


def _add_connection(command: argparse.ArgumentParser, conn_id: str | None) -> None:
    default = conn_id or "the variables IBM_CLOUD_API_KEY and IBM_QUANTUM_CRN"
    command.add_argument("--conn-id", default=conn_id, help=f"an Airflow connection (default: {default})")


def _client_factory(conn_id: str | None) -> ClientFactory:
    """
    Return the factory for an Airflow connection, or else for the environment's credentials. Sends nothing.

    :raises ConfigurationError: Naming what is missing or wrong.
    """
    if conn_id is None:
        return client_factory(Credentials.from_env())
    with output.stdout_to_stderr():
        # Loading Airflow takes seconds, which the environment's credentials do not cost.
        from airflow_provider_ibm_sessions.cli.metastore import hook_from_database

        credentials = hook_from_database(conn_id).credentials
    _log_to_stderr()  # Airflow, if that has loaded it, logs to standard output
    return client_factory(credentials)


def _log_to_stderr(level: int = logging.WARNING) -> None:
    form = (
        "%(levelname)s %(message)s" if level >= logging.WARNING else "%(asctime)s %(levelname)s %(message)s"
    )
    logging.basicConfig(level=logging.WARNING, format=form, stream=sys.stderr, force=True)
    logging.getLogger("airflow_provider_ibm_sessions.server").setLevel(level)


def _run_operation(options: argparse.Namespace) -> None:
    from airflow_provider_ibm_sessions.server.run import SHUTTING_DOWN, cancel_on_signals

    exposure: Exposure = options.exposure
    arguments = arguments_from(options, exposure.operation)
    exposure.operation.parse_arguments(arguments)
    print_result = output.print_json if options.json else output.print_fields

    async def work() -> None:
        connection = ClientConnection()
        cancel_on_signals(
            "SIGTERM", "SIGHUP", "SIGINT", message=SHUTTING_DOWN if exposure.compensation else ""
        )
        async with SessionService(_client_factory(options.conn_id), max_ttl=None) as service:
            try:
                result = await service.call(exposure, arguments, connection)
                if exposure.operation.response_model is None:
                    result = await _read_back(service, options.id)
                _print(lambda: print_result(result))
                connection.mark_delivered()
            finally:
                # The id that could not be printed is known to nobody.
                connection.disconnect()
        _check_result(arguments, result)

    asyncio.run(work())


async def _read_back(service: SessionService, session_id: str) -> dict[str, Any]:
    """Return the session after a change, which IBM answers with nothing."""
    try:
        session: dict[str, Any] = await service.call(GET_SESSION, {"id": session_id})
    except IBMQuantumError as error:
        log.warning("Done, but the session could not be read afterwards: %s", error)
        return {"id": session_id, "done": True}
    return session


def _check_result(arguments: dict[str, Any], session: dict[str, Any]) -> None:
    """
    Compare what was asked for with what IBM did.

    :raises SessionClosedError: If a closed session was asked to accept jobs.
    """
    wanted = arguments.get("body", {})
    asked, granted = wanted.get("max_ttl"), session.get("max_ttl")
    if asked and granted and granted < asked:
        durations = output.format_duration(granted), output.format_duration(asked)
        print("IBM granted a max_ttl of {}, less than the {} asked for".format(*durations), file=sys.stderr)
    if wanted.get("accepting_jobs") and session.get("state") == SessionState.CLOSED:
        raise SessionClosedError(f"Session {session['id']} is closed and accepts no jobs; create a new one")


def _list(options: argparse.Namespace) -> None:
    filters: dict[str, Any] = {"backend": options.backend, "user": "me" if options.mine else None}
    filters["status"] = None if options.all else _NOT_ENDED
    filters = {name: value for name, value in filters.items() if value is not None}

    async def work() -> list[Any]:
        found: list[Any] = []
        async with _client_factory(options.conn_id)() as client:
            for mode in [options.mode] if options.mode else _WORKLOAD_MODES:
                count = 0
                async for workload in client.list_workloads(mode=_WORKLOAD_MODES[mode], **filters):
                    found.append(as_json(workload))
                    count += 1
                    if count > options.limit:
                        break
        return sorted(found, key=lambda each: str(each.get("created")), reverse=True)

    found = asyncio.run(work())
    rows = found[: options.limit]
    _print(lambda: output.print_json(rows) if options.json else output.print_rows(rows))
    if len(found) > len(rows):
        print(f"There are more than these {len(rows)}: see --limit", file=sys.stderr)


def _sweep(options: argparse.Namespace) -> None:
    hook = sweep.load_hook(options.conn_id)
    _log_to_stderr()  # Airflow logs to standard output
    sweep.sweep(options, hook)


def _usage(options: argparse.Namespace) -> None:
    usage.usage(options)


def _print(write: Callable[[], None]) -> None:
    write()
    sys.stdout.flush()


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
    max_ttl, factory = to_seconds(options.max_ttl, "max_ttl"), _client_factory(options.conn_id)
    _log_to_stderr(logging.INFO)
    asyncio.run(serve_stdio(factory, max_ttl=max_ttl))


def _serve(options: argparse.Namespace, make_app: Callable[..., Any], path: str = "") -> None:
    from airflow_provider_ibm_sessions.server.run import access_policy_from_options, serve

    policy, made_token = access_policy_from_options(
        options.host, options.name, options.token_file, no_token=options.no_token
    )
    max_ttl, factory = to_seconds(options.max_ttl, "max_ttl"), _client_factory(options.conn_id)
    _log_to_stderr(logging.INFO)
    serve(make_app(factory, policy, max_ttl=max_ttl), options.host, options.port, path, made_token)


if __name__ == "__main__":
    sys.exit(main())
