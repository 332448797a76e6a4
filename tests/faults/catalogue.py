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
    let pass; without it, it hits the operation's first call in a second run of the Dag.
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
    Operation("IAM", *TOKEN, "close hard", later_at="close"),
    Operation("create", "POST", "/v1/sessions", "watch"),
    Operation("get", "GET", SESSION, "watch", later_at="sensor", later_skip=1),
    Operation("patch", "PATCH", SESSION, "watch"),
    Operation("close", "DELETE", CLOSE, "close hard"),
    Operation("workloads", "GET", "/v1/workloads", "watch", later_at="list", later_skip=1),
    Operation("submit job", "POST", "/v1/jobs", "close hard"),
    Operation("adopt: workloads", "GET", "/v1/workloads", "close hard", create_is_lost=True),
    Operation("adopt: get", "GET", SESSION, "close hard", create_is_lost=True),
    Operation("drain: patch", "PATCH", SESSION, "drain"),
    Operation("drain: late close", "DELETE", CLOSE, "drain too slow"),
    Operation("run jobs: IAM", *TOKEN, "run jobs"),
    Operation("run jobs: create", "POST", "/v1/sessions", "run jobs"),
    Operation("run jobs: adopt", "GET", "/v1/workloads", "run jobs", create_is_lost=True),
    Operation("run jobs: submit", "POST", "/v1/jobs", "run jobs", later_at="run", later_skip=1),
    Operation("run jobs: patch", "PATCH", SESSION, "run jobs"),
    Operation("run jobs: poll", "GET", "/v1/jobs", "run jobs", later_at="run", later_skip=1),
    Operation("run jobs: late close", "DELETE", CLOSE, "run jobs too slow"),
)


def _both(name: str, verdict: str = "passing", *, may_last: bool = True, **script: Any) -> list[Kind]:
    """A fault that shows before the work was done, and one that shows after it."""
    stalls = "delay" in script
    return [
        Kind(f"{name} {phase}", {**script, "phase": phase}, None, verdict, stalls, may_last)
        for phase in ("before", "after")
    ]


FAULTS = (
    Kind("connection refused", detour="refused"),
    Kind("connect timeout", detour="silent", stalls=True),
    Kind("DNS", detour="nameless"),
    Kind("TLS", detour="untrusted", verdict="refusal"),
    *_both("drop", drop=True),
    *_both("read timeout", delay=HANGS),
    Kind("400", {"status": 400}, verdict="refusal"),
    Kind("401", {"status": 401}),
    *(Kind(f"{status}", {"status": status}, verdict="refusal") for status in (403, 404, 409, 423)),
    Kind("429", {"status": 429}),
    Kind("429 Retry-After", {"status": 429, "headers": {"Retry-After": "1"}}),
    *_both("503", status=503),
    *(kind for status in (500, 502, 504, 520) for kind in _both(f"{status}", may_last=False, status=status)),
    *_both("HTML 200", "nonsense", html=True),
    *_both("truncated JSON", truncate=True),
    Kind("cut short", {"truncate": "length", "phase": "after"}),
    *_both("empty 200", empty=True),
    *_both("204", "nonsense", no_content=True),
    *_both("50 MB", "nonsense", may_last=False, huge=50_000_000),
    Kind("slow drip", {"drip": 0.02, "drip_headers": True}, stalls=True),
)


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
