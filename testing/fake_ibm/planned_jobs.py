# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.emulator.service.records import JobRecord, Outcome

from .random_results import random_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class PlannedJobs:
    """Jobs whose outcomes are given in advance, else completed, with results made from their parameters."""

    def __init__(self) -> None:
        self.outcomes: deque[Outcome] = deque()

    def plan(self, outcomes: Iterable[Outcome | Mapping[str, Any]]) -> None:
        """Plan the outcomes of the next jobs, in the order of their submission."""
        self.outcomes.extend(Outcome.of(each) for each in outcomes)

    def start(self, job: JobRecord) -> Outcome:
        """Return the next planned outcome."""
        return self.outcomes.popleft() if self.outcomes else Outcome()

    def cancel(self, job: JobRecord) -> None:
        """Do nothing: no job is computed."""

    def results(self, job: JobRecord) -> Any:
        """Return the planned results, else random ones."""
        planned = job.outcome.results if job.outcome else None
        return random_results(job) if planned is None else planned
