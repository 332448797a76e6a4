# SPDX-License-Identifier: Apache-2.0
"""What has to come of a cell. From what it is, not from what has been observed in it."""

from __future__ import annotations

from .cells import Cell, Kind

ONE_RUN = 12.0
"""Seconds that a run may take: two tries that wait in vain, and little else."""
ONE_CALL = 0.8
"""Seconds that one call may take that never succeeds: its window, one timeout, and a slow machine."""
MOST_CALLS = 40
"""Such calls in a run at most: two tries of a task, of five attempts each, and of a few calls each."""


def must_succeed(cell: Cell) -> bool:
    """A single fault is to be got past, unless it says no, or is no answer to a mere question."""
    if cell.lasting or not can_succeed(cell):
        return False
    if cell.fault.name == "401":
        return not _is_iam(cell)  # there, it says that the key is wrong
    if cell.fault.verdict == "nonsense":
        # What was created is looked up, and a session is closed for certain. Elsewhere it is told.
        return cell.operation.method in ("POST", "DELETE") and not _is_iam(cell)
    if cell.operation.name == "patch" and _is_false_promise(cell.fault):
        return False  # IBM says that it drains, and it does not: who waits for its end finds out
    return cell.fault.verdict == "passing"


def can_succeed(cell: Cell) -> bool:
    return cell.operation.story != "run jobs too slow"


def _is_false_promise(fault: Kind) -> bool:
    """No body and no work: just what IBM answers to an update that it has carried out."""
    return fault.phase == "before" and bool({"empty", "no_content"} & set(fault.script))


def may_accept(cell: Cell) -> bool:
    """Only where every way to the session is barred for ever: no token, or its name cannot be learnt."""
    return cell.lasting and (_is_iam(cell) or cell.operation.create_is_lost)


def escapes_sweeps(cell: Cell) -> bool:
    """Only where its name was never learnt. Then no job can ever have reached it, and IBM closes it."""
    return cell.lasting and cell.operation.create_is_lost


def is_denied(cell: Cell) -> bool:
    """IBM says for ever that there is no such session, to a client that has its name from a list only."""
    return cell.lasting and cell.fault.name == "404" and cell.operation.name in ("adopt: get", "sweep: get")


def may_be_open(cell: Cell) -> bool:
    """Also where closing is barred: it drains at least."""
    return may_accept(cell) or (cell.lasting and cell.operation.method == "DELETE")


def bound_of(cell: Cell) -> float:
    return ONE_RUN + (MOST_CALLS * ONE_CALL if cell.lasting else 0)


def _is_iam(cell: Cell) -> bool:
    return cell.operation.path.startswith("/identity/")
