# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import secrets
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from .records import JobRecord, SessionRecord
from .settings import UNUSED_SECONDS, Outcome, Settings

if TYPE_CHECKING:
    from .timeline import Timeline

# IBM publishes no list of state reasons. The first three have been seen; the others are our own words.
CREATED = "session_created"
CLOSED_EARLY = "session_closed_early"
INACTIVATED = "session_inactivated_by_interactive_ttl"
ACTIVATED = "session_activated"
CANCELLED = "session_cancelled"
EXPIRED = "session_closed_by_max_ttl"
UNUSED = "session_closed_by_unused_timeout"

SESSION_CLOSED = 1217
RAN_TOO_LONG = 1305
HOLDING = ("active", "pending_inactive")
"""States in which the session holds the QPU, so that it is billed and its next job need not queue."""


class Lifecycle:
    """Sessions and the jobs in them: what IBM's service does by itself and what requests make it do.

    Each method takes the instant at which it happens, in seconds since the epoch.
    """

    def __init__(self, settings: Settings, timeline: Timeline) -> None:
        self.settings = settings
        self.timeline = timeline
        self.sessions: dict[str, SessionRecord] = {}
        self.jobs: dict[str, JobRecord] = {}
        self.outcomes: deque[Outcome] = deque()
        self._queues: dict[str, list[JobRecord]] = {}
        self._running: dict[str, list[JobRecord]] = {}
        self._last_created = 0.0

    def _created(self, now: float) -> float:
        """A creation time that no other record has: IBM's workload cursor is a bare timestamp."""
        self._last_created = round(max(now, self._last_created + 1e-6), 6)
        return self._last_created

    # -- sessions ------------------------------------------------------------------------------------------

    def open_session(
        self, now: float, *, mode: str, backend: str | None, max_ttl: int, user_id: str
    ) -> SessionRecord:
        """A new session: `open` until its first job starts."""
        record = SessionRecord(
            id=str(uuid.uuid4()),
            mode=mode,
            backend=backend,
            max_ttl=max_ttl,
            interactive_ttl=self.settings.interactive_ttl,
            user_id=user_id,
            created=self._created(now),
        )
        self.adopt(record, now)
        return record

    def adopt(self, session: SessionRecord, now: float) -> None:
        """Take a session into the books and start the timer for sessions that never get a job."""
        session.transitions.append((session.state, session.created))
        self.sessions[session.id] = session
        self._meter(session, now)
        self._watch_unused(session, now)

    def plant(self, now: float, age: float, state: str, **facts: Any) -> SessionRecord:
        """A session that was created `age` seconds ago and is in this state; its idle timers start now."""
        created = round(now - age, 6)
        while any(session.created == created for session in self.sessions.values()):
            created = round(created + 1e-6, 6)
        session = SessionRecord(
            id=str(uuid.uuid4()), interactive_ttl=self.settings.interactive_ttl, created=created, **facts
        )
        self.adopt(session, now)
        if state in ("active", "inactive"):
            self._enter(session, created, "active", ACTIVATED)
            session.started_at = session.activated_at = created
            self.timeline.at(created + session.max_ttl, lambda then: self._expired(session, then))
            self._settle_idle(session, now)
        if state == "inactive":
            self._enter(session, now, "inactive", INACTIVATED)
        if state == "closed":
            self._closed(session, now, CLOSED_EARLY)
        return session

    def set_accepting(self, now: float, session: SessionRecord, accepting: bool) -> None:
        """PATCH: true only sets the flag (it never reopens); false also closes a session without jobs."""
        session.accepting_jobs = accepting
        if not accepting:
            self._settle_idle(session, now)

    def close(self, now: float, session: SessionRecord) -> None:
        """DELETE: queued jobs never run, running ones finish, the session is closed at once."""
        if session.state in ("closed", "pending_closed"):
            return
        session.cancelled = True
        self._close(session, now, CANCELLED)

    def _close(self, session: SessionRecord, now: float, reason: str) -> None:
        session.accepting_jobs = False
        # The queue goes first: as a queued job ends, no other may take its place.
        for job in self._queues.pop(session.id, []):
            self._end(job, now, "Failed", "Session has been closed", SESSION_CLOSED)
        if self.settings.pending_seconds > 0:
            self._enter(session, now, "pending_closed", reason)
            self.timeline.at(
                now + self.settings.pending_seconds, lambda then: self._closed(session, then, reason)
            )
        else:
            self._closed(session, now, reason)

    def _closed(self, session: SessionRecord, now: float, reason: str) -> None:
        session.closed_at = now
        self._enter(session, now, "closed", reason)

    def _enter(self, session: SessionRecord, now: float, state: str, reason: str) -> None:
        self._meter(session, now)
        session.state, session.state_reason = state, reason
        session.serial += 1
        session.transitions.append((state, now))
        self._meter(session, now)

    def _meter(self, session: SessionRecord, now: float) -> None:
        """Bring the bill up to date, and run or stop the meter.

        A dedicated session is billed for wall-clock time from its first job's start until it goes inactive,
        closes, or its last job ends, whichever is last; a batch for the QPU time of its jobs only.
        """
        if session.metered_since is not None:
            session.active_seconds += now - session.metered_since
        held = session.state == "pending_closed" and session.metered_since is not None
        on = held or session.state in HOLDING or bool(self._running.get(session.id))
        session.metered_since = now if on else None
        locked = sum(self.jobs[job].ran(now) for job in session.jobs) if session.mode == "batch" else 0.0
        session.billed_seconds = locked if session.mode == "batch" else session.active_seconds

    def refresh(self, now: float) -> None:
        """Bring every session's bill up to date."""
        for session in self.sessions.values():
            self.refresh_one(session, now)

    def refresh_one(self, session: SessionRecord, now: float) -> None:
        if session.metered_since is not None:
            self._meter(session, now)

    def _watch_unused(self, session: SessionRecord, since: float) -> None:
        """A dedicated session to which no job is submitted for 30 minutes closes by itself."""
        if session.mode == "dedicated":
            self.timeline.at(since + UNUSED_SECONDS, lambda then: self._unused(session, then))

    def _unused(self, session: SessionRecord, now: float) -> None:
        recent = session.last_submit is not None and now - session.last_submit < UNUSED_SECONDS
        if session.state == "open" and not recent and not self.pending(session):
            self._close(session, now, UNUSED)

    def _expired(self, session: SessionRecord, now: float) -> None:
        """max_ttl is over: queued jobs fail, running ones go on."""
        if session.state not in ("closed", "pending_closed"):
            self._close(session, now, EXPIRED)

    def _settle_idle(self, session: SessionRecord, now: float) -> None:
        """After a job has ended or submits were refused: drain to closed, or start the interactive timer."""
        if session.state in ("closed", "pending_closed") or self.pending(session):
            self._meter(session, now)
        elif not session.accepting_jobs:
            self._close(session, now, CLOSED_EARLY)
        elif session.state in HOLDING:
            self._watch_idle(session, now)
        elif session.state == "open":
            self._watch_unused(session, max(now - UNUSED_SECONDS, session.last_submit or now))

    def _watch_idle(self, session: SessionRecord, now: float) -> None:
        session.serial += 1
        serial = session.serial
        self.timeline.at(now + session.interactive_ttl, lambda then: self._idle_over(session, then, serial))

    def _idle_over(self, session: SessionRecord, now: float, serial: int) -> None:
        if session.serial != serial:
            return
        if self.settings.pending_seconds <= 0:
            self._enter(session, now, "inactive", INACTIVATED)
            return
        self._enter(session, now, "pending_inactive", INACTIVATED)
        waiting = session.serial
        self.timeline.at(
            now + self.settings.pending_seconds, lambda then: self._inactive(session, then, waiting)
        )

    def _inactive(self, session: SessionRecord, now: float, serial: int) -> None:
        if session.serial == serial:
            self._enter(session, now, "inactive", INACTIVATED)

    def pending(self, session: SessionRecord) -> bool:
        """Has it jobs queued or running?"""
        return bool(self._queues.get(session.id) or self._running.get(session.id))

    # -- jobs ----------------------------------------------------------------------------------------------

    def submit(self, now: float, **facts: Any) -> JobRecord:
        """Queue a job. It starts when its waiting time is over and a lane is free."""
        job = JobRecord(id=job_id(), created=self._created(now), **facts)
        job.outcome = self.outcomes.popleft() if self.outcomes else Outcome()
        self.jobs[job.id] = job
        session = self.sessions[job.session_id] if job.session_id else None
        if session is not None:
            session.jobs.append(job.id)
            session.last_submit = now
            session.serial += 1
            session.backend = session.backend or job.backend
        job.ready_at = now + self._queue_seconds(job, session)
        self._queues.setdefault(_lane(job), []).append(job)
        self.timeline.at(job.ready_at, lambda then: self._pump(_lane(job), then))
        self.timeline.settle(now)
        return job

    def _queue_seconds(self, job: JobRecord, session: SessionRecord | None) -> float:
        if job.outcome.queue_seconds is not None:
            return job.outcome.queue_seconds
        return 0.0 if session is not None and session.state in HOLDING else self.settings.queue_seconds

    def _pump(self, lane: str, now: float) -> None:
        """Start what may start: 5 jobs side by side in a session, otherwise one for each backend."""
        lanes = self.settings.lanes if lane in self.sessions else 1
        queue = self._queues.get(lane, [])
        while len(self._running.get(lane, [])) < lanes:
            job = next((job for job in queue if job.ready_at <= now), None)
            if job is None:
                return
            self._start(job, now)

    def _start(self, job: JobRecord, now: float) -> None:
        self._queues[_lane(job)].remove(job)
        self._running.setdefault(_lane(job), []).append(job)
        job.status, job.started = "Running", now
        if job.session_id:
            self._started_in(self.sessions[job.session_id], now)
        length = self.settings.job_seconds if job.outcome.seconds is None else job.outcome.seconds
        self.timeline.at(now + min(length, job.cost), lambda then: self._finish(job, then, length))

    def _started_in(self, session: SessionRecord, now: float) -> None:
        session.last_job_started = now
        session.jobs_run += 1
        if session.started_at is None:
            session.started_at = now
            # max_ttl runs from the first job's start and never pauses, however idle the session is.
            self.timeline.at(now + session.max_ttl, lambda then: self._expired(session, then))
        if session.state != "active":
            session.activated_at = now
            self._enter(session, now, "active", ACTIVATED)
            for waiting in self._queues.get(session.id, []):
                if waiting.outcome.queue_seconds is None:
                    waiting.ready_at = now

    def _finish(self, job: JobRecord, now: float, length: float) -> None:
        outcome = job.outcome
        if job.status != "Running":
            return
        if length > job.cost:
            self._end(job, now, "Cancelled", "Ran too long", RAN_TOO_LONG)
        else:
            self._end(job, now, outcome.status, outcome.reason, outcome.reason_code)
        self._freed(job, now)

    def cancel(self, now: float, job: JobRecord) -> bool:
        """Cancel a job, queued or running; False if it has ended already. IBM gives no reason for it."""
        if job.final:
            return False
        self._end(job, now, "Cancelled", None, None)
        self._freed(job, now)
        return True

    def _end(self, job: JobRecord, now: float, status: str, reason: str | None, code: int | None) -> None:
        session = self.sessions.get(job.session_id or "")
        if session is not None:
            self._meter(session, now)
            session.last_job_completed = session.last_job_completed if job.started is None else now
        for place in (self._queues, self._running):
            if job in place.get(_lane(job), []):
                place[_lane(job)].remove(job)
        job.status, job.reason, job.reason_code, job.finished = status, reason, code, now

    def _freed(self, job: JobRecord, now: float) -> None:
        """A lane is free: start the next job, or see to a session that has none left."""
        self._pump(_lane(job), now)
        if job.session_id:
            self._settle_idle(self.sessions[job.session_id], now)


def _lane(job: JobRecord) -> str:
    return job.session_id or job.backend


def job_id() -> str:
    """20 characters, as IBM's job ids."""
    return "d" + "".join(secrets.choice("0123456789abcdefghijklmnopqrstuv") for _ in range(19))
