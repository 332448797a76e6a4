# SPDX-License-Identifier: Apache-2.0
"""The commands on sessions: the operations that REST offers too, and the list of sessions."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_ibm_sessions.cli import output
from airflow_provider_ibm_sessions.cli.arguments import (
    EXAMPLE_SESSION,
    Commands,
    add_common,
    add_fields,
    arguments_from,
    limit,
)
from airflow_provider_ibm_sessions.cli.connection import credentials_for
from airflow_provider_ibm_sessions.client.enums import PENDING_CLOSED, SessionMode, SessionState
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, ServerError, SessionClosedError
from airflow_provider_ibm_sessions.client.operations import CLOSE_SESSION, Operation
from airflow_provider_ibm_sessions.client.usage import format_duration
from airflow_provider_ibm_sessions.server.exposure import EXPOSED, GET_SESSION, UPDATE_SESSION, Exposure
from airflow_provider_ibm_sessions.server.security import ClientConnection
from airflow_provider_ibm_sessions.server.service import SessionService, as_json, client_factory

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.client import AsyncIBMQuantumClient
    from airflow_provider_ibm_sessions.client.models.instance import Workload

log = logging.getLogger(__name__)

_COLUMNS: Final = ("id", "mode", "state", "backend", "created", "accepting_jobs", "user_id")
_WORKLOAD_MODES: Final = {SessionMode.DEDICATED.value: "session", SessionMode.BATCH.value: "batch"}
"""The modes of sessions, by IBM's word for them in its list of workloads."""
_NOT_ENDED: Final = ("pending", "in_progress")
_ENDED: Final = ("completed", "failed", "canceled")
"""The statuses of workloads, which IBM's list has in place of the states of sessions."""


def add_commands(commands: Commands) -> None:
    """Add a command for each operation, ``drain`` and ``list``."""
    for exposure in EXPOSED:
        operation = exposure.operation
        command = commands.add(
            exposure.command, run_operation, operation.summary, exposure.description, exposure.example
        )
        add_fields(command, operation)
        add_common(command, commands.conn_id)
        command.set_defaults(exposure=exposure)
    drain = commands.add(
        "drain",
        run_operation,
        "Drain a session",
        "Let a session or batch accept no new job. Queued jobs run, and it closes itself after the last one. "
        "A dedicated session is billed until then. The same as update with --accepting-jobs false.",
        EXAMPLE_SESSION,
    )
    drain.add_argument("id", metavar="SESSION_ID", help=UPDATE_SESSION.operation.id_description)
    add_common(drain, commands.conn_id)
    drain.set_defaults(exposure=UPDATE_SESSION, accepting_jobs="false")
    listed = commands.add(
        "list",
        list_sessions,
        "List sessions and batches",
        "List sessions and batches, the newest first; without --all those that are not closed.",
        "--mine",
        "--all --mode batch --limit 10 --json",
    )
    listed.add_argument("--all", action="store_true", help="include those that are closed")
    listed.add_argument("--mine", action="store_true", help="only those of the API key's user")
    listed.add_argument("--mode", choices=sorted(_WORKLOAD_MODES), help="only those of this mode")
    listed.add_argument("--backend", help="only those on this QPU")
    listed.add_argument("--limit", type=limit, default=50, metavar="N", help="at most N (default: 50)")
    add_common(listed, commands.conn_id)


def run_operation(options: argparse.Namespace) -> None:
    """
    Call an operation, and print the session; after a change, as it is then.

    :raises IBMQuantumError: If it failed, or IBM granted something else than what was asked for.
    """
    from airflow_provider_ibm_sessions.server.run import SHUTTING_DOWN, cancel_on_signals

    exposure: Exposure = options.exposure
    arguments = arguments_from(options, exposure.operation)
    exposure.operation.parse_arguments(arguments)
    print_result = output.print_json if options.json else output.print_fields

    async def work() -> None:
        connection = ClientConnection()
        cancel_on_signals(
            "SIGTERM", "SIGHUP", "SIGINT", message=SHUTTING_DOWN if exposure.compensation else ""
        )
        factory = client_factory(credentials_for(options.conn_id))
        async with SessionService(factory, max_ttl=None) as service:
            try:
                result = await service.call(exposure, arguments, connection)
                if exposure.operation.response_model is None:
                    result = await _read_back(service, options.id)
                print_result(result)
                sys.stdout.flush()
                connection.mark_delivered()
            finally:
                # The id that could not be printed is known to nobody.
                connection.disconnect()
        _check_granted(exposure.operation, arguments.get("body", {}), result)

    asyncio.run(work())


