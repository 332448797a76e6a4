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
import textwrap
from collections.abc import Callable, Sequence
from typing import Final

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.cli import backends, jobs, output, sessions, sweep, usage
from airflow_provider_ibm_sessions.cli.arguments import WIDTH, Parser, add_common, add_fields, examples
from airflow_provider_ibm_sessions.cli.serve import add_serve
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    JobFailedError,
    OutcomeUnknownError,
    RequestRejectedError,
)
from airflow_provider_ibm_sessions.emulator import __main__ as emulator
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.server.exposure import EXPOSED, UPDATE_SESSION

WRONG, REFUSED, FAILED, UNKNOWN, INTERRUPTED = 2, 3, 4, 5, 130
PROGRAM: Final = "ibm-quantum-sessions"
_JOB: Final = "d2rkgo8r9c6s73a1qd0g"
_SESSION: Final = "6f1c9c2e-0d0b-4b7e-9a52-3a6f6a1f3f10"


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
        epilog=examples(program, "list", "create --help", f"results {_JOB}") + "\n\n" + exit_codes,
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def add(
        name: str, run: Callable[[argparse.Namespace], None], summary: str, description: str, *lines: str
    ) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name,
            help=summary,
            description=textwrap.fill(description, WIDTH),
            epilog=examples(program, *(f"{name} {line}".strip() for line in lines)),
        )
        command.set_defaults(run=run)
        return command

    for exposure in EXPOSED:
        operation = exposure.operation
        command = add(
            exposure.command,
            sessions.run_operation,
            operation.summary,
            exposure.description,
            exposure.example,
        )
        add_fields(command, operation)
        add_common(command, conn_id)
        command.set_defaults(exposure=exposure)
    drain = add(
        "drain",
        sessions.run_operation,
        "Drain a session",
        "Let a session or batch accept no new job. Queued jobs run, and it closes itself after the last one. "
        "A dedicated session is billed until then. The same as update with --accepting-jobs false.",
        _SESSION,
    )
    drain.add_argument("id", metavar="SESSION_ID", help=UPDATE_SESSION.operation.id_description)
    add_common(drain, conn_id)
    drain.set_defaults(exposure=UPDATE_SESSION, accepting_jobs="false")

    listed = add(
        "list",
        sessions.list_sessions,
        "List sessions and batches",
        "List sessions and batches, the newest first; without --all those that are not closed.",
        "--mine",
        "--all --mode batch --limit 10 --json",
    )
    sessions.add_list_fields(listed, conn_id)
    listed_jobs = add(
        "jobs",
        jobs.list_jobs,
        "List jobs",
        "List jobs, the newest first. qpu_seconds is the QPU time that IBM charges so far.",
        "--pending",
        f"--session {_SESSION} --limit 10",
        "--tag calibration --tag night --json",
    )
    jobs.add_list_fields(listed_jobs, conn_id)
    results = add(
        "results",
        jobs.show_results,
        "Print the results of a job",
        "Print the results of a job that has completed: a histogram of the counts of each pub, over all "
        "registers, or a table of expectation values with their errors.",
        _JOB,
        f"{_JOB} --by-register --top 8",
        f"{_JOB} --json",
    )
    jobs.add_results_fields(results, conn_id)
    cancel = add(
        "cancel",
        jobs.cancel_jobs,
        "Cancel jobs",
        "Cancel jobs, queued or running, and print their states afterwards. What a job has used until then "
        "is billed.",
        _JOB,
        f"{_JOB} d2rkgp0r9c6s73a1qd1g --json",
    )
    jobs.add_cancel_fields(cancel, conn_id)
    listed_backends = add(
        "backends",
        backends.list_backends,
        "List QPUs",
        "List the QPUs of the instance. wait_time is what half of the jobs wait at most; the Open plan has "
        "none. Error rates are medians, as of the last calibration.",
        "",
        "--json",
    )
    add_common(listed_backends, conn_id)

    swept = add(
        "sweep",
        sweep.sweep,
        "Close sessions that no active run of an Airflow owns",
        sweep.DESCRIPTION,
        "",
        "--close --min-age 1h",
    )
    sweep.add_fields(swept)
    # An Airflow's sessions are those of one of its connections.
    add_common(swept, conn_id or DEFAULT_CONN_ID)
    used = add(
        "usage",
        usage.usage,
        "Print what a Dag run has used and cost",
        usage.DESCRIPTION,
        "--dag-id nightly --run-id manual__2026-11-01T00:00:00+00:00",
    )
    usage.add_fields(used)

    emulate = commands.add_parser(
        "emulator",
        help="Emulate IBM Quantum on this machine, with simulated circuits",
        description="Emulate IBM Quantum on 127.0.0.1, with simulated circuits. Needs the extra local.",
    )
    emulator.add_arguments(emulate)
    emulate.set_defaults(run=emulator.run, prints=False)
    add_serve(commands, program, conn_id)
    return root


if __name__ == "__main__":
    sys.exit(main())
