# SPDX-License-Identifier: Apache-2.0
"""Checks of a cell: its expectations, against the fake's recorded state and the tasks' outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_ibm_sessions.links import console_url
from testing.fake_ibm import FakeIBM

from .airflow_stub import TaskRecord
from .cells import Cell
from .expectations import (
    can_succeed,
    escapes_sweeps,
    is_denied,
    may_accept,
    may_be_open,
    must_succeed,
    time_limit,
)
from .scenarios import ScenarioRun

COLUMNS = (
    "lost",
    "left open",
    "duplicates",
    "run twice",
    "wrong result",
    "others'",
    "secrets",
    "too slow",
    "no fault",
)
"""All that can be wrong: a session accepts jobs without an owner, or is not closed; a session or a submission
more than needed; a job run twice; a task's outcome that is not what happened; another's session was changed;
a key or token in a log, an error or what Airflow stores; over the time limit; no request met the fault."""

NEVER = float("inf")


def snapshot(records: dict[str, Any]) -> dict[str, Any]:
    """Copy the service's records, which go on changing."""
    return {name: replace(record) for name, record in records.items()}


@dataclass(frozen=True)
class Existing:
    """Sessions that existed before the run: others', and one whose owner has finished."""

    others: list[str]
    orphan: str


@dataclass
class Observation:
    """
    A run that met a fault, and what came of it.

    :param own: The run's sessions, as they were when it ended.
    :param hits: How many requests met the fault.
    :param orphan_state: The orphan's state when the run ended.
    :param denied: True if IBM answers 404 for sessions that it lists.
    """

    run: ScenarioRun
    own: dict[str, Any]
    existing: Existing
    seconds: float
    hits: int
    orphan_state: str
    denied: bool
    recorded: dict[str, Any] = field(default_factory=dict)
    sessions: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, Any] = field(default_factory=dict)
    end_requests: dict[str, list[float]] = field(default_factory=dict)
    """Times at which each of the run's sessions was asked to drain or to close."""
    states_at_end: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    swept: dict[str, Any] = field(default_factory=dict)
    half_an_hour_later: dict[str, Any] = field(default_factory=dict)
    """The sessions after a sweep, and later: filled if any of the run's accepted jobs when it had ended."""
    log: str = ""

    def __post_init__(self) -> None:
        self.states_at_end = {name: session.state for name, session in self.own.items()}

    def conclude(self, ibm: FakeIBM, earlier: ScenarioRun | None, seconds: float) -> None:
        """Let the service go on for some seconds, then read its recorded state."""
        ibm.clock.advance(seconds)
        self.recorded, self.sessions, self.jobs = ibm.state(), snapshot(ibm.sessions), ibm.jobs
        requests = [*ibm.requests("PATCH"), *ibm.requests("DELETE")]
        self.end_requests = {name: [each.time for each in requests if name in each.path] for name in self.own}
        self.secrets = [ibm.api_key, *(token.value for token in ibm.tokens)]
        self.touched = [name for name in self.existing.others if not self.sessions[name].accepts_jobs]
        if not self.run.scenario.sweeps and not self.sessions[self.existing.orphan].accepts_jobs:
            self.touched.append(self.existing.orphan)
        if earlier and not earlier.dag_run.succeeded and earlier.scenario.completes:
            self.touched.append("the earlier run's: " + _summary(earlier))

    @property
    def tasks(self) -> dict[str, TaskRecord]:
        return self.run.tasks

    @property
    def accepting(self) -> list[str]:
        """Return the run's sessions that accepted jobs after the run had ended."""
        return [name for name in self.own if self.sessions[name].accepts_jobs]

    @property
    def known(self) -> list[str]:
        """Return the run's sessions, without those that IBM denies and whose id no task has seen."""
        seen = "".join(task.everything_stored() for task in self.tasks.values()) if self.denied else ""
        return [name for name in self.own if not self.denied or name in seen]

    def own_jobs(self) -> list[Any]:
        """Return the jobs in the run's sessions."""
        return [job for job in self.jobs.values() if job.session_id in self.own]


@dataclass(frozen=True)
class CellResult:
    """
    What the checks found in a cell.

    :param findings: Pairs of a column and a sentence; empty if the cell is clean.
    :param unreachable: Sessions that accepted jobs when the run had ended, with every way to them blocked.
    :param unknown: Those of them whose ids never arrived.
    """

    cell: Cell
    findings: list[tuple[str, str]]
    seconds: float
    sessions: int
    unreachable: int
    unknown: int
    tasks: str


def check_cell(cell: Cell, seen: Observation) -> CellResult:
    """Check everything in a cell."""
    findings = [
        *_check_sessions(cell, seen),
        *_check_remains(cell, seen),
        *_check_jobs(seen),
        *_check_outcomes(cell, seen),
        *_check_cell(cell, seen),
    ]
    unreachable = seen.accepting if may_accept(cell) else []
    unknown = [name for name in unreachable if seen.swept[name].accepts_jobs]
    return CellResult(
        cell, findings, seen.seconds, len(seen.own), len(unreachable), len(unknown), _summary(seen.run)
    )


# -- the findings -----------------------------------------------------------------------------------------

Findings = Iterator[tuple[str, str]]


