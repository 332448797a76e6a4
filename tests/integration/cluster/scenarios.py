# SPDX-License-Identifier: Apache-2.0
"""What happens to the cluster, and what must be true of sessions, jobs and runs afterwards."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import httpx

from testing.airflow_standalone import FINAL_STATES
from testing.fake_ibm import FakeIBM
from tests.integration.cluster.cluster import API_SERVER, SCHEDULERS, TRIGGERERS, WORKERS, Cluster
from tests.integration.cluster.console import Console
from tests.integration.cluster.servers import DATABASE

NEVER = 3000.0
"""Running time of jobs that end when a scenario ends them, or never."""
CHECK_SECONDS = 2.0
STARTED_SECONDS = 150.0


class Scenario(ABC):
    """
    One scenario, on a fake IBM of its own.

    :param console: Gets a line for all that is done.
    """

    letter: ClassVar[str]
    title: ClassVar[str]
    conn_id: ClassVar[str]
    dag_ids: ClassVar[tuple[str, ...]]
    job_seconds: ClassVar[float] = NEVER

    def __init__(self, console: Console) -> None:
        self.console = console
        self.ibm = FakeIBM(job_seconds=self.job_seconds, usage_limit_seconds=None)
        self.problems: list[str] = []
        self.saw = ""
        self._states: list[str] = []

    def prepare(self, home: Path) -> dict[str, str]:
        """Return environment variables for all of Airflow's processes. Called before the cluster starts."""
        return {}

    @abstractmethod
    def run(self, cluster: Cluster) -> None:
        """Let it happen, and note what is wrong in ``problems``."""

    def status(self) -> str:
        """Return what IBM and Airflow have seen so far, in a line."""
        found, runs = self.ibm.state(), Counter(self._states)
        sessions, jobs = found["sessions"], found["jobs"]
        still_open = sum(count for state, count in sessions.items() if state != "closed")
        ran = f"{found['jobs_run']} run, {jobs.get('Completed', 0)} completed"
        twice = len(found["duplicate_submits"])
        return (
            f"({self.letter}) sessions: {sum(sessions.values())} opened, {still_open} open; "
            f"jobs: {sum(jobs.values())} submitted, {ran}, {twice} doubled; "
            f"runs: {runs['success']} succeeded, {runs['failed']} failed, "
            f"{len(self._states) - runs['success'] - runs['failed']} not ended{self.saw}"
        )

    def check(self, *, runs: int, sessions: int, jobs: int) -> None:
        """Note what differs from so many runs that succeeded, sessions that closed, jobs that ran once."""
        found = self.ibm.state()
        self._expect("runs", dict(Counter(self._states)), {"success": runs})
        self._expect("sessions", found["sessions"], {"closed": sessions})
        self._expect("jobs", found["jobs"], {"Completed": jobs} if jobs else {})
        self.check_requests(found)

    def check_requests(self, found: dict[str, Any]) -> None:
        """Note requests that no client should send, and work that was sent twice."""
        for name in ("duplicate_submits", "leaks", "complaints", "bugs"):
            self._expect(name, found[name], [])

    def wait(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Wait until the condition holds, also while Airflow is away; return False if it never does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if condition():
                    return True
            time.sleep(CHECK_SECONDS)
        return False

    def runs_have_ended(self, cluster: Cluster) -> bool:
        """Read the states of the runs; return True if all are final."""
        self._states = cluster.run_states(self.dag_ids)
        return FINAL_STATES.issuperset(self._states)

    def jobs_running(self) -> int:
        """Return how many jobs run."""
        return int(self.ibm.state()["jobs"].get("Running", 0))

    def is_closed(self) -> bool:
        """Return True if no session is open."""
        return set(self.ibm.state()["sessions"]) == {"closed"}

    def notes(self) -> str:
        """Return what IBM has seen, for people who look for the mistake."""
        journal = list(self.ibm.journal)
        requests = [
            f"{entry.time - journal[0].time:7.1f}  {entry.method:6} {entry.path} {entry.status}"
            for entry in journal
        ]
        return "\n".join([self.title, *self.problems, *requests, json.dumps(self.ibm.state(), indent=1)])

    def _expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.problems.append(f"{what}: {found}, not {wanted}")


class Outage(Scenario):
    """The API server is away while jobs end."""

    letter, conn_id = "a", "ibm_outage"
    title = "20 runs with default arguments; the API server is away for 45 s as their jobs end"
    dag_ids = ("outage_run_jobs", "outage_run_jobs_deferred", "outage_lifecycle")

    def run(self, cluster: Cluster) -> None:
        for dag_id, count in zip(self.dag_ids, (3, 7, 10), strict=True):
            cluster.start_runs(dag_id, count)
        if not self.wait(lambda: self.jobs_running() == 30, STARTED_SECONDS):
            self.problems.append(f"only {self.jobs_running()} of 30 jobs were submitted")
        self.wait(lambda: len(cluster.waits(self.dag_ids)) == 7, STARTED_SECONDS)
        self.ibm.settings.job_seconds = 1.0
        self.console.say("(a) the API server is away; 24 of 30 jobs end meanwhile")
        left = time.monotonic()
        with cluster.supervisor.held(API_SERVER):
            for _ in range(4):
                self.ibm.end_running_jobs(at_most=6)
                time.sleep(45 / 4)
        self.wait(cluster.is_answering, STARTED_SECONDS)
        returned = time.monotonic()
        self.console.say(f"(a) the API server is back after {returned - left:.0f} s; the last 6 jobs end")
        self.ibm.end_running_jobs()
        closed = self.wait(self.is_closed, 120)
        self.saw = f"; closed {time.monotonic() - returned:.0f} s after the API server is back"
        if not closed:
            self.problems.append("sessions are open 2 minutes after the API server is back")
        self.wait(lambda: self.runs_have_ended(cluster), 240)
        self.saw += f", ended after {time.monotonic() - returned:.0f} s"
        self.check(runs=20, sessions=20, jobs=30)


class Kills(Scenario):
    """Everything dies once, and the servers stop."""

    letter, conn_id = "b", "ibm_kills"
    title = "40 run-jobs and 10 lifecycles; processes are killed, PostgreSQL stops, Redis loses its data"
    dag_ids = ("kills_run_jobs", "kills_run_jobs_deferred", "kills_lifecycle")
    job_seconds = 25.0

    def run(self, cluster: Cluster) -> None:
        for dag_id, count in zip(self.dag_ids, (8, 32, 10), strict=True):
            cluster.start_runs(dag_id, count)
        self.wait(lambda: self.jobs_running() >= 12, STARTED_SECONDS)
        started, supervisor = time.monotonic(), cluster.supervisor
        for victim in (TRIGGERERS[0], SCHEDULERS[0], WORKERS[0]):
            self.console.say(f"(b) SIGKILL of {victim}")
            supervisor.kill(victim)
            time.sleep(8)
        self.console.say("(b) PostgreSQL is stopped for 8 s")
        with supervisor.held(DATABASE):
            time.sleep(8)
        time.sleep(12)
        self.console.say("(b) Redis loses all that is queued")
        cluster.flush_redis()
        time.sleep(8)
        self.console.say("(b) PostgreSQL does not answer for 10 s")
        with supervisor.paused(DATABASE):
            time.sleep(10)
        for victim in (TRIGGERERS[1], SCHEDULERS[1], WORKERS[1]):
            self.console.say(f"(b) SIGKILL of {victim}")
            supervisor.kill(victim)
            time.sleep(5)
        self.console.say("(b) Redis loses all that is queued")
        cluster.flush_redis()
        self.wait(lambda: self.runs_have_ended(cluster), 240)
        self.wait(self.is_closed, 10)
        self.saw = f"; {time.monotonic() - started:.0f} s from the first kill to the end of the last run"
        self.check(runs=50, sessions=50, jobs=90)


class Waits(Scenario):
    """A triggerer stops for a while, another takes over; then a user ends all."""

    letter, conn_id = "c", "ibm_waits"
    title = "500 waits; a triggerer stops and goes on, and closes nothing; mark failed closes all within 30 s"
    parts, size = 25, 20
    dag_ids = tuple(f"waits_{part}" for part in range(parts))

    def prepare(self, home: Path) -> dict[str, str]:
        waits = [[self._session_with_job() for _ in range(self.size)] for _ in range(self.parts)]
        path = home / "waits.json"
        path.write_text(json.dumps({"parts": waits, "until": time.time() + NEVER}))
        return {"CLUSTER_WAITS": str(path)}

    def run(self, cluster: Cluster) -> None:
        total = self.parts * self.size
        for dag_id in self.dag_ids:
            cluster.start_runs(dag_id, 1)
        if not self.wait(lambda: self._is_waiting(cluster, total), STARTED_SECONDS):
            self.problems.append(f"not all of {total} tasks had a triggerer within {STARTED_SECONDS:.0f} s")
        time.sleep(10)  # every trigger has polled
        self.console.say(f"(c) {total} waits; SIGSTOP of {TRIGGERERS[0]} for 20 s")
        with cluster.supervisor.paused(TRIGGERERS[0]):
            time.sleep(20)
        time.sleep(15)
        found = self.ibm.state()
        self._expect("sessions that are open after SIGCONT", len(found["accepting"]), total)
        self._expect("jobs after SIGCONT", found["jobs"], {"Running": total})
        self.console.say(f"(c) a user marks all {total} waits failed")
        started = time.monotonic()
        cluster.mark_runs_failed(self.dag_ids)
        marked = time.monotonic()
        closed = self.wait(self.is_closed, 30)
        self.saw = f"; marked within {marked - started:.0f} s, closed {time.monotonic() - marked:.0f} s later"
        if not closed:
            self.problems.append("sessions are open 30 s after all runs were marked failed")
        self.runs_have_ended(cluster)
        found = self.ibm.state()
        self._expect("sessions", found["sessions"], {"closed": total})
        self._expect("jobs", found["jobs"], {"Cancelled": total})
        self.check_requests(found)

    def _session_with_job(self) -> tuple[str, str]:
        session = self.ibm.add_session(state="active")
        job = self.ibm.service.scheduler.submit(
            self.ibm.clock.now(),
            session_id=session.id,
            backend="ibm_fez",
            program_id="sampler",
            params={},
            user_id=self.ibm.user_id,
            cost=NEVER,
        )
        return session.id, job.id

    def _is_waiting(self, cluster: Cluster, total: int) -> bool:
        waits = cluster.waits(self.dag_ids)
        return len(waits) == total and all(waits)


class NoConnection(Scenario):
    """The connection is in the environment of the workers, and nowhere else."""

    letter, conn_id = "d", "ibm_workers_only"
    title = "6 deferred run-jobs, whose connection no triggerer has"
    dag_ids = ("no_connection",)
    job_seconds = 30.0

    def run(self, cluster: Cluster) -> None:
        cluster.start_runs(self.dag_ids[0], 6)
        time.sleep(CHECK_SECONDS)
        self.wait(lambda: self.runs_have_ended(cluster), 150)
        self.check(runs=6, sessions=6, jobs=12)


class Sweep(Scenario):
    """A thousand sessions whose runs have ended."""

    letter, conn_id = "e", "ibm_sweep"
    title = "the sweep of 1,000 orphaned sessions of 10 runs"
    dag_ids = ("sweep_open", "sweep")

    def run(self, cluster: Cluster) -> None:
        cluster.start_runs("sweep_open", 10)
        time.sleep(CHECK_SECONDS)
        self.wait(lambda: self.runs_have_ended(cluster), 180)
        self._expect("sessions that were opened", len(self.ibm.state()["accepting"]), 1000)
        self.console.say(f"(e) {len(self.ibm.state()['accepting'])} sessions are orphaned; the sweep starts")
        asked = len(self.ibm.journal)
        cluster.start_runs("sweep", 1)
        time.sleep(CHECK_SECONDS)
        self.wait(lambda: self.runs_have_ended(cluster), 180)
        swept = self.ibm.journal[asked:]
        took = swept[-1].time - swept[0].time if swept else 0.0
        self.saw = f"; the sweep sent {len(swept)} requests to IBM in {took:.0f} s"
        self.check(runs=11, sessions=1000, jobs=0)


ALL: tuple[type[Scenario], ...] = (Outage, Kills, Waits, NoConnection, Sweep)