async def _read_back(service: SessionService, session_id: str) -> dict[str, Any]:
    """Return the session after a change, which IBM answers with nothing."""
    try:
        session: dict[str, Any] = await service.call(GET_SESSION, {"id": session_id})
    except IBMQuantumError as error:
        log.warning("Done, but the session could not be read afterwards: %s", error)
        return {"id": session_id, "done": True}
    return session


def _check_granted(operation: Operation[Any], asked: dict[str, Any], session: dict[str, Any]) -> None:
    """
    Compare what was asked for with the session as it is.

    :raises SessionClosedError: If a closed session was asked to accept jobs.
    :raises ServerError: If a session still accepts jobs after a drain, or is not closed after a close.
    """
    name, state = session.get("id"), session.get("state")
    for field in ("mode", "backend"):
        granted = session.get("backend_name" if field == "backend" else field)
        if field in asked and granted and granted != asked[field]:
            print(f"IBM granted the {field} {granted}, not the {asked[field]} asked for", file=sys.stderr)
    asked_ttl, granted_ttl = asked.get("max_ttl"), session.get("max_ttl")
    if asked_ttl and granted_ttl and granted_ttl < asked_ttl:
        durations = format_duration(granted_ttl), format_duration(asked_ttl)
        print("IBM granted a max_ttl of {}, less than the {} asked for".format(*durations), file=sys.stderr)
    if asked.get("accepting_jobs") and state == SessionState.CLOSED:
        raise SessionClosedError(f"Session {name} is closed and accepts no jobs; create a new one")
    if (
        asked.get("accepting_jobs") is False
        and state != SessionState.CLOSED
        and session.get("accepting_jobs")
    ):
        raise ServerError(f"Session {name} still accepts jobs: drain it again, or close it")
    if operation is CLOSE_SESSION and state not in (None, SessionState.CLOSED, PENDING_CLOSED):
        raise ServerError(f"Session {name} is still {state}: close it again")


def list_sessions(options: argparse.Namespace) -> None:
    """Print sessions and batches, the newest first."""
    filters: dict[str, Any] = {"backend": options.backend, "user": "me" if options.mine else None}
    filters["status"] = None if options.all else list(_NOT_ENDED)
    filters = {name: value for name, value in filters.items() if value is not None}

    async def work() -> tuple[list[dict[str, Any]], bool]:
        found: list[Workload] = []
        async with client_factory(credentials_for(options.conn_id))() as client:
            for mode in [options.mode] if options.mode else _WORKLOAD_MODES:
                count = 0
                async for workload in client.list_workloads(mode=_WORKLOAD_MODES[mode], **filters):
                    found.append(workload)
                    count += 1
                    if count > options.limit:
                        break
            found.sort(key=lambda each: str(each.created), reverse=True)
            rows = await _with_states(client, found[: options.limit])
        is_shown = [options.all or row["state"] != SessionState.CLOSED for row in rows]
        return [row for row, shown in zip(rows, is_shown, strict=True) if shown], len(found) > len(rows)

    rows, has_more = asyncio.run(work())
    if options.json:
        output.print_json(rows)
    else:
        output.print_rows(rows, _COLUMNS)
    sys.stdout.flush()
    if has_more:
        print(f"There are more than these {len(rows)}: see --limit", file=sys.stderr)


async def _with_states(client: AsyncIBMQuantumClient, workloads: list[Workload]) -> list[dict[str, Any]]:
    """
    Return sessions in the words of ``get``, which IBM's list of workloads does not use.

    The list has one status for open and inactive sessions, so each that has not ended is read.
    """
    errors: list[IBMQuantumError] = []

    async def state_of(workload: Workload) -> str | None:
        if workload.status in _ENDED:
            return SessionState.CLOSED
        try:
            return (await client.get_session(workload.id)).state
        except IBMQuantumError as error:  # another user's session may not be this key's to read
            errors.append(error)
            return None

    states = await asyncio.gather(*(state_of(workload) for workload in workloads))
    if errors:
        log.warning("The state of %d sessions could not be read: %s", len(errors), errors[0])
    modes = {workload: mode for mode, workload in _WORKLOAD_MODES.items()}
    rows = []
    for workload, state in zip(workloads, states, strict=True):
        row = as_json(workload) | {"mode": modes.get(workload.mode or "", workload.mode), "state": state}
        row.pop("status", None)
        rows.append(row)
    return rows