def _check_sessions(cell: Cell, seen: Observation) -> Findings:
    for name in seen.known:
        session = seen.sessions[name]
        if session.accepts_jobs and not may_accept(cell):
            yield "lost", f"session {name} is {session.state} and accepts jobs"
        elif not session.final and not may_be_open(cell):
            yield "left open", f"session {name} is {session.state}"
        if not session.final and not _is_named(name, seen):
            yield "wrong result", f"session {name} is {session.state}, and no error names it or the console"
    if _overlap(seen):
        yield "duplicates", f"{len(seen.own)} sessions were opened, and some at the same time"
    for name in seen.touched:
        yield "others'", name
    swept = "sweep" in seen.tasks and seen.tasks["sweep"].succeeded
    if swept and seen.orphan_state != "closed" and not is_denied(cell):
        yield "wrong result", f"the sweep succeeded, but the orphaned session is {seen.orphan_state}"


def _check_remains(cell: Cell, seen: Observation) -> Findings:
    """Check that the next sweep closes what could not be reached, or IBM before it has cost anything."""
    for name in seen.accepting:
        session = seen.swept[name]
        if session.accepts_jobs and not escapes_sweeps(cell):
            yield "lost", f"session {name} is {session.state} after a sweep, and accepts jobs"
        if session.accepts_jobs and session.jobs:
            yield "lost", f"session {name} has a job, and no task knows its id"
        if not seen.half_an_hour_later[name].final:
            yield "lost", f"session {name} is open after half an hour without jobs"


def _overlap(seen: Observation) -> bool:
    """Return True if a session was opened before the previous one was asked to end, as a retry may do."""
    sessions = [seen.sessions[name] for name in seen.known]
    ends = [min([session.closed_at or NEVER, *seen.end_requests[session.id]]) for session in sessions]
    return any(end > later.created for end, later in zip(ends, sessions[1:], strict=False))


def _is_named(name: str, seen: Observation) -> bool:
    errors = [task.last_error for task in seen.tasks.values() if not task.succeeded]
    return any(console_url(name) in text or "console" in text for text in errors)


def _check_jobs(seen: Observation) -> Findings:
    for duplicate in seen.recorded["duplicate_submits"]:
        yield "duplicates", f"jobs {duplicate['jobs']}"
    for duplicate in seen.recorded["duplicates"]:
        yield "run twice", f"jobs {duplicate['jobs']}"


def _check_outcomes(cell: Cell, seen: Observation) -> Findings:
    run = seen.run.dag_run
    if must_succeed(cell) and not run.succeeded:
        yield "wrong result", f"failed, though the fault passed: {_errors(seen)}"
    for task_id, task in seen.tasks.items():
        yield from (("wrong result", f"{task_id}: {error}") for error in task.unexpected_errors)
        if task.succeeded and task_id in _TASK_CHECKS and (wrong := _TASK_CHECKS[task_id](task, seen)):
            yield "wrong result", f"{task_id} succeeded, but {wrong}"
    unfinished = [job.id for job in seen.own_jobs() if job.status != "Completed"]
    if run.succeeded and seen.run.scenario.completes and (unfinished or not seen.own_jobs()):
        yield "wrong result", f"the run succeeded, but jobs are not completed: {unfinished}"
    if run.succeeded and not can_succeed(cell):
        yield "wrong result", "the run succeeded with jobs that never ran"


def _check_created(task: TaskRecord, seen: Observation) -> str:
    return "" if task.result in seen.own else f"{task.result} is not its session"


def _check_submitted(task: TaskRecord, seen: Observation) -> str:
    job = seen.jobs.get(task.xcoms.get("job_id", ""))
    if job is None or job.session_id not in seen.own:
        return "there is no such job in its session"
    if seen.run.scenario.waits_for_job and task.result.get("state") != "Completed":
        return f"its result is {task.result}"
    return ""


def _check_closed(task: TaskRecord, seen: Observation) -> str:
    states = {seen.states_at_end[name] for name in seen.known}
    return "" if states == {"closed"} else f"its sessions are {states}"


def _check_ran(task: TaskRecord, seen: Observation) -> str:
    states = [report.get("state") for report in task.result]
    return _check_closed(task, seen) or ("" if states == ["Completed"] * 2 else f"its jobs are {states}")


_TASK_CHECKS = {
    "create": _check_created,
    "job": _check_submitted,
    "sensor": _check_closed,
    "close": _check_closed,
    "run": _check_ran,
}


def _check_cell(cell: Cell, seen: Observation) -> Findings:
    output = seen.log + "".join(task.everything_stored() for task in seen.tasks.values())
    if any(secret in output for secret in seen.secrets):
        yield "secrets", "the key or a token is in the log, an error or what Airflow stores"
    yield from (("secrets", leak) for leak in seen.recorded["leaks"])
    yield from (("wrong result", text) for text in (*seen.recorded["complaints"], *seen.recorded["bugs"]))
    if seen.seconds > time_limit(cell):
        yield "too slow", f"{seen.seconds:.1f} s of {time_limit(cell):.0f} s"
    if not seen.hits:
        yield "no fault", "no request met the fault"


def _errors(seen: Observation) -> str:
    return "; ".join(f"{name}: {task.last_error}" for name, task in seen.tasks.items() if not task.succeeded)


def _summary(run: ScenarioRun) -> str:
    return ", ".join(f"{name} {task.state} in {_tries(task.tries)}" for name, task in run.tasks.items())


def _tries(count: int) -> str:
    return "1 try" if count == 1 else f"{count} tries"
