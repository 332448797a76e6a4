# SPDX-License-Identifier: Apache-2.0
"""Plays one scenario: brings its moment about, strikes, and reads the books of its fake IBM."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from testing.fake_ibm import FakeIBM, Outcome
from tests.integration.process_kills.components import Components
from tests.integration.process_kills.scenario import Blow, Scenario

MOMENT_SECONDS, POLL_SECONDS, LOOK_SECONDS = 180.0, 1.0, 2.0
PATIENCE_SECONDS = 300.0
"""How long a task waits for a reply: until the blow falls."""
FOR_EVER = 3600.0


@dataclass
class Verdict:
    """How a scenario has ended. ``trouble`` is empty if all is clean."""

    scenario: Scenario
    run: str = ""
    took: float = 0.0
    sessions: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    """Sessions that are not closed."""
    twice: int = 0
    """Jobs that were submitted more than once."""
    trouble: list[str] = field(default_factory=list)


class Stage:
    """One scenario, on a fake IBM of its own."""

    def __init__(self, number: int, scenario: Scenario, home: Path) -> None:
        self.number = number
        self.scenario = scenario
        self.name = f"ibm-{number}"
        self.mark = home / f"mark-{number}"
        self.ibm = FakeIBM(job_seconds=FOR_EVER if scenario.moment.jobs_running else scenario.job_seconds)
        self._struck = 0.0
        self._run_id = ""

    @property
    def connection(self) -> dict[str, str]:
        """The Airflow connection to the fake."""
        ibm = self.ibm
        extra = {"crn": ibm.crn, "iam_url": ibm.iam_url, "timeout": PATIENCE_SECONDS}
        return {
            "connection_id": self.name,
            "conn_type": "ibm_quantum",
            "host": ibm.url,
            "password": ibm.api_key,
            "extra": json.dumps(extra),
        }

    def prepare(self, parts: Components) -> None:
        """Start the run, and return when it has come to the moment."""
        scenario = self.scenario
        self.parts, self._airflow = parts, parts.airflow
        if scenario.moment.fault:
            self.ibm.script(scenario.moment.fault)
        conf = {
            "connection": self.name,
            "mark": str(self.mark),
            "task": scenario.task,
            "max_ttl": scenario.max_ttl,
            "hold": scenario.moment.hold,
        }
        with parts.starts.turn():
            self._run_id = parts.trigger(scenario.dag, conf)
        deadline = time.monotonic() + MOMENT_SECONDS
        while not self._is_there():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the moment never came; the run: {self._state()}")
            self.parts.pause(POLL_SECONDS)

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
            case Blow.TIME:
                pass  # it is over soon

    def struck(self) -> None:
        """The time counts from here, IBM answers again, and its jobs come to their ends."""
        self._struck = time.monotonic()
        self.ibm.clear_faults()
        self._let_jobs_end(self.scenario.job_seconds)

    def finish(self) -> Verdict:
        """Wait until all is clean, or the bound is over."""
        while True:
            verdict = self._look(time.monotonic() - self._struck)
            if not verdict.trouble or verdict.took > self.scenario.bound:
                return verdict
            self.parts.pause(LOOK_SECONDS)

    def failed(self, error: BaseException) -> Verdict:
        """The verdict where the test itself went wrong."""
        verdict = self._look(0.0)
        verdict.trouble = [f"{type(error).__name__}: {error}"]
        return verdict

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
            self.parts.pause(0.2)
            if sum(entry.method == "GET" for entry in list(self.ibm.journal)[seen:]) >= 2:
                return True
        return False

    def _task(self) -> dict[str, Any]:
        tasks = self._airflow.tasks(self.scenario.dag, self._run_id)
        return dict(tasks[self.scenario.task])

    def _state(self) -> str:
        if not self._run_id:
            return "not begun"
        run = self._airflow.get(f"/dags/{self.scenario.dag}/dagRuns/{self._run_id}")
        return str(run["state"])

    # -- the books -----------------------------------------------------------------------------------

    def _let_jobs_end(self, seconds: float) -> None:
        service = self.ibm.service
        with service.lock:
            when = self.ibm.clock.now() + seconds
            for job in service.scheduler.jobs.values():
                if job.status == "Running":
                    end = partial(service.scheduler.finish, job, outcome=Outcome())
                    service.events.schedule(when, end)

    def look_again(self, verdict: Verdict) -> None:
        """When Airflow has stopped: what somebody who was thought dead has done since is not clean either."""
        if not verdict.trouble:
            self._read_books(verdict)
            verdict.trouble = [f"afterwards: {words}" for words in verdict.trouble]

    def _read_books(self, verdict: Verdict) -> None:
        books = self.ibm.books()
        verdict.sessions, verdict.jobs = books["sessions"], books["jobs"]
        verdict.lost = sum(count for state, count in verdict.sessions.items() if state != "closed")
        verdict.twice = len(books["duplicate_submits"])
        verdict.trouble = [words for is_so, words in _troubles(verdict, books) if is_so]

    def _look(self, took: float) -> Verdict:
        verdict = Verdict(self.scenario, took=took)
        self._read_books(verdict)
        if not verdict.trouble or took > self.scenario.bound:  # else Airflow has enough to do
            verdict.run = self._state()
            if verdict.run != self.scenario.run:
                verdict.trouble.append(f"run {verdict.run}, not {self.scenario.run}")
        return verdict

    def notes(self) -> str:
        """What IBM has seen, for people who look for the fault."""
        requests = [
            f"{entry.time - self.ibm.journal[0].time:7.1f}  {entry.method:6} {entry.path} {entry.status}"
            f"{f'  <{entry.fault}>' if entry.fault else ''}"
            for entry in list(self.ibm.journal)
        ]
        books = json.dumps(self.ibm.books(), indent=1)
        return "\n".join([str(self.scenario), *requests, books])


def _troubles(verdict: Verdict, books: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    """All that may be wrong, and whether it is."""
    wanted, sessions, jobs = verdict.scenario, verdict.sessions, verdict.jobs
    yield verdict.took > wanted.bound, f"not within {wanted.bound:g} s"
    yield sessions != {"closed": wanted.sessions}, f"sessions {sessions}, not {wanted.sessions} closed"
    yield jobs not in (wanted.jobs, wanted.or_jobs), f"jobs {jobs}, not {dict(wanted.jobs)}"
    yield verdict.twice > 0, f"{verdict.twice} jobs submitted twice"
    for name in ("duplicates", "leaks", "complaints", "bugs"):
        yield bool(books[name]), f"{name}: {books[name]}"
