# SPDX-License-Identifier: Apache-2.0
"""The command ``sweep``: close what no active run of an Airflow owns. The one command that needs Airflow."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Final

from airflow_provider_ibm_sessions.cli import output
from airflow_provider_ibm_sessions.cli.arguments import Commands, add_common
from airflow_provider_ibm_sessions.cli.output import stdout_to_stderr
from airflow_provider_ibm_sessions.client.validation import to_seconds, validate_choice
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID

log = logging.getLogger(__name__)

_COLUMNS: Final = ("session_id", "mode", "state", "backend", "age", "owner", "decision", "closed")


def add_commands(commands: Commands) -> None:
    """Add the command."""
    command = commands.add(
        "sweep",
        sweep,
        "Close sessions that no active run of an Airflow owns",
        "List the open sessions and batches, and what each is to the Airflow of this environment. Closes "
        "nothing without --close. Fails if one that is to be closed stays open.",
        "",
        "--close --min-age 1h",
    )
    command.add_argument("--close", action="store_true", help="close what is orphaned")
    command.add_argument(
        "--min-age", default="15m", help="leave alone what is younger (default: %(default)s)"
    )
    command.add_argument(
        "--scope",
        default="airflow",
        help="airflow (default): close only what this Airflow has opened; user: also what other tools have "
        "opened for the key's user; instance: also what other users have",
    )
    # An Airflow's sessions are those of one of its connections.
    add_common(command, commands.conn_id or DEFAULT_CONN_ID)


def sweep(options: argparse.Namespace) -> None:
    """
    Sweep, and print what was found. Loads Airflow.

    :raises IBMQuantumError: The last error of reading or closing a session; those before it are logged.
    """
    with stdout_to_stderr():
        from airflow_provider_ibm_sessions.cli.metastore import hook_from_database
        from airflow_provider_ibm_sessions.lifecycle.sweep import SessionSweeper
        from airflow_provider_ibm_sessions.lifecycle.sweep_decision import SweepScope

        hook = hook_from_database(options.conn_id)
    output.log_to_stderr()  # Airflow logs to standard output
    scope = SweepScope(validate_choice(options.scope, SweepScope, "scope"))
    min_age = to_seconds(options.min_age, "min_age")
    with stdout_to_stderr():
        records, errors = SessionSweeper(hook, scope=scope, min_age=min_age).run(dry_run=not options.close)
    reports = [record.to_json() for record in records]
    if options.json:
        output.print_json(reports)
    else:
        output.print_rows(reports, _COLUMNS)
    sys.stdout.flush()
    for error in errors[:-1]:
        log.error("%s", error)
    if errors:
        raise errors[-1]
