# SPDX-License-Identifier: Apache-2.0
"""``airflow ibm-quantum ...``: what there is. Imported by every ``airflow`` command, so it imports little."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    CLICommand,
    GroupCommand,
    lazy_load_command,
)

from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID

_SWEEP = ActionCommand(
    name="sweep",
    help="Close the sessions that no live run of this Airflow owns",
    description="Lists the open sessions and batches of an IBM Quantum instance, and says what each is. "
    "Closes nothing without --close. Exits with 1 if one that is to be closed stays open.",
    func=lazy_load_command("airflow_provider_ibm_sessions.cli.sweep.sweep"),
    args=(
        Arg(
            ("--conn-id",),
            help=f"The Airflow connection (default: {DEFAULT_CONN_ID})",
            default=DEFAULT_CONN_ID,
        ),
        Arg(("--min-age",), help="Leave alone what is younger, such as 15m (default)", default="15m"),
        Arg(
            ("--scope",),
            help="airflow (default): close only what this Airflow has opened; user: also what other tools "
            "have opened for the key's user; instance: also what other users have",
            default="airflow",
        ),
        Arg(("--close",), help="Close them", action="store_true"),
        ARG_OUTPUT,
        ARG_VERBOSE,
    ),
)


def get_ibm_quantum_commands() -> list[CLICommand]:
    """Return the commands, for Airflow's command line."""
    return [GroupCommand(name="ibm-quantum", help="IBM Quantum sessions", subcommands=(_SWEEP,))]
