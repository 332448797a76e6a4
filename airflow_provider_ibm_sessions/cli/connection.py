# SPDX-License-Identifier: Apache-2.0
"""The connection of a command: its option, and its credentials."""

from __future__ import annotations

import argparse

from airflow_provider_ibm_sessions.cli import output
from airflow_provider_ibm_sessions.client.credentials import Credentials


def add_connection(command: argparse.ArgumentParser, conn_id: str | None) -> None:
    """
    Add the option that names the connection.

    :param conn_id: Its default. None: the environment's variables.
    """
    default = conn_id or "the variables IBM_CLOUD_API_KEY and IBM_QUANTUM_CRN"
    command.add_argument("--conn-id", default=conn_id, help=f"an Airflow connection (default: {default})")


def credentials_for(conn_id: str | None) -> Credentials:
    """
    Return the credentials of an Airflow connection, or else of the environment. Sends nothing.

    :raises ConfigurationError: Naming what is missing or wrong.
    """
    if conn_id is None:
        return Credentials.from_env()
    with output.stdout_to_stderr():
        # Loading Airflow takes seconds, which the environment's credentials do not cost.
        from airflow_provider_ibm_sessions.cli.metastore import hook_from_database

        credentials = hook_from_database(conn_id).credentials
    output.log_to_stderr()  # Airflow, if that has loaded it, logs to standard output
    return credentials
