# SPDX-License-Identifier: Apache-2.0
"""The command ``backends``: the QPUs of the instance, and the figures that one is chosen by."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_ibm_sessions.cli import output
from airflow_provider_ibm_sessions.cli.arguments import Commands, add_common
from airflow_provider_ibm_sessions.cli.connection import credentials_for
from airflow_provider_ibm_sessions.client.client import IBMQuantumClient

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.models.instance import Backend

_COLUMNS: Final = ("name", "state", "qubits", "queue_length", "wait_time", "two_q_error", "readout_error")


def add_commands(commands: Commands) -> None:
    """Add the command."""
    command = commands.add(
        "backends",
        list_backends,
        "List QPUs",
        "List the QPUs of the instance. wait_time is what half of the jobs wait at most; the Open plan has "
        "none. Error rates are medians, as of the last calibration.",
        "",
        "--json",
    )
    add_common(command, commands.conn_id)


def list_backends(options: argparse.Namespace) -> None:
    """Print the QPUs, by name."""
    with IBMQuantumClient(credentials_for(options.conn_id)) as client:
        backends = sorted(client.list_backends(wait_times=True), key=lambda each: each.name)
    if options.json:
        output.print_json([backend.summary() for backend in backends])
    else:
        output.print_rows([_row(backend) for backend in backends], _COLUMNS)
    sys.stdout.flush()


def _row(backend: Backend) -> dict[str, Any]:
    """Return the figures as people read them: rates with three digits, and why a QPU is not online."""
    row = backend.summary()
    reason = getattr(backend.status, "reason", None)
    if reason and backend.state != "online":
        row["state"] = f"{backend.state} ({reason})"
    for name in ("two_q_error", "readout_error"):
        row[name] = None if row[name] is None else f"{row[name]:.3g}"
    return row
