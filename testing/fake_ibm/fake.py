# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from airflow_provider_ibm_sessions.emulator.server import Server
from airflow_provider_ibm_sessions.emulator.service.clock import Clock
from airflow_provider_ibm_sessions.emulator.service.identity import Identity
from airflow_provider_ibm_sessions.emulator.service.records import Outcome
from airflow_provider_ibm_sessions.emulator.service.requests import NO_JSON
from airflow_provider_ibm_sessions.emulator.service.responses import Response, error
from airflow_provider_ibm_sessions.emulator.service.service import QuantumService
from airflow_provider_ibm_sessions.emulator.service.settings import PAID_MAX_TTL, Plan, Settings

from . import control
from .faults import Fault, Script
from .inspection import find_complaints, find_leaks
from .planned_jobs import PlannedJobs
from .server import FaultyExchange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_ibm_sessions.emulator.service.records import (
        JobRecord,
        SessionRecord,
        Token,
    )


@dataclass
class Entry:
    """One request in the journal."""

    method: str
    path: str
    """Below /api, dot segments resolved, still percent-encoded: `/v1/sessions/...`, `/identity/token`."""
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    json: Any
    time: float
    """On the service's clock."""
    client_port: int
    operation: str | None = None
    status: int | None = None
    """Status sent; None if nothing was."""
    fault: str | None = None


