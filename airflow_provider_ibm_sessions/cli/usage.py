# SPDX-License-Identifier: Apache-2.0
"""The command ``usage``: what a Dag run has cost, by task and try, from the records of its sessions."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_ibm_sessions.cli import output
from airflow_provider_ibm_sessions.cli.arguments import Commands, add_json
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.usage import UsageReport, format_money, format_seconds

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.hooks.session_record import SessionRecord

log = logging.getLogger(__name__)

_COLUMNS: Final = (
    "task_id",
    "map_index",
    "try_number",
    "session_id",
    "mode",
    "backend",
    "jobs",
    "qpu_seconds",
    "billed",
    "final",
    "cost",
    "reason",
)


def add_commands(commands: Commands) -> None:
    """Add the command."""
    command = commands.add(
        "usage",
        usage,
        "Print what a Dag run has used and cost",
        "Print what a Dag run of this environment's Airflow has used, by task and try. Failed tries are "
        "included, and what the sweep has closed. Reads Airflow's database; asks IBM nothing without "
        "--settle.",
        "--dag-id nightly --run-id manual__2026-11-01T00:00:00+00:00",
    )
    command.add_argument("--dag-id", required=True, help="the Dag")
    command.add_argument("--run-id", required=True, help="its run")
    command.add_argument(
        "--settle", action="store_true", help="read from IBM again what was not final, and keep it"
    )
    add_json(command)


def usage(options: argparse.Namespace) -> None:
    """
    Print the records of a run, and their sums.

    :raises IBMQuantumError: If the database cannot be read.
    """
    with output.stdout_to_stderr():
        # Loading Airflow takes seconds.
        from airflow_provider_ibm_sessions.cli.metastore import records_of_run

        records = records_of_run(options.dag_id, options.run_id)
        if options.settle:
            records = [record if record.billed_is_final else _settle(record) for record in records]
    rows = [_row(record) for record in records]
    totals = _totals(records)
    if options.json:
        output.print_json({"records": rows, "totals": totals})
    else:
        output.print_rows([{**row, **_for_people(row)} for row in rows], _COLUMNS)
        print()
        output.print_fields(_for_people(totals))
    sys.stdout.flush()


def _settle(record: SessionRecord) -> SessionRecord:
    """Return the record with what IBM tells by now, after it was stored; an error is logged."""
    from airflow_provider_ibm_sessions.cli.metastore import hook_from_database, update_record

    try:
        hook = hook_from_database(record.conn_id)
        if record.mode == "job":
            jobs = [hook.get_job(record.session_id)]
            used = UsageReport.of_jobs(jobs)
        else:
            jobs = list(hook.list_jobs(session_id=record.session_id))
            used = UsageReport.of_session(hook.get_session(record.session_id), jobs)
        record = record.with_usage(used, jobs)
        update_record(record)
    except IBMQuantumError as error:
        log.warning("The usage of %s was not read again: %s", record.session_id, error)
    return record


def _row(record: SessionRecord) -> dict[str, Any]:
    owner, cost = record.owner or {}, record.cost
    return {
        **record.to_json(),
        "task_id": owner.get("task_id"),
        "map_index": owner.get("map_index"),
        "final": record.billed_is_final,
        "cost": None if cost is None else float(cost),
    }


def _totals(records: Sequence[SessionRecord]) -> dict[str, Any]:
    """Return the sums: of the billed seconds, and of the cost in each currency. Unknown ones are counted."""
    costs: dict[str, Decimal] = {}
    for record in records:
        if record.cost is not None:
            currency = record.currency or ""
            costs[currency] = costs.get(currency, Decimal(0)) + record.cost
    billed = [Decimal(repr(float(each.billed))) for each in records if each.billed is not None]
    return {
        "sessions": sum(record.mode != "job" for record in records),
        "single_jobs": sum(record.mode == "job" for record in records),
        "billed": float(sum(billed, Decimal(0))),
        "cost": {currency: float(cost) for currency, cost in costs.items()},
        "not_final": sum(not record.billed_is_final for record in records),
        "unknown": sum(record.billed is None for record in records),
    }


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that people read otherwise: money to the cent, durations with their unit."""
    shown = dict(row)
    for name in ("billed", "qpu_seconds"):
        if row.get(name) is not None:
            shown[name] = f"{format_seconds(row[name])}s"
    cost = row.get("cost")
    if isinstance(cost, dict):
        each = [format_money(Decimal(repr(value)), currency) for currency, value in cost.items()]
        shown["cost"] = ", ".join(each) or None
    elif cost is not None:
        shown["cost"] = format_money(Decimal(repr(cost)), row.get("currency") or "")
    if isinstance(row.get("jobs"), dict):
        shown["jobs"] = ", ".join(f"{count} {state}" for state, count in row["jobs"].items()) or None
    if row.get("map_index") == -1:
        shown["map_index"] = None
    return shown
