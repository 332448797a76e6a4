# SPDX-License-Identifier: Apache-2.0
"""Where a service or a command gets its client from."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, redirect_stdout
from functools import partial
from typing import TextIO

from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.shared import shared_client
from airflow_provider_ibm_sessions.server.service import POOL_SHARDS, ClientSource


def source_of(credentials: Credentials) -> ClientSource:
    """One client for these credentials, with all its connections and its token, for the whole process."""
    return partial(shared_client, credentials, pool_shards=POOL_SHARDS)


def credentials_for(conn_id: str | None) -> Credentials:
    """
    Of an Airflow connection, or else of the environment. Nothing is sent.

    :raises ConfigurationError: Naming what is missing or wrong.
    """
    if conn_id is None:
        return Credentials.from_env()
    with aside():
        # Takes seconds, as Airflow does; who has the environment set goes without.
        from airflow_provider_ibm_sessions.cli.metastore import hook_from_database

        return hook_from_database(conn_id).credentials


def aside() -> AbstractContextManager[TextIO]:
    """For what loads or asks Airflow: it logs to where a command's answers go, and from here on elsewhere."""
    return redirect_stdout(sys.stderr)
