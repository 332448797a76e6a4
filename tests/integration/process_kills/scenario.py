# SPDX-License-Identifier: Apache-2.0
"""What a scenario is made of: a moment, a blow, and what must be so within a bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from testing.fake_ibm import Fault
from tests.integration.process_kills.breakpoints import END

HOLD_SECONDS = 600.0
"""Longer than any scenario: a request that is held is never answered."""


class Blow(StrEnum):
    """What is killed, or what a user does."""

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
    """When the blow falls. One of: IBM keeps a request waiting, the task holds itself, or it waits."""

    words: str
    fault: Fault | None = None
    hold: str | None = None
    deferred: bool = False
    jobs_running: int = 0


def request(method: str, path: str, phase: Literal["before", "after"], words: str, skip: int = 0) -> Moment:
    """IBM has the request, and has done the work ("after") or not; the reply never comes."""
    return Moment(words, fault=Fault(method, path, phase=phase, skip=skip, delay=HOLD_SECONDS))


def replied(point: str, words: str) -> Moment:
    """The task has the reply to "METHOD /path", and nothing more has happened."""
    return Moment(words, hold=point)


def at_end() -> Moment:
    """The operator is done; Airflow does not know it."""
    return Moment("all done, not told", hold=END)


def waiting(jobs_running: int, words: str = "waits in the worker") -> Moment:
    """The task waits in its worker while so many jobs run."""
    return Moment(words, jobs_running=jobs_running)


def deferred(jobs_running: int) -> Moment:
    """The task is deferred, its trigger polls, and so many jobs run."""
    return Moment("deferred", deferred=True, jobs_running=jobs_running)


@dataclass(frozen=True)
class Scenario:
    """
    One run of a Dag, on a fake IBM of its own.

    :param bound: Seconds from the blow until all is clean and the run has ended as it should.
    :param run: The Dag run's end.
    :param jobs: How many jobs end in which state.
    :param or_jobs: The same, where it is Airflow that decides between two good ends.
    :param sessions: How many sessions there are in the end, all closed.
    :param job_seconds: How long jobs run. Those that run when the blow falls: from there on, however long it
        was in coming.
    :param max_ttl: Of the decorated function's session.
    """

    what: str
    moment: Moment
    blow: Blow
    dag: str
    task: str
    bound: float
    run: Literal["success", "failed"]
    jobs: Mapping[str, int]
    sessions: int = 1
    job_seconds: float = 1.0
    max_ttl: int = 600
    or_jobs: Mapping[str, int] | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.what}: {self.moment.words}"

    def __str__(self) -> str:
        return f"{self.name} ({self.blow})"
