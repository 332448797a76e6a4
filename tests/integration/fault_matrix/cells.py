# SPDX-License-Identifier: Apache-2.0
"""What is crossed with what: operations, faults, and the cells that they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

HANGS = 60.0
"""Seconds after which a reply comes for which nobody waits any more."""


@dataclass(frozen=True)
class Operation:
    """What a fault hits, and the Dag run in which it does.

    ``later_at`` names the task before which the fault of a "later" cell is armed, with ``later_skip`` calls
    let pass; without it, it hits the operation's first call in a second run of the Dag. (The second token
    from the job's task on is the triggerer's, or in a worker that of closing.)
    """

    name: str
    method: str
    path: str
    story: str
    later_at: str | None = None
    later_skip: int = 0
    create_is_lost: bool = False
    """The reply to create is lost as well, so that this operation is needed to find the session."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault: scripted in the fake, or a detour of the connection."""

    name: str
    script: Mapping[str, Any] = field(default_factory=dict)
    detour: str | None = None
    verdict: str = "passing"
    """What it is to the request: ``passing`` trouble, a ``refusal``, or ``nonsense`` for a reply."""
    family: str = ""
    """The row of the table."""
    stalls: bool = False
    """It ends by a timeout, which is short in its cells."""
    may_last: bool = True
    """False where another kind stands for its family in the cells of faults that last."""

    @property
    def phase(self) -> str:
        return str(self.script.get("phase", "before"))


@dataclass(frozen=True)
class Cell:
    operation: Operation
    fault: Kind
    lasting: bool
    later: bool
    deferred: bool

    def __str__(self) -> str:
        how_long = "for ever" if self.lasting else "once"
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
    Operation("adopt: workloads", "GET", "/v1/workloads", "close hard", create_is_lost=True),
    Operation("adopt: get", "GET", SESSION, "close hard", create_is_lost=True),
    Operation("drain: patch", "PATCH", SESSION, "drain"),
    Operation("drain: late close", "DELETE", CLOSE, "drain too slow"),
    Operation("sweep: get", "GET", SESSION, "sweep", later_at="sweep", later_skip=1),
    Operation("sweep: close", "DELETE", CLOSE, "sweep"),
    Operation("run jobs: IAM", *TOKEN, "run jobs"),
    Operation("run jobs: create", "POST", "/v1/sessions", "run jobs"),
    Operation("run jobs: adopt", "GET", "/v1/workloads", "run jobs", create_is_lost=True),
    Operation("run jobs: submit", "POST", "/v1/jobs", "run jobs", later_at="run", later_skip=1),
    Operation("run jobs: patch", "PATCH", SESSION, "run jobs"),
    Operation("run jobs: poll", "GET", "/v1/jobs", "run jobs", later_at="run", later_skip=1),
    Operation("run jobs: late close", "DELETE", CLOSE, "run jobs too slow"),
)


CONNECTION, SILENCE, REFUSAL = "connection", "drops and timeouts", "4xx"
TOO_MANY, FAILURE, BROKEN = "429", "5xx", "broken replies"


def _both(
    name: str, family: str, verdict: str = "passing", *, may_last: bool = True, **script: Any
) -> list[Kind]:
    """A fault that shows before the work was done, and one that shows after it."""
    return [
        Kind(
            f"{name} {phase}",
            {**script, "phase": phase},
            verdict=verdict,
            family=family,
            stalls="delay" in script,
            may_last=may_last,
        )
        for phase in ("before", "after")
    ]


def _status(status: int, verdict: str = "refusal") -> Kind:
    return Kind(f"{status}", {"status": status}, verdict=verdict, family=REFUSAL)


FAULTS = (
    Kind("connection refused", detour="refused", family=CONNECTION),
    Kind("connect timeout", detour="silent", family=CONNECTION, stalls=True),
    Kind("DNS", detour="nameless", family=CONNECTION),
    Kind("TLS", detour="untrusted", verdict="refusal", family=CONNECTION),
    *_both("drop", SILENCE, drop=True),
    *_both("read timeout", SILENCE, delay=HANGS),
    Kind("slow drip", {"drip": 0.02, "drip_headers": True}, family=SILENCE, stalls=True),
    _status(400),
    _status(401, "passing"),
    *(_status(status) for status in (403, 404, 409, 423)),
    Kind("429", {"status": 429}, family=TOO_MANY),
    Kind("429 Retry-After", {"status": 429, "headers": {"Retry-After": "1"}}, family=TOO_MANY),
    *_both("503", FAILURE, status=503),
    *_both("500", FAILURE, may_last=False, status=500),
    *_both("502", FAILURE, may_last=False, status=502),
    *_both("504", FAILURE, may_last=False, status=504),
    *_both("520", FAILURE, may_last=False, status=520),
    *_both("HTML 200", BROKEN, "nonsense", html=True),
    *_both("truncated JSON", BROKEN, truncate=True),
    Kind("cut short", {"truncate": "length", "phase": "after"}, family=BROKEN),
    *_both("empty 200", BROKEN, empty=True),
    *_both("204", BROKEN, "nonsense", no_content=True),
    *_both("50 MB", BROKEN, "nonsense", may_last=False, huge=50_000_000),
)
FAMILIES = tuple(dict.fromkeys(kind.family for kind in FAULTS))


def cells(only: str = "") -> Iterator[Cell]:
    """
    All cells, or those whose name holds this text.

    A fault that lasts from a second run on is the same as one from a first run on: only where "later" is in
    the middle of a run, it is another cell.
    """
    for crossed in product(OPERATIONS, FAULTS, (False, True), (False, True), (False, True)):
        cell = Cell(*crossed)
        same = cell.lasting and (not cell.fault.may_last or (cell.later and not cell.operation.later_at))
        if only in str(cell) and not same:
            yield cell
