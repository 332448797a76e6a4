# SPDX-License-Identifier: Apache-2.0
"""The parts of a scenario: a moment, a failure, and the state that must be reached within a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from testing.fake_ibm import Fault
from tests.integration.process_kills.breakpoints import END

HOLD_SECONDS = 600.0
"""Longer than any scenario: a request that is held is never answered."""


class Failure(StrEnum):
    """A process that is killed, or an action of a user."""

    WORKER = "worker"
    TASK = "task's process"
    TRIGGERER = "triggerer"
    TRIGGERER_THEN_FAILED = "triggerer, then user: mark failed"
    SCHEDULER = "scheduler"
    MACHINE = "scheduler, workers, triggerer"
    FAILED = "user: mark failed"
    RUN_FAILED = "user: mark run failed"
    CLEAR = "user: clear"
    TIME = "dagrun_timeout"


@dataclass(frozen=True)
class Moment:
    """The time of the failure: while IBM holds a request, the task holds at a point, or the task waits."""

    description: str
    fault: Fault | None = None
    hold: str | None = None
    deferred: bool = False
    jobs_running: int = 0


def request(
    method: str, path: str, phase: Literal["before", "after"], description: str, skip: int = 0
) -> Moment:
    """Return the moment when IBM holds a request, before the work is done or after."""
    return Moment(description, fault=Fault(method, path, phase=phase, skip=skip, delay=HOLD_SECONDS))


def responded(point: str, description: str) -> Moment:
    """Return the moment when the task has the response to "METHOD /path", and has done nothing more."""
    return Moment(description, hold=point)


def at_end() -> Moment:
    """Return the moment when the operator is done, and Airflow does not know it."""
    return Moment("all done, not reported", hold=END)


def waiting(jobs_running: int, description: str = "waits in the worker") -> Moment:
    """Return the moment when the task waits in its worker while so many jobs run."""
    return Moment(description, jobs_running=jobs_running)


def deferred(jobs_running: int) -> Moment:
    """Return the moment when the task is deferred, its trigger polls, and so many jobs run."""
    return Moment("deferred", deferred=True, jobs_running=jobs_running)


@dataclass(frozen=True)
class Scenario:
    """
    One run of a Dag, on a fake IBM of its own.

    :param time_limit: Seconds from the failure until all is clean and the run has ended as it should.
    :param run: The Dag run's final state.
    :param jobs: How many jobs end in which state.
    :param or_jobs: The same, where Airflow decides which of two good outcomes comes about.
    :param sessions: How many sessions there are in the end, all closed.
    :param job_seconds: How long jobs run. For those that run when the failure happens, it counts from there.
    :param max_ttl: Of the decorated function's session.
    """

    operation: str
    moment: Moment
    failure: Failure
    dag: str
    task: str
    time_limit: float
    run: Literal["success", "failed"]
    jobs: Mapping[str, int]
    sessions: int = 1
    job_seconds: float = 1.0
    max_ttl: int = 600
    or_jobs: Mapping[str, int] | None = None

    @property
    def name(self) -> str:
        """Return the operation and the moment."""
        return f"{self.operation}: {self.moment.description}"

    def __str__(self) -> str:
        return f"{self.name} ({self.failure})"
