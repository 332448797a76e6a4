# SPDX-License-Identifier: Apache-2.0
"""The command ``sweep``: closes what no live run of an Airflow owns. The one command that needs Airflow."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any, Final

from airflow_provider_ibm_sessions.cli import output
from airflow_provider_ibm_sessions.cli.output import stdout_to_stderr

log = logging.getLogger(__name__)

_WORDS: Final = (
    "Lists the open sessions and batches, and says what each is to the Airflow of this environment. Closes "
    "nothing without --close. Fails if one that is to be closed stays open."
)
_COLUMNS: Final = ("session_id", "mode", "state", "backend", "age", "owner", "verdict", "closed")


def add_fields(command: argparse.ArgumentParser) -> None:
    """Add the options that only this command has."""
    command.description = _WORDS
    command.add_argument("--close", action="store_true", help="close what belongs to nobody")
    command.add_argument(
        "--min-age", default="15m", help="leave alone what is younger (default: %(default)s)"
    )
    command.add_argument(
        "--scope",
        default="airflow",
        help="airflow (default): close only what this Airflow has opened; user: also what other tools have "
        "opened for the key's user; instance: also what other users have",
    )


def sweep(options: argparse.Namespace, hook: Any, ledger: Any) -> None:
    """
    Run it, and print what was found.

    :param hook: IBM's side, and ``ledger`` Airflow's; see :func:`load_hook_and_registry`.
    :raises IBMQuantumError: The last that stands in the way of reading or closing a session.
    """
    from airflow_provider_ibm_sessions.client.validation import to_seconds, validate_choice
    from airflow_provider_ibm_sessions.lifecycle.sweep import Scope, Sweep

    scope = Scope(validate_choice(options.scope, Scope, "scope"))
    min_age = to_seconds(options.min_age, "min_age")
    chosen = Sweep(hook, ledger, scope=scope, min_age=min_age)
    with stdout_to_stderr():
        reports, failures = chosen.run(dry_run=not options.close)
    if options.json:
        output.print_json(reports)
    else:
        output.print_rows(reports, _COLUMNS)
    sys.stdout.flush()
    for failure in failures[:-1]:
        log.error("%s", failure)
    if failures:
        raise failures[-1]


def load_hook_and_registry(conn_id: str) -> tuple[Any, Any]:
    """Return the hook on a connection, and Airflow's list of open sessions. Loads Airflow."""
    with stdout_to_stderr():
        from airflow_provider_ibm_sessions.cli.metastore import MetastoreSessionRegistry, hook_from_database

        return hook_from_database(conn_id), MetastoreSessionRegistry()
