# SPDX-License-Identifier: Apache-2.0
"""The operations, the faults, and the cells that they make when crossed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

HANG_SECONDS = 60.0
"""A response that comes after these seconds is waited for by nobody any more."""


@dataclass(frozen=True)
class Operation:
    """
    An operation that a fault hits, and the Dag run in which it does.

    :param later_at: The task before which the fault of a "later" cell is armed. Without it, the fault hits
        the operation's first call in a second run of the Dag. (The second token from the job's task on is the
        triggerer's, or in a worker that of closing.)
    :param later_skip: How many calls pass before the fault of a "later" cell.
    :param create_response_lost: True if the response to create is lost as well, so that this operation is
        needed to find the session.
    """

    name: str
    method: str
    path: str
    scenario: str
    later_at: str | None = None
    later_skip: int = 0
    create_response_lost: bool = False


@dataclass(frozen=True)
class FaultKind:
    """
    A kind of fault.

    :param script: How the fake behaves.
    :param network_fault: Where the request is sent instead, for a fault of the connection itself.
    :param effect: ``transient``, a ``refusal``, or a ``malformed`` response.
    :param family: The row of the table.
    :param stalls: True if it ends by a timeout, which is short in its cells.
    :param may_last: False where another kind stands for its family in the cells of lasting faults.
    """

    name: str
    script: Mapping[str, Any] = field(default_factory=dict)
    network_fault: str | None = None
    effect: str = "transient"
    family: str = ""
    stalls: bool = False
    may_last: bool = True

    @property
    def phase(self) -> str:
        return str(self.script.get("phase", "before"))


@dataclass(frozen=True)
class Cell:
    """One Dag run with one fault. Its string is its name."""

    operation: Operation
    fault: FaultKind
    lasting: bool
    later: bool
    deferred: bool

    def __str__(self) -> str:
        how_long = "lasting" if self.lasting else "once"
        which = "later" if self.later else "first"
        return f"{self.operation.name} | {self.fault.name} | {how_long} | {which} | {self.mode}"

    @property
    def mode(self) -> str:
        return "deferred" if self.deferred else "sync"


SESSION = "/v1/sessions/*"
CLOSE = "/v1/sessions/*/close"
TOKEN = ("POST", "/identity/token")

OPERATIONS = (
    Operation("IAM", *TOKEN, "close hard", later_at="job", later_skip=1),
    Operation("create", "POST", "/v1/sessions", "watch"),
    Operation("get", "GET", SESSION, "watch", later_at="sensor", later_skip=1),
    Operation("patch", "PATCH", SESSION, "watch"),
    Operation("close", "DELETE", CLOSE, "close hard"),
    Operation("workloads", "GET", "/v1/workloads", "sweep", later_at="sweep", later_skip=1),
    Operation("submit job", "POST", "/v1/jobs", "close hard"),
    Operation("recover: workloads", "GET", "/v1/workloads", "close hard", create_response_lost=True),
    Operation("recover: get", "GET", SESSION, "close hard", create_response_lost=True),
    Operation("drain: patch", "PATCH", SESSION, "drain"),
    Operation("drain: late close", "DELETE", CLOSE, "drain too slow"),
    Operation("sweep: get", "GET", SESSION, "sweep", later_at="sweep", later_skip=1),
    Operation("sweep: close", "DELETE", CLOSE, "sweep"),
    Operation("run jobs: IAM", *TOKEN, "run jobs"),
    Operation("run jobs: create", "POST", "/v1/sessions", "run jobs"),
    Operation("run jobs: recover", "GET", "/v1/workloads", "run jobs", create_response_lost=True),
    Operation("run jobs: submit", "POST", "/v1/jobs", "run jobs", later_at="run", later_skip=1),
    Operation("run jobs: patch", "PATCH", SESSION, "run jobs"),
    Operation("run jobs: poll", "GET", "/v1/jobs", "run jobs", later_at="run", later_skip=1),
    Operation("run jobs: late close", "DELETE", CLOSE, "run jobs too slow"),
)


CONNECTION, TIMEOUT, REFUSAL = "connection", "drops and timeouts", "4xx"
TOO_MANY, SERVER_ERROR, MALFORMED = "429", "5xx", "malformed responses"


def _both(
    name: str, family: str, effect: str = "transient", *, may_last: bool = True, **script: Any
) -> list[FaultKind]:
    """Return a fault that shows before the work was done, and one that shows after it."""
    return [
        FaultKind(
            f"{name} {phase}",
            {**script, "phase": phase},
            effect=effect,
            family=family,
            stalls="delay" in script,
            may_last=may_last,
        )
        for phase in ("before", "after")
    ]


def _status(status: int, effect: str = "refusal") -> FaultKind:
    return FaultKind(f"{status}", {"status": status}, effect=effect, family=REFUSAL)


FAULTS = (
    FaultKind("connection refused", network_fault="refusing", family=CONNECTION),
    FaultKind("connect timeout", network_fault="silent", family=CONNECTION, stalls=True),
    FaultKind("DNS", network_fault="unknown", family=CONNECTION),
    FaultKind("TLS", network_fault="untrusted", effect="refusal", family=CONNECTION),
    *_both("drop", TIMEOUT, drop=True),
    *_both("read timeout", TIMEOUT, delay=HANG_SECONDS),
    FaultKind("slow drip", {"drip": 0.02, "drip_headers": True}, family=TIMEOUT, stalls=True),
    _status(400),
    _status(401, "transient"),
    *(_status(status) for status in (403, 404, 409, 423)),
    FaultKind("429", {"status": 429}, family=TOO_MANY),
    FaultKind("429 Retry-After", {"status": 429, "headers": {"Retry-After": "1"}}, family=TOO_MANY),
    *_both("503", SERVER_ERROR, status=503),
    *_both("500", SERVER_ERROR, may_last=False, status=500),
    *_both("502", SERVER_ERROR, may_last=False, status=502),
    *_both("504", SERVER_ERROR, may_last=False, status=504),
    *_both("520", SERVER_ERROR, may_last=False, status=520),
    *_both("HTML 200", MALFORMED, "malformed", html=True),
    *_both("truncated JSON", MALFORMED, truncate=True),
    FaultKind("cut short", {"truncate": "length", "phase": "after"}, family=MALFORMED),
    *_both("empty 200", MALFORMED, empty=True),
    *_both("204", MALFORMED, "malformed", no_content=True),
    *_both("50 MB", MALFORMED, "malformed", may_last=False, huge=50_000_000),
)
FAMILIES = tuple(dict.fromkeys(kind.family for kind in FAULTS))


def cells(only: str = "") -> Iterator[Cell]:
    """
    Yield all cells, or those whose name contains the text.

    A fault that lasts from a second run on is the same as one from a first run on, so "lasting" and "later"
    make a cell only where "later" is in the middle of a run.
    """
    for crossed in product(OPERATIONS, FAULTS, (False, True), (False, True), (False, True)):
        cell = Cell(*crossed)
        same = cell.lasting and (not cell.fault.may_last or (cell.later and not cell.operation.later_at))
        if only in str(cell) and not same:
            yield cell
