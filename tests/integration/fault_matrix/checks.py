# SPDX-License-Identifier: Apache-2.0
"""What is wrong in a cell: the rules, held against the fake's books and what the tasks have told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_ibm_sessions.links import console_url
from testing.fake_ibm import FakeIBM

from .airflow_stub import Told
from .cells import Cell
from .expectations import (
    bound_of,
    can_succeed,
    escapes_sweeps,
    is_denied,
    may_accept,
    may_be_open,
    must_succeed,
)
from .scenarios import Played

COLUMNS = (
    "lost",
    "left open",
    "duplicates",
    "run twice",
    "wrong told",
    "others'",
    "secrets",
    "too slow",
    "no fault",
)
"""What can be wrong: a session takes jobs without an owner, or is not closed; a session or a submission more
than needed; a job run twice; an outcome told that is not so, or not told; another's session touched; key or
token in a log, an error or what Airflow stores; over the time bound; the fault never struck."""

FOR_EVER = float("inf")


def as_they_are(records: dict[str, Any]) -> dict[str, Any]:
    """The service's own records go on changing."""
    return {name: replace(record) for name, record in records.items()}


@dataclass(frozen=True)
class Planted:
    """Sessions that were there before the run: others', and one whose owner is gone."""

    others: list[str]
    orphan: str


@dataclass
class After:
    """What is there to be judged."""

    played: Played
    own: dict[str, Any]
    """The run's sessions, as they were when it ended."""
    planted: Planted
    seconds: float
    struck: int
    orphan_then: str
    """The orphan's state when the run ended."""
    denied: bool
    """Whether IBM says of sessions that it has listed that there are none."""
    books: dict[str, Any] = field(default_factory=dict)
    sessions: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, Any] = field(default_factory=dict)
    told_to_end: dict[str, list[float]] = field(default_factory=dict)
    """When each of the run's sessions was asked to drain or to close."""
    states_then: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    swept: dict[str, Any] = field(default_factory=dict)
    half_an_hour_later: dict[str, Any] = field(default_factory=dict)
    """The sessions after a sweep, and after that: where any of the run's took jobs when it was over."""
    log: str = ""

    def __post_init__(self) -> None:
        self.states_then = {name: session.state for name, session in self.own.items()}

    def conclude(self, ibm: FakeIBM, earlier: Played | None, seconds: float) -> None:
        """Let the service go on for some seconds, then read its books."""
        ibm.clock.advance(seconds)
        self.books, self.sessions, self.jobs = ibm.books(), as_they_are(ibm.sessions), ibm.jobs
        asked = [*ibm.requests("PATCH"), *ibm.requests("DELETE")]
        self.told_to_end = {name: [each.time for each in asked if name in each.path] for name in self.own}
        self.secrets = [ibm.api_key, *(token.value for token in ibm.tokens)]
        self.touched = [name for name in self.planted.others if not self.sessions[name].accepts_jobs]
        if not self.played.story.sweeps and not self.sessions[self.planted.orphan].accepts_jobs:
            self.touched.append(self.planted.orphan)
        if earlier and not earlier.dag_run.succeeded and earlier.story.completes:
            self.touched.append("the earlier run's: " + _summary(earlier))

    @property
    def tasks(self) -> dict[str, Told]:
        return self.played.tasks

    @property
    def get_if_accepting_jobs(self) -> list[str]:
        """Those of the run's sessions that took jobs when the run was over, and had settled."""
        return [name for name in self.own if self.sessions[name].accepts_jobs]

    @property
    def known(self) -> list[str]:
        """The run's sessions, without those that IBM denies and no task has heard of."""
        heard = "".join(told.traces() for told in self.tasks.values()) if self.denied else ""
        return [name for name in self.own if not self.denied or name in heard]

    def own_jobs(self) -> list[Any]:
        return [job for job in self.jobs.values() if job.session_id in self.own]


@dataclass(frozen=True)
class Verdict:
    cell: Cell
    findings: list[tuple[str, str]]
    seconds: float
    sessions: int
    out_of_reach: int
    """Sessions that took jobs when the run was over, every way to them being barred for ever."""
    unknown: int
    """Those of them whose names nobody has learnt."""
    told: str


def judge(cell: Cell, after: After) -> Verdict:
    findings = [
        *_of_sessions(cell, after),
        *_of_remains(cell, after),
        *_of_jobs(after),
        *_of_telling(cell, after),
        *_of_cell(cell, after),
    ]
    barred = after.get_if_accepting_jobs if may_accept(cell) else []
    unknown = [name for name in barred if after.swept[name].accepts_jobs]
    told = _summary(after.played)
    return Verdict(cell, findings, after.seconds, len(after.own), len(barred), len(unknown), told)


# -- the findings -----------------------------------------------------------------------------------------

Findings = Iterator[tuple[str, str]]


