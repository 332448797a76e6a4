# SPDX-License-Identifier: Apache-2.0
"""``airflow ibm-quantum``: the same command, on an Airflow connection. Imported at each start of it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand


def commands() -> list[CLICommand]:
    """Return what Airflow adds to its command line. The command itself is loaded when it is run."""
    from airflow.cli.cli_config import ActionCommand, Arg

    text = "list, create, drain, close, jobs, results, backends, ... (see --help), and their options"
    rest = Arg(("arguments",), nargs=argparse.REMAINDER, help=text)  # type: ignore[no-untyped-call]
    return [
        ActionCommand(
            name="ibm-quantum",
            help="IBM Quantum sessions",
            func=run,
            args=(rest,),
            description="ibm-quantum-sessions on ibm_quantum_default, or on --conn-id after the command.",
            epilog="More: airflow ibm-quantum list --help",
        )
    ]


def run(options: argparse.Namespace) -> None:
    """Run the command; exits with its code."""
    from airflow_provider_ibm_sessions.cli.main import main
    from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID

    arguments = options.arguments or ["--help"]
    sys.exit(main(arguments, conn_id=DEFAULT_CONN_ID, program="airflow ibm-quantum"))
