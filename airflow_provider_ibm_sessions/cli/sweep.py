# SPDX-License-Identifier: Apache-2.0
"""``airflow ibm-quantum sweep``."""

from __future__ import annotations

from argparse import Namespace

from airflow.cli.simple_table import AirflowConsole
from airflow.utils import cli as cli_utils
from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_provider_ibm_sessions.cli.database import DatabaseLedger, hook_from_database
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.values import checked_choice, to_seconds
from airflow_provider_ibm_sessions.sweeping import Scope, Sweep


@cli_utils.action_cli
@suppress_logs_and_warning
@providers_configuration_loaded
def sweep(args: Namespace) -> None:
    """List the open sessions, and close the orphans if that is asked for."""
    try:
        chosen = Sweep(
            hook_from_database(args.conn_id),
            DatabaseLedger(),
            scope=Scope(checked_choice(args.scope, Scope, "scope")),
            min_age=to_seconds(args.min_age, "min_age"),
        )
        reports, failures = chosen.run(dry_run=not args.close)
    except IBMQuantumError as error:
        raise SystemExit(f"ibm-quantum sweep: {error}") from error
    AirflowConsole().print_as(data=reports, output=args.output)
    if failures:
        raise SystemExit("\n".join(map(str, failures)))
