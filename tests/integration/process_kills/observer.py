# SPDX-License-Identifier: Apache-2.0
"""Runs one scenario: waits for its moment, causes the failure, and reads its fake IBM's recorded state."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testing.fake_ibm import FakeIBM
from tests.integration.process_kills.components import Components
from tests.integration.process_kills.scenario import Failure, Scenario

MOMENT_SECONDS, POLL_SECONDS, CHECK_SECONDS = 180.0, 1.0, 2.0
REQUEST_TIMEOUT = 300.0
"""Seconds that a task waits for a response: until the failure happens."""
NEVER = 3600.0


@dataclass
class Result:
    """The end of a scenario. ``problems`` is empty if all is clean."""

    scenario: Scenario
    run: str = ""
    took: float = 0.0
    sessions: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    """Number of sessions that are not closed."""
    twice: int = 0
    """Number of jobs that were submitted more than once."""
    problems: list[str] = field(default_factory=list)


class Observer:
    """One scenario on a fake IBM of its own."""

    def __init__(self, number: int, scenario: Scenario, home: Path) -> None:
        self.number = number
        self.scenario = scenario
        self.name = f"ibm-{number}"
        self.mark = home / f"mark-{number}"
        self.ibm = FakeIBM(job_seconds=NEVER if scenario.moment.jobs_running else scenario.job_seconds)
        self._failed_at = 0.0
        self._run_id = ""

    @property
    def connection(self) -> dict[str, str]:
        """Return the Airflow connection to the fake."""
        ibm = self.ibm
        extra = {"crn": ibm.crn, "iam_url": ibm.iam_url, "timeout": REQUEST_TIMEOUT}
        return {
            "connection_id": self.name,
            "conn_type": "ibm_quantum",
            "host": ibm.url,
            "password": ibm.api_key,
            "extra": json.dumps(extra),
        }

    def prepare(self, parts: Components) -> None:
        """Start the run, and return when its moment has come."""
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
        while not self._moment_has_come():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the moment never came; the run is {self._state()}")
            self.parts.pause(POLL_SECONDS)

    def cause_failure(self) -> None:
        """Cause the scenario's own failure. What hits a whole round is killed before."""
        scenario, place = self.scenario, (self.scenario.dag, self._run_id)
        match scenario.failure:
            case Failure.WORKER:
                self.parts.kill_worker(self._task()["id"])
            case Failure.TASK:
                self.parts.kill_task(self._task()["id"])
            case Failure.FAILED | Failure.TRIGGERER_THEN_FAILED:
                self.parts.mark_failed(*place, scenario.task)
            case Failure.RUN_FAILED:
                self.parts.mark_run_failed(*place)
            case Failure.CLEAR:
                self.parts.clear(*place, scenario.task)
            case Failure.TIME:
                pass  # the timeout strikes by itself

    def start_clock(self) -> None:
        """Start the time limit: from here on IBM answers again, and its jobs come to their ends."""
        self._failed_at = time.monotonic()
        self.ibm.clear_faults()
        self.ibm.end_running_jobs(self.scenario.job_seconds)

    def finish(self) -> Result:
        """Wait until all is clean, or the time limit is over."""
        while True:
            result = self._check(time.monotonic() - self._failed_at)
            if not result.problems or result.took > self.scenario.time_limit:
                return result
            self.parts.pause(CHECK_SECONDS)

    def failed(self, error: BaseException) -> Result:
        """Return the result where the test itself went wrong."""
        result = self._check(0.0)
        result.problems = [f"{type(error).__name__}: {error}"]
        return result

    # -- the moment ----------------------------------------------------------------------------------

    def _moment_has_come(self) -> bool:
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
        """Return True after two polls, as the first may be part of the start."""
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
            return "not started"
        run = self._airflow.get(f"/dags/{self.scenario.dag}/dagRuns/{self._run_id}")
        return str(run["state"])

    # -- the recorded state --------------------------------------------------------------------------

    def check_again(self, result: Result) -> None:
        """Check once more when Airflow has stopped: a process thought dead may have done harm since."""
        if not result.problems:
            self._read_state(result)
            result.problems = [f"afterwards: {problem}" for problem in result.problems]

    def _read_state(self, result: Result) -> None:
        recorded = self.ibm.state()
        result.sessions, result.jobs = recorded["sessions"], recorded["jobs"]
        result.lost = sum(count for state, count in result.sessions.items() if state != "closed")
        result.twice = len(recorded["duplicate_submits"])
        result.problems = [problem for is_so, problem in _problems(result, recorded) if is_so]

    def _check(self, took: float) -> Result:
        result = Result(self.scenario, took=took)
        self._read_state(result)
        if not result.problems or took > self.scenario.time_limit:  # else Airflow is busy enough
            result.run = self._state()
            if result.run != self.scenario.run:
                result.problems.append(f"run {result.run}, not {self.scenario.run}")
        return result

    def notes(self) -> str:
        """Return what IBM has seen, for people who look for the mistake."""
        requests = [
            f"{entry.time - self.ibm.journal[0].time:7.1f}  {entry.method:6} {entry.path} {entry.status}"
            f"{f'  <{entry.fault}>' if entry.fault else ''}"
            for entry in list(self.ibm.journal)
        ]
        recorded = json.dumps(self.ibm.state(), indent=1)
        return "\n".join([str(self.scenario), *requests, recorded])


def _problems(result: Result, recorded: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    """Yield everything that may be wrong, and True if it is."""
    wanted, sessions, jobs = result.scenario, result.sessions, result.jobs
    yield result.took > wanted.time_limit, f"not within {wanted.time_limit:g} s"
    yield sessions != {"closed": wanted.sessions}, f"sessions {sessions}, not {wanted.sessions} closed"
    yield jobs not in (wanted.jobs, wanted.or_jobs), f"jobs {jobs}, not {dict(wanted.jobs)}"
    yield result.twice > 0, f"{result.twice} jobs submitted twice"
    for name in ("duplicates", "leaks", "complaints", "bugs"):
        yield bool(recorded[name]), f"{name}: {recorded[name]}"