def _of_sessions(cell: Cell, after: After) -> Findings:
    for name in after.known:
        session = after.sessions[name]
        if session.accepts_jobs and not may_accept(cell):
            yield "lost", f"session {name} is {session.state} and takes jobs"
        elif not session.final and not may_be_open(cell):
            yield "left open", f"session {name} is {session.state}"
        if not session.final and not _is_named(name, after):
            yield "wrong told", f"session {name} is {session.state}, and no error names it or the console"
    if _overlap(after):
        yield "duplicates", f"{len(after.own)} sessions were opened, and some at the same time"
    for name in after.touched:
        yield "others'", name
    if _has_swept(after) and after.orphan_then != "closed" and not is_denied(cell):
        yield "wrong told", f"sweep: success, but the session without an owner is {after.orphan_then}"


def _has_swept(after: After) -> bool:
    return "sweep" in after.tasks and after.tasks["sweep"].succeeded


def _of_remains(cell: Cell, after: After) -> Findings:
    """What was out of reach is closed by the next sweep, or by IBM before it has cost anything."""
    for name, session in ((name, after.swept[name]) for name in after.get_if_accepting_jobs):
        if session.accepts_jobs and not escapes_sweeps(cell):
            yield "lost", f"session {name} is {session.state} after a sweep, and takes jobs"
        if session.accepts_jobs and session.jobs:
            yield "lost", f"session {name} has a job, and nobody knows of it"
        if not after.half_an_hour_later[name].final:
            yield "lost", f"session {name} is open after half an hour without jobs"


def _overlap(after: After) -> bool:
    """Was one opened before the one before it was told to end? (A retry opens another in place of that.)"""
    sessions = [after.sessions[name] for name in after.known]
    ends = [min([session.closed_at or FOR_EVER, *after.told_to_end[session.id]]) for session in sessions]
    return any(end > later.created for end, later in zip(ends, sessions[1:], strict=False))


def _is_named(name: str, after: After) -> bool:
    errors = [told.last_error for told in after.tasks.values() if not told.succeeded]
    return any(console_url(name) in text or "console" in text for text in errors)


def _of_jobs(after: After) -> Findings:
    for double in after.books["duplicate_submits"]:
        yield "duplicates", f"jobs {double['jobs']}"
    for double in after.books["duplicates"]:
        yield "run twice", f"jobs {double['jobs']}"


def _of_telling(cell: Cell, after: After) -> Findings:
    run = after.played.dag_run
    if must_succeed(cell) and not run.succeeded:
        yield "wrong told", f"failed, though the fault passed: {_errors(after)}"
    for task_id, told in after.tasks.items():
        yield from (("wrong told", f"{task_id}: {error}") for error in told.raw_errors)
        if told.succeeded and (lie := _CHECKS.get(task_id, _nothing)(told, after)):
            yield "wrong told", f"{task_id}: success, but {lie}"
    unfinished = [job.id for job in after.own_jobs() if job.status != "Completed"]
    if run.succeeded and after.played.story.completes and (unfinished or not after.own_jobs()):
        yield "wrong told", f"success, but jobs not completed: {unfinished}"
    if run.succeeded and not can_succeed(cell):
        yield "wrong told", "success of jobs that never ran"


def _nothing(told: Told, after: After) -> str:
    return ""


def _created(told: Told, after: After) -> str:
    return "" if told.result in after.own else f"{told.result} is not its session"


def _submitted(told: Told, after: After) -> str:
    job = after.jobs.get(told.xcoms.get("job_id", ""))
    if job is None or job.session_id not in after.own:
        return "there is no such job in its session"
    if after.played.story.waits_for_job and told.result.get("state") != "Completed":
        return f"its result is {told.result}"
    return ""


def _closed(told: Told, after: After) -> str:
    states = {after.states_then[name] for name in after.known}
    return "" if states == {"closed"} else f"its sessions are {states}"


def _ran(told: Told, after: After) -> str:
    states = [report.get("state") for report in told.result]
    return _closed(told, after) or ("" if states == ["Completed"] * 2 else f"its jobs are {states}")


_CHECKS = {
    "create": _created,
    "job": _submitted,
    "sensor": _closed,
    "close": _closed,
    "run": _ran,
}


def _of_cell(cell: Cell, after: After) -> Findings:
    written = after.log + "".join(told.traces() for told in after.tasks.values())
    if any(secret in written for secret in after.secrets):
        yield "secrets", "the key or a token stands in the log, an error or what Airflow stores"
    for trouble in (*after.books["leaks"], *after.books["complaints"], *after.books["bugs"]):
        yield "secrets" if trouble in after.books["leaks"] else "wrong told", trouble
    if after.seconds > bound_of(cell):
        yield "too slow", f"{after.seconds:.1f} s of {bound_of(cell):.0f} s"
    if not after.struck:
        yield "no fault", "the fault never struck"


def _errors(after: After) -> str:
    return "; ".join(f"{name}: {told.last_error}" for name, told in after.tasks.items() if not told.succeeded)


def _summary(played: Played) -> str:
    return ", ".join(f"{name} {told.state} in {told.tries}" for name, told in played.tasks.items())
