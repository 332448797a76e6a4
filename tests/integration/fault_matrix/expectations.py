# SPDX-License-Identifier: Apache-2.0
"""Expectations of a cell, derived from what the cell is, not from what was observed in it."""

from __future__ import annotations

from .cells import Cell, FaultKind

RUN_SECONDS = 12.0
"""The longest that a run may take: two tries that wait in vain, and little else."""
CALL_SECONDS = 0.8
"""The longest that one call may take that never succeeds: its retries, one timeout, and a slow machine."""
MAX_CALLS = 40
"""Such calls in a run at most: two tries of a task, of five attempts each, and of a few calls each."""


def must_succeed(cell: Cell) -> bool:
    """Return True for a single fault, unless it is a refusal, or a malformed response to a read."""
    if cell.lasting or not can_succeed(cell):
        return False
    if cell.fault.name == "401":
        return not _is_iam(cell)  # there, it means that the key is wrong
    if cell.fault.effect == "malformed":
        # What was created is looked up, and closing is confirmed. Elsewhere it is an error.
        return cell.operation.method in ("POST", "DELETE") and not _is_iam(cell)
    if cell.operation.name == "patch" and _is_false_success(cell.fault):
        return False  # IBM says that the session drains, and it does not: the sensor finds out
    return cell.fault.effect == "transient"


def can_succeed(cell: Cell) -> bool:
    """Return False if the jobs of the run never end."""
    return cell.operation.scenario != "run jobs too slow"


def _is_false_success(fault: FaultKind) -> bool:
    """Return True if nothing was done, and the response is what IBM sends after an update: no body."""
    return fault.phase == "before" and bool({"empty", "no_content"} & set(fault.script))


def may_accept(cell: Cell) -> bool:
    """Return True where every way to the session is blocked for good: no token, or its id cannot be found."""
    return cell.lasting and (_is_iam(cell) or cell.operation.create_response_lost)


def escapes_sweeps(cell: Cell) -> bool:
    """Return True where the session's id never arrived. Then it can have no job, and IBM closes it."""
    return cell.lasting and cell.operation.create_response_lost


def is_denied(cell: Cell) -> bool:
    """Return True if IBM keeps answering 404 for a session whose id comes from a list only."""
    return cell.lasting and cell.fault.name == "404" and cell.operation.name in ("recover: get", "sweep: get")


def may_be_open(cell: Cell) -> bool:
    """Return True also where closing is blocked: then the session drains at least."""
    return may_accept(cell) or (cell.lasting and cell.operation.method == "DELETE")


def time_limit(cell: Cell) -> float:
    """Return the seconds that the cell's run may take."""
    return RUN_SECONDS + (MAX_CALLS * CALL_SECONDS if cell.lasting else 0)


def _is_iam(cell: Cell) -> bool:
    return cell.operation.path.startswith("/identity/")
