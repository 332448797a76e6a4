# SPDX-License-Identifier: Apache-2.0
"""States and timers of sessions and jobs."""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, Any

from .reason_codes import RAN_TOO_LONG, SESSION_CLOSED, reason_of
from .records import JobRecord, Outcome, SessionRecord
from .settings import UNUSED_SECONDS, Settings

if TYPE_CHECKING:
    from .event_queue import EventQueue
    from .runner import JobRunner

# IBM publishes no list of state reasons. The first three have been seen; the others are made up.
CREATED = "session_created"
CLOSED_EARLY = "session_closed_early"
INACTIVATED = "session_inactivated_by_interactive_ttl"
ACTIVATED = "session_activated"
CANCELLED = "session_cancelled"
EXPIRED = "session_closed_by_max_ttl"
UNUSED = "session_closed_by_unused_timeout"

HOLDING = ("active", "pending_inactive")
"""States in which the session holds the QPU: it is billed, and its next job need not queue."""

OFFLINE_RECHECK = 30.0
"""Seconds after which jobs in the queue of a backend that is not online are looked at again."""


class Scheduler:
    """
    Sessions and the jobs in them: what IBM's service does by itself and what requests make it do.

    Each method takes the instant at which it happens, in seconds since the epoch.
    """

    def __init__(self, settings: Settings, events: EventQueue, runner: JobRunner) -> None:
        self.settings = settings
        self.events = events
        self.runner = runner
        self.sessions: dict[str, SessionRecord] = {}
        self.jobs: dict[str, JobRecord] = {}
        self._queued: dict[str, list[JobRecord]] = {}
        self._running: dict[str, list[JobRecord]] = {}
        self._on_qpu: dict[str, JobRecord] = {}
        self._next_on_qpu: dict[str, list[JobRecord]] = {}
        self._last_created = 0.0

    def _creation_time(self, now: float) -> float:
        """Return a creation time that no other record has: IBM's workload cursor is a bare timestamp."""
        self._last_created = round(max(now, self._last_created + 1e-6), 6)
        return self._last_created

    # -- sessions ------------------------------------------------------------------------------------------

    def open_session(
        self, now: float, *, mode: str, backend: str | None, max_ttl: int, user_id: str
    ) -> SessionRecord:
        """Create a session: ``open`` until its first job starts."""
        record = SessionRecord(
            id=str(uuid.uuid4()),
            mode=mode,
            backend=backend,
            max_ttl=max_ttl,
            interactive_ttl=self.settings.interactive_ttl,
            user_id=user_id,
            created=self._creation_time(now),
        )
        self._register(record, now)
        return record

    def _register(self, session: SessionRecord, now: float) -> None:
        """Start the timer for dedicated sessions that never get a job."""
        session.transitions.append((session.state, session.created))
        self.sessions[session.id] = session
        self._meter(session, now)
        self._watch_unused(session, now)

    def add_session(self, now: float, age: float, state: str, **fields: Any) -> SessionRecord:
        """Add a session that was created ``age`` seconds ago and is in this state; idle timers start now."""
        created = round(now - age, 6)
        while any(session.created == created for session in self.sessions.values()):
            created = round(created + 1e-6, 6)
        session = SessionRecord(
            id=str(uuid.uuid4()), interactive_ttl=self.settings.interactive_ttl, created=created, **fields
        )
        self._register(session, now)
        if state in ("active", "inactive"):
            self._enter(session, created, "active", ACTIVATED)
            session.started_at = session.activated_at = created
            self.events.schedule(created + session.max_ttl, lambda then: self._expire(session, then))
            self._settle_idle(session, now)
        if state == "inactive":
            self._enter(session, now, "inactive", INACTIVATED)
        if state == "closed":
            self._finish_closing(session, now, CLOSED_EARLY)
        return session

    def set_accepting(self, now: float, session: SessionRecord, accepting: bool) -> None:
        """Carry out PATCH: true only sets the flag, it never reopens; false closes a session without jobs."""
        session.accepting_jobs = accepting
        if not accepting:
            self._settle_idle(session, now)

    def close(self, now: float, session: SessionRecord) -> None:
        """Carry out DELETE: queued jobs never run, running ones finish, the session is closed at once."""
        if session.state in ("closed", "pending_closed"):
            return
        session.cancelled = True
        self._close(session, now, CANCELLED)

    def _close(self, session: SessionRecord, now: float, reason: str) -> None:
        session.accepting_jobs = False
        # The queue goes first: as a queued job ends, no other may take its place.
        for job in self._queued.pop(session.id, []):
            self._end(job, now, "Failed", reason_of(SESSION_CLOSED), SESSION_CLOSED)
        if self.settings.pending_seconds > 0:
            self._enter(session, now, "pending_closed", reason)
            self.events.schedule(
                now + self.settings.pending_seconds,
                lambda then: self._finish_closing(session, then, reason),
            )
        else:
            self._finish_closing(session, now, reason)

    def _finish_closing(self, session: SessionRecord, now: float, reason: str) -> None:
        session.closed_at = now
        self._enter(session, now, "closed", reason)

    def _enter(self, session: SessionRecord, now: float, state: str, reason: str) -> None:
        self._meter(session, now)
        session.state, session.state_reason = state, reason
        session.serial += 1
        session.transitions.append((state, now))
        self._meter(session, now)

    def _meter(self, session: SessionRecord, now: float) -> None:
        """
        Bring the bill up to date, and run or stop the meter.

        A dedicated session is billed for wall-clock time from its first job's start until it goes inactive,
        closes, or its last job ends, whichever is last; a batch for the QPU time of its jobs only.
        """
        if session.metered_since is not None:
            session.active_seconds += now - session.metered_since
        held = session.state == "pending_closed" and session.metered_since is not None
        on = held or session.state in HOLDING or bool(self._running.get(session.id))
        session.metered_since = now if on else None
        session.billed_seconds = session.active_seconds
        if session.mode == "batch":
            session.billed_seconds = sum(self.jobs[job].charged(now) for job in session.jobs)

    def update_bills(self, now: float) -> None:
        """Bring every session's bill up to date."""
        for session in self.sessions.values():
            self.update_bill(session, now)

    def update_bill(self, session: SessionRecord, now: float) -> None:
        """Bring one session's bill up to date."""
        if session.metered_since is not None:
            self._meter(session, now)

    def _watch_unused(self, session: SessionRecord, since: float) -> None:
        """Close a dedicated session to which no job is submitted for 30 minutes, as IBM does."""
        if session.mode == "dedicated":
            self.events.schedule(since + UNUSED_SECONDS, lambda then: self._close_unused(session, then))

    def _close_unused(self, session: SessionRecord, now: float) -> None:
        recent = session.last_submit is not None and now - session.last_submit < UNUSED_SECONDS
        if session.state == "open" and not recent and not self.has_pending_jobs(session):
            self._close(session, now, UNUSED)

    def _expire(self, session: SessionRecord, now: float) -> None:
        """Close after max_ttl: queued jobs fail, running ones go on."""
        if session.state not in ("closed", "pending_closed"):
            self._close(session, now, EXPIRED)

    def _settle_idle(self, session: SessionRecord, now: float) -> None:
        """After a job has ended or submits were refused: drain to closed, or start the interactive timer."""
        if session.state in ("closed", "pending_closed") or self.has_pending_jobs(session):
            self._meter(session, now)
        elif not session.accepting_jobs:
            self._close(session, now, CLOSED_EARLY)
        elif session.state in HOLDING:
            session.serial += 1
            serial = session.serial
            self.events.schedule(
                now + session.interactive_ttl, lambda then: self._inactivate(session, then, serial)
            )
        elif session.state == "open":
            self._watch_unused(session, max(now - UNUSED_SECONDS, session.last_submit or now))

    def _inactivate(self, session: SessionRecord, now: float, serial: int) -> None:
        """Leave the QPU after the interactive TTL, unless something has happened since the timer started."""
        if session.serial != serial:
            return
        if self.settings.pending_seconds <= 0 or session.state == "pending_inactive":
            self._enter(session, now, "inactive", INACTIVATED)
            return
        self._enter(session, now, "pending_inactive", INACTIVATED)
        waiting = session.serial
        self.events.schedule(
            now + self.settings.pending_seconds, lambda then: self._inactivate(session, then, waiting)
        )

    def has_pending_jobs(self, session: SessionRecord) -> bool:
        """Return true if the session has jobs queued or running."""
        return bool(self._queued.get(session.id) or self._running.get(session.id))

    # -- usage ---------------------------------------------------------------------------------------------

    def usage_consumed(self, now: float) -> float:
        """Return the seconds that count against the instance's limit."""
        self.update_bills(now)
        alone = sum(job.charged(now) for job in self.jobs.values() if not job.session_id)
        sessions = sum(session.billed_seconds for session in self.sessions.values())
        return self.settings.usage_before + alone + sessions

    def limit_reached(self, now: float) -> bool:
        """Return true if the instance takes no more jobs."""
        limit = self.settings.usage_limit_seconds
        return self.settings.limit_reached or (limit is not None and self.usage_consumed(now) >= limit)

    # -- jobs ----------------------------------------------------------------------------------------------

    def submit(self, now: float, **fields: Any) -> JobRecord:
        """Queue a job. It starts when its waiting time is over and a lane is free."""
        job = JobRecord(id=new_job_id(), created=self._creation_time(now), **fields)
        self.jobs[job.id] = job
        failure = self.settings.failures.pop(0) if self.settings.failures else 0
        job.outcome = Outcome.failed(failure) if failure else self.runner.start(job)
        session = self.sessions[job.session_id] if job.session_id else None
        if session is not None:
            session.jobs.append(job.id)
            session.last_submit = now
            session.serial += 1
            session.backend = session.backend or job.backend
        wait = self.settings.queue_seconds
        if job.outcome is not None and job.outcome.queue_seconds is not None:
            wait = job.outcome.queue_seconds
        elif session is not None and session.state in HOLDING:
            wait = 0.0
        job.ready_at = now + wait
        self._queued.setdefault(_lanes_of(job), []).append(job)
        self.events.schedule(job.ready_at, lambda then: self._start_ready(_lanes_of(job), then))
        self.events.run_due(now)
        return job

    def _start_ready(self, owner: str, now: float) -> None:
        """Start the jobs that may start: 5 in parallel in a session, otherwise one for each backend."""
        lanes = self.settings.lanes if owner in self.sessions else 1
        while len(self._running.get(owner, [])) < lanes:
            job = next((job for job in self._queued.get(owner, []) if job.ready_at <= now), None)
            if job is None:
                return
            device = self.settings.backends.get(job.backend)
            if device is not None and device.status != "online":
                self.events.schedule(now + OFFLINE_RECHECK, lambda then: self._start_ready(owner, then))
                return
            self._start(job, now)

    def _start(self, job: JobRecord, now: float) -> None:
        self._queued[_lanes_of(job)].remove(job)
        self._running.setdefault(_lanes_of(job), []).append(job)
        job.status, job.started = "Running", now
        if job.session_id:
            self._activate(self.sessions[job.session_id], now)
        self._next_on_qpu.setdefault(job.backend, []).append(job)
        self._use_qpu(job.backend, now)

    def _activate(self, session: SessionRecord, now: float) -> None:
        session.last_job_started = now
        session.jobs_run += 1
        if session.started_at is None:
            session.started_at = now
            # max_ttl runs from the first job's start and never pauses, however idle the session is.
            self.events.schedule(now + session.max_ttl, lambda then: self._expire(session, then))
        if session.state != "active":
            session.activated_at = now
            self._enter(session, now, "active", ACTIVATED)
            for waiting in self._queued.get(session.id, []):
                if waiting.outcome is None or waiting.outcome.queue_seconds is None:
                    waiting.ready_at = now

    def resolve(self, now: float, job: JobRecord, outcome: Outcome) -> None:
        """Say how a job ends whose outcome was not known when it was submitted."""
        job.outcome = outcome
        self._use_qpu(job.backend, now)

    def _use_qpu(self, backend: str, now: float) -> None:
        """
        Give the QPU to the next job, if it is free: several jobs are prepared at a time, and one is executed.

        A job whose outcome is still being computed is being prepared: those behind it go first.
        """
        for job in list(self._next_on_qpu.get(backend, [])):
            if job.outcome is None:
                continue
            seconds = self.settings.job_seconds if job.outcome.seconds is None else job.outcome.seconds
            if seconds > 0 and self.settings.one_job_at_a_time:
                if backend in self._on_qpu:
                    continue
                self._on_qpu[backend] = job
            self._next_on_qpu[backend].remove(job)
            job.qpu_started = now
            self._schedule_end(job, job.outcome, now + seconds)

    def _schedule_end(self, job: JobRecord, outcome: Outcome, end: float) -> None:
        """End a job as its outcome says, or when its time on the QPU has cost all that it may."""
        last = (job.qpu_started or 0) + job.cost
        if end > last:
            end, outcome = last, Outcome("Cancelled", reason_of(RAN_TOO_LONG), RAN_TOO_LONG)
        self.events.schedule(end, lambda then: self.finish(job, then, outcome))

    def finish(self, job: JobRecord, now: float, outcome: Outcome) -> None:
        """End a running job."""
        if job.status == "Running":
            self._end(job, now, outcome.status, outcome.reason, outcome.reason_code)
            self._free_lane(job, now)

    def cancel(self, now: float, job: JobRecord) -> bool:
        """Cancel a job, queued or running; False if it has ended already. IBM gives no reason for it."""
        if job.final:
            return False
        self._end(job, now, "Cancelled", None, None)
        self._free_lane(job, now)
        return True

    def _end(self, job: JobRecord, now: float, status: str, reason: str | None, code: int | None) -> None:
        session = self.sessions.get(job.session_id or "")
        if session is not None:
            self._meter(session, now)
            session.last_job_completed = session.last_job_completed if job.started is None else now
        for place in (self._queued, self._running):
            if job in place.get(_lanes_of(job), []):
                place[_lanes_of(job)].remove(job)
        if job in self._next_on_qpu.get(job.backend, []):
            self._next_on_qpu[job.backend].remove(job)
        if self._on_qpu.get(job.backend) is job:
            del self._on_qpu[job.backend]
        job.status, job.reason, job.reason_code, job.finished = status, reason, code, now
        if status != "Completed":
            self.runner.cancel(job)

    def _free_lane(self, job: JobRecord, now: float) -> None:
        """Start the next job, or settle a session that has none left."""
        self._use_qpu(job.backend, now)
        self._start_ready(_lanes_of(job), now)
        if job.session_id:
            self._settle_idle(self.sessions[job.session_id], now)


def _lanes_of(job: JobRecord) -> str:
    """Return whose lanes the job uses: its session's, or the backend's."""
    return job.session_id or job.backend


def new_job_id() -> str:
    """Return 20 characters, like IBM's job ids."""
    return "d" + "".join(secrets.choice("0123456789abcdefghijklmnopqrstuv") for _ in range(19))