class FakeIBM:
    """IBM Quantum and IAM on a free port of 127.0.0.1, with a state that tests arrange and read.

    A context manager. Further keyword arguments are fields of `Settings`.
    """

    def __init__(
        self,
        plan: Plan = "premium",
        frozen: bool = False,
        latency: float = 0.0,
        token_lifetime: int = 3600,
        port: int = 0,
        **settings: Any,
    ) -> None:
        self.clock = Clock(frozen=frozen)
        settings.setdefault("one_job_at_a_time", False)  # tests would wait for each
        self.settings = Settings(plan=plan, token_lifetime=token_lifetime, **settings)
        for device in self.settings.backends.values():
            device.calibrations = None  # tests name theirs as they like
        self.identity = Identity.random()
        self.planned = PlannedJobs()
        self.service = QuantumService(self.settings, self.clock, self.identity, self.planned)
        self.faults = Script()
        self.latency = latency
        self.journal: list[Entry] = []
        self.leaks: list[str] = []
        """Requests that showed the raw API key anywhere but in IAM's form."""
        self.complaints: list[str] = []
        """Requests that IBM would answer, yet that lack what a well-behaved client sends."""
        self.bugs: list[str] = []
        """Tracebacks of the fake's own errors; leaving the context raises if there are any."""
        self.port = port
        self._server: Server | None = None
        self._accepted_before = 0

    # -- running -------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen. After `stop` it listens on the same port again, its state intact."""
        if self._server is None:
            self._server = Server(self.port, self._answer, FaultyExchange)
            self.port = self._server.server_port
        return self

    def stop(self) -> None:
        """Stop listening and cut all connections; new ones are refused."""
        if self._server is not None:
            self._server.stop()
            self._accepted_before += self._server.accepted
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, *rest: object) -> None:
        self.stop()
        if self.bugs and kind is None:
            raise AssertionError("the fake service itself failed:\n" + self.bugs[0])

    @property
    def iam_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.iam_url}/api"

    @property
    def api_key(self) -> str:
        return self.identity.api_key

    @property
    def crn(self) -> str:
        return self.identity.crn

    @property
    def user_id(self) -> str:
        """The user to whom the API key belongs."""
        return self.identity.user_id

    # -- what a test arranges ------------------------------------------------------------------------------

    def script(self, *faults: Fault | Mapping[str, Any]) -> None:
        """Add faults to come. A request takes the first that matches it and is not used up."""
        self.faults.add(*faults)

    def clear_faults(self) -> None:
        """Forget the faults that are left."""
        self.faults.clear()

    def next_jobs(self, outcomes: Sequence[Outcome | Mapping[str, Any]]) -> None:
        """Plan how the next jobs will end, in the order of their submission."""
        with self.service.lock:
            self.planned.plan(outcomes)

    def end_running_jobs(self, after: float = 0.0, at_most: int | None = None) -> None:
        """Let jobs that run now complete so many seconds from now: all, or the first of them."""
        with self.service.lock:
            when = self.clock.now() + after
            running = [job for job in self.service.scheduler.jobs.values() if job.status == "Running"]
            for job in running[:at_most]:
                end = partial(self.service.scheduler.finish, job, outcome=Outcome())
                self.service.events.schedule(when, end)

    def revoke_tokens(self) -> None:
        """Make all tokens issued so far invalid, so that each client's next call is answered 401."""
        with self.service.lock:
            self.service.iam.revoke()

    def rotate_key(self) -> None:
        """Give the user another API key. The old one is refused from now on, and its tokens are."""
        with self.service.lock:
            self.identity = replace(self.identity, api_key=Identity.random().api_key)
            self.service.iam.identity = self.identity
            self.service.iam.revoke()

    def add_session(
        self,
        user: str = "me",
        age: float = 0.0,
        *,
        mode: Literal["dedicated", "batch"] = "dedicated",
        state: Literal["open", "active", "inactive", "closed"] = "open",
        backend: str = "ibm_fez",
        max_ttl: int = PAID_MAX_TTL,
        accepting_jobs: bool = True,
    ) -> SessionRecord:
        """Add a session that nobody asked this service for, created `age` seconds ago, without jobs.

        Its idle timers start now, so that an old one can still be observed; max_ttl counts from its creation.
        """
        with self.service.lock:
            return self.service.scheduler.add_session(
                self.clock.now(),
                age,
                state,
                mode=mode,
                backend=backend,
                max_ttl=max_ttl,
                user_id=self.user_id if user == "me" else f"IBMid-{user}",
                accepting_jobs=accepting_jobs and state != "closed",
            )

    # -- what a test reads ---------------------------------------------------------------------------------

    @property
    def sessions(self) -> dict[str, SessionRecord]:
        self.service.catch_up()
        return dict(self.service.scheduler.sessions)

    @property
    def jobs(self) -> dict[str, JobRecord]:
        self.service.catch_up()
        return dict(self.service.scheduler.jobs)

    @property
    def tokens(self) -> list[Token]:
        return list(self.service.iam.tokens)

    @property
    def connections(self) -> int:
        """The number of TCP connections accepted."""
        return self._accepted_before + (self._server.accepted if self._server else 0)

    @property
    def bill(self) -> dict[str, float]:
        """The seconds billed, by the id of each session, and of each job without one."""
        bill = {session.id: session.billed_seconds for session in self.sessions.values()}
        now = self.clock.now()
        return bill | {job.id: job.charged(now) for job in self.jobs.values() if not job.session_id}

    def requests(self, method: str | None = None, path: str | None = None) -> list[Entry]:
        """Return the journal's entries with this method and path (fnmatch)."""
        return [
            entry
            for entry in list(self.journal)
            if method in (None, entry.method) and (path is None or fnmatchcase(entry.path, path))
        ]

    def state(self) -> dict[str, Any]:
        """Return a summary of all that happened, ready for JSON."""
        sessions, jobs = self.sessions, self.jobs
        return {
            "accepting": [session.id for session in sessions.values() if session.accepts_jobs],
            "sessions": dict(Counter(session.state for session in sessions.values())),
            "jobs": dict(Counter(job.status for job in jobs.values())),
            "jobs_run": sum(job.started is not None for job in jobs.values()),
            "duplicates": _duplicates([job for job in jobs.values() if job.started is not None]),
            "duplicate_submits": _duplicates(list(jobs.values())),
            "billed_seconds": {session.id: session.billed_seconds for session in sessions.values()},
            "token_exchanges": len(self.tokens),
            "requests": dict(Counter(entry.operation for entry in list(self.journal))),
            "connections": self.connections,
            "leaks": list(self.leaks),
            "complaints": list(self.complaints),
            "bugs": list(self.bugs),
        }

    # -- one request ---------------------------------------------------------------------------------------

    def _answer(self, exchange: FaultyExchange) -> None:
        """Handle a request in its connection's own thread."""
        if exchange.request.path.startswith("/_fake/"):
            exchange.send(control.answer(self, exchange.request))
            return
        exchange.fault = fault = self.faults.take(exchange.request)
        entry = self._record(exchange, fault)
        response = self._handle(exchange, fault)
        if response is None:
            exchange.drop(reset=fault is not None and fault.drop == "rst")
            return
        exchange.delay(self.latency)
        entry.status = response.status
        exchange.send(response)

    def _record(self, exchange: FaultyExchange, fault: Fault | None) -> Entry:
        request = exchange.request
        entry = Entry(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=request.body,
            json=None if request.json is NO_JSON else request.json,
            time=self.clock.now(),
            client_port=request.client_port,
            operation=self.service.operation(request),
            fault=str(fault) if fault else None,
        )
        with self.service.lock:
            self.leaks += find_leaks(request, self.api_key)
            self.complaints += find_complaints(request) if self.settings.strict_headers else []
            self.journal.append(entry)
        return entry

    def _handle(self, exchange: FaultyExchange, fault: Fault | None) -> Response | None:
        """Return the response, or None if the connection is to be dropped."""
        if fault is None:
            return self._work(exchange)
        if fault.phase == "before":
            exchange.delay(fault.delay)
            real = None if fault.replaces or exchange.gone else self._work(exchange)
        else:
            real = self._work(exchange)
            exchange.delay(fault.delay)
        if fault.drop or (real is None and not fault.replaces):
            return None
        return fault.disguise(exchange.request, real)

    def _work(self, exchange: FaultyExchange) -> Response:
        try:
            return self.service.handle(exchange.request)
        except Exception:
            self.bugs.append(traceback.format_exc())
            return error(500, "The fake service itself failed; see its `bugs`.")


def _duplicates(jobs: list[JobRecord]) -> list[dict[str, Any]]:
    """Return tagged jobs of which there are several with the same tags, program and parameters."""
    groups: dict[str, list[JobRecord]] = defaultdict(list)
    for job in jobs:
        if job.tags:
            groups[repr((sorted(job.tags), job.program_id, job.params))].append(job)
    several = [group for group in groups.values() if len(group) > 1]
    return [{"tags": group[0].tags, "jobs": [job.id for job in group]} for group in several]
