# SPDX-License-Identifier: Apache-2.0
"""The emulator, circuits included, on a clock that tests move."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.emulator.emulator import IDENTITY, Emulator
from airflow_provider_ibm_sessions.emulator.service.clock import Clock

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.emulator.service.records import JobRecord, Outcome, SessionRecord
    from airflow_provider_ibm_sessions.emulator.simulation.simulator import Simulator


class BlockingSimulator:
    """Computes a job before its submission is answered; the setting `job_seconds` is its running time."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._outcomes: dict[str, Outcome] = {}
        self._changed = threading.Condition()
        simulator.on_outcome = self._take

    def _take(self, job: JobRecord, outcome: Outcome) -> None:
        with self._changed:
            self._outcomes[job.id] = outcome
            self._changed.notify_all()

    def start(self, job: JobRecord) -> Outcome:
        self._simulator.start(job)
        with self._changed:
            self._changed.wait_for(lambda: job.id in self._outcomes)
        return replace(self._outcomes[job.id], seconds=None)

    def cancel(self, job: JobRecord) -> None:
        """Do nothing: the job is computed already."""

    def results(self, job: JobRecord) -> Any:
        return self._simulator.results(job)


class SteppedEmulator(Emulator):
    """An emulator whose clock stands still until a test moves it."""

    def __init__(self, simulator: Simulator) -> None:
        super().__init__(port=0, clock=Clock(frozen=True), runner=BlockingSimulator(simulator))
        self.api_key, self.crn, self.user_id = IDENTITY.api_key, IDENTITY.crn, IDENTITY.user_id

    @property
    def sessions(self) -> dict[str, SessionRecord]:
        self.service.catch_up()
        return dict(self.service.scheduler.sessions)

    @property
    def jobs(self) -> dict[str, JobRecord]:
        self.service.catch_up()
        return dict(self.service.scheduler.jobs)
