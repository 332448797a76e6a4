# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""
The command ``ibm-quantum-sessions``: sessions, jobs and QPUs at a terminal, and the two services.

Exit codes:
  0    done
  2    wrong input; nothing was sent
  3    IBM refused, the session is closed, or the job has failed or has no results yet
  4    IBM failed or could not be reached, or the output could not be written
  5    unknown whether a session was opened
  130  interrupted (all but create, get, update, drain and close end by SIGTERM itself: 143)
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.cli import backends, jobs, output, serve, sessions, sweep, usage
from airflow_provider_ibm_sessions.cli.arguments import EXAMPLE_JOB, Commands, Parser, examples
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    JobFailedError,
    OutcomeUnknownError,
    RequestRejectedError,
)
from airflow_provider_ibm_sessions.emulator import __main__ as emulator

WRONG, REFUSED, FAILED, UNKNOWN, INTERRUPTED = 2, 3, 4, 5, 130
PROGRAM: Final = "ibm-quantum-sessions"


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
    command_line = parser(program, conn_id)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how the words typed so far may go on
        from argcomplete import autocomplete
        from argcomplete.completers import SuppressCompleter

        autocomplete(command_line, default_completer=SuppressCompleter())
    options = command_line.parse_args(arguments)
    output.log_to_stderr()
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
    return REFUSED if isinstance(error, RequestRejectedError | JobFailedError) else FAILED


def parser(program: str = PROGRAM, conn_id: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line, with a subcommand for each exposed operation and some more."""
    exit_codes = "Exit codes:" + (__doc__ or "").partition("Exit codes:")[2]
    root: argparse.ArgumentParser = Parser(
        prog=program,
        description="IBM Quantum sessions, their jobs and QPUs.",
        epilog=examples(program, "list", "create --help", f"results {EXAMPLE_JOB}") + "\n\n" + exit_codes,
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = root.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    commands = Commands(subparsers, program, conn_id)
    for module in (sessions, jobs, backends, sweep, usage):
        module.add_commands(commands)
    emulate = subparsers.add_parser(
        "emulator",
        help="Emulate IBM Quantum on this machine, with simulated circuits",
        description="Emulate IBM Quantum on 127.0.0.1, with simulated circuits. Needs the extra local.",
    )
    emulator.add_arguments(emulate)
    emulate.set_defaults(run=emulator.run, prints=False)
    serve.add_commands(commands)
    return root


if __name__ == "__main__":
    sys.exit(main())
