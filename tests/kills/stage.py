# SPDX-License-Identifier: Apache-2.0
"""Plays one scenario: brings its moment about, strikes, and reads the books of its fake IBM."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fake_ibm import FakeIBM
from tests.kills.components import Components
from tests.kills.scenario import Blow, Scenario

MOMENT_SECONDS, POLL_SECONDS = 180.0, 1.0


@dataclass
class Verdict:
    """How a scenario has ended. ``trouble`` is empty if all is clean."""

    scenario: Scenario
    run: str = "not begun"
    took: float = 0.0
    sessions: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)


class Stage:
    """One scenario, on a fake IBM of its own."""

    def __init__(self, number: int, scenario: Scenario, home: Path) -> None:
        self.scenario = scenario
        self.connection = f"ibm_{number}"
        self.mark = home / f"mark-{number}"
        self.ibm = FakeIBM(**scenario.ibm)
        self._struck = 0.0
        self._run_id = ""

    @property
    def secret(self) -> str:
        """The Airflow connection to the fake."""
        ibm = self.ibm
        fields = {"conn_type": "ibm_quantum", "host": ibm.url, "password": ibm.api_key}
        return json.dumps({**fields, "extra": {"crn": ibm.crn, "iam_url": ibm.iam_url}})

    def prepare(self, parts: Components) -> None:
        """Start the run, and return when it has come to the moment."""
        scenario = self.scenario
        self.parts, self._airflow = parts, parts.airflow
        if scenario.moment.fault:
            self.ibm.script(scenario.moment.fault)
        conf = {
            "connection": self.connection,
            "mark": str(self.mark),
            "task": scenario.task,
            "max_ttl": scenario.max_ttl,
            **({"hold": scenario.moment.hold} if scenario.moment.hold else {}),
        }
        with parts.starts.turn():
            self._run_id = parts.trigger(scenario.dag, conf)
        deadline = time.monotonic() + MOMENT_SECONDS
        while not self._is_there():
            if time.monotonic() > deadline or self._state() in ("success", "failed"):
                raise TimeoutError(f"the moment never came; the run: {self._state()}")
            time.sleep(POLL_SECONDS)

    def strike(self) -> None:
        """Do to it what the scenario says, after what hits all."""
        scenario, place = self.scenario, (self.scenario.dag, self._run_id)
        match scenario.blow:
            case Blow.WORKER:
                self.parts.kill_worker(self._task()["id"])
            case Blow.TASK:
                self.parts.kill_task(self._task()["id"])
            case Blow.FAILED | Blow.TRIGGERER_THEN_FAILED:
                self.parts.mark_failed(*place, scenario.task)
            case Blow.RUN_FAILED:
                self.parts.mark_run_failed(*place)
            case Blow.CLEAR:
                self.parts.clear(*place, scenario.task)

    def struck(self) -> None:
        """The time counts from here, and IBM answers again."""
        self._struck = time.monotonic()
        self.ibm.clear_faults()

    def finish(self) -> Verdict:
        """Wait until all is clean, or the bound is over."""
        while True:
            took = time.monotonic() - self._struck
            verdict = self._look(took)
            if not verdict.trouble or took > self.scenario.bound:
                return verdict
            time.sleep(POLL_SECONDS)

    def failed(self, error: Exception) -> Verdict:
        """The verdict where the test itself went wrong."""
        return Verdict(self.scenario, trouble=[f"{type(error).__name__}: {error}"])

    # -- the moment ----------------------------------------------------------------------------------

    def _is_there(self) -> bool:
        moment = self.scenario.moment
        if moment.fault:
            return any(entry.fault for entry in list(self.ibm.journal))
        if moment.hold:
            return self.mark.exists()
        running = sum(job.status == "Running" for job in self.ibm.jobs.values())
        if running < moment.jobs_running:
            return False
        task = self._task()
        if moment.deferred:
            return task["state"] == "deferred" and self._is_polled()
        return task["state"] == "running" and self._is_polled()

    def _is_polled(self) -> bool:
        """Whether somebody looks at what it waits for: twice, as a look may be part of the beginning."""
        seen = len(self.ibm.journal)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            time.sleep(0.2)
            if sum(entry.method == "GET" for entry in list(self.ibm.journal)[seen:]) >= 2:
                return True
        return False

    def _task(self) -> dict[str, Any]:
        tasks = self._airflow.tasks(self.scenario.dag, self._run_id)
        return dict(tasks[self.scenario.task])

    def _state(self) -> str:
        run = self._airflow.get(f"/dags/{self.scenario.dag}/dagRuns/{self._run_id}")
        return str(run["state"])

    # -- the books -----------------------------------------------------------------------------------

    def _look(self, took: float) -> Verdict:
        scenario, books = self.scenario, self.ibm.books()
        run = self._state()
        verdict = Verdict(scenario, run, took, books["sessions"], books["jobs"])
        if run != scenario.run:
            verdict.trouble.append(f"run {run}, not {scenario.run}")
        if took > scenario.bound:
            verdict.trouble.append(f"not within {scenario.bound:g} s")
        if books["sessions"] != {"closed": scenario.sessions}:
            verdict.trouble.append(f"sessions {books['sessions']}, {len(books['accepting'])} accepting")
        if books["jobs"] != dict(scenario.jobs):
            verdict.trouble.append(f"jobs {books['jobs']}, not {dict(scenario.jobs)}")
        verdict.trouble += self._twice(books)
        verdict.trouble += [
            f"{name}: {books[name]}" for name in ("leaks", "complaints", "bugs") if books[name]
        ]
        return verdict

    def _twice(self, books: dict[str, Any]) -> list[str]:
        if not self.scenario.again:
            return _told_of(books, "duplicates", "duplicate_submits")
        ended = [job for job in self.ibm.jobs.values() if job.status != "Cancelled"]
        several = Counter(str(sorted(job.tags)) for job in ended if "first" not in job.tags)
        return [f"run twice: {tags}" for tags, count in several.items() if count > 1]

    def notes(self) -> str:
        """What IBM has seen, for people who look for the fault."""
        requests = [
            f"{entry.time - self.ibm.journal[0].time:7.1f}  {entry.method:6} {entry.path} {entry.status}"
            f"{f'  <{entry.fault}>' if entry.fault else ''}"
            for entry in list(self.ibm.journal)
        ]
        books = json.dumps(self.ibm.books(), indent=1)
        return "\n".join([f"{self.scenario.name} ({self.scenario.blow})", *requests, books])


def _told_of(books: dict[str, Any], *names: str) -> list[str]:
    """Those of these that are not empty; which they are is in the log of the scenario."""
    return [f"{name}: {len(books[name])}" for name in names if books[name]]
