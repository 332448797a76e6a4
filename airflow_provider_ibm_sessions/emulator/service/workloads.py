# SPDX-License-Identifier: Apache-2.0
"""The list of sessions, batches and jobs."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from .clock import Clock, iso, parse_iso
from .responses import Response, bad_request, ok

if TYPE_CHECKING:
    from .identity import Identity
    from .records import JobRecord, SessionRecord
    from .requests import Request
    from .scheduler import Scheduler

STATUSES = frozenset({"pending", "in_progress", "completed", "failed", "canceled"})
MODES = frozenset({"job", "session", "batch"})
CHOICES = {
    "user": frozenset({"me"}),
    "sort": frozenset({"createdAt", "-createdAt"}),
    "status": STATUSES,
    "mode": MODES,
}
_SESSION_STATUS = {"open": "pending", "inactive": "pending", "closed": "completed"}
_JOB_STATUS = {
    "Queued": "pending",
    "Running": "in_progress",
    "Completed": "completed",
    "Failed": "failed",
    "Cancelled": "canceled",
}
_KEPT = ("user", "sort", "backend", "search", "status", "mode", "created_after", "created_before", "tags")


@dataclass
class Workload:
    """One item of the list: a session, a batch, or a job outside of both."""

    id: str
    created: float
    ended: float | None
    backend: str | None
    user_id: str
    mode: str
    status: str
    seconds: float
    accepting_jobs: bool | None = None
    reason: str | None = None
    tags: list[str] = field(default_factory=list)


class Workloads:
    """The list GET /v1/workloads (IBM's API reference, Workloads)."""

    def __init__(self, scheduler: Scheduler, clock: Clock, identity: Identity) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.identity = identity

    def search(self, request: Request) -> Response:
        """Answer with a page: oldest first unless ``sort=-createdAt``, 10 items unless ``limit`` differs."""
        error_response = _validate(request)
        if error_response is not None:
            return error_response
        found = [each for each in self._all() if self._matches(each, request)]
        found.sort(key=lambda each: each.created, reverse=request.first("sort") == "-createdAt")
        return ok(self._page(found, int(request.first("limit", "10")), request))

    def _all(self) -> list[Workload]:
        self.scheduler.update_bills(self.clock.now())
        sessions = [_of_session(session) for session in self.scheduler.sessions.values()]
        jobs = [job for job in self.scheduler.jobs.values() if not job.session_id and not job.deleted]
        return sessions + [_of_job(job, self.clock.now()) for job in jobs]

    def _matches(self, each: Workload, request: Request) -> bool:
        after, before = request.first("created_after"), request.first("created_before")
        search = request.first("search")
        return (
            (request.first("user") != "me" or each.user_id == self.identity.user_id)
            and each.status in request.query.get("status", STATUSES)
            and each.mode in request.query.get("mode", MODES)
            and request.first("backend", each.backend or "") == (each.backend or "")
            and (search in each.id or search in each.tags)
            and set(request.query.get("tags", [])) <= set(each.tags)
            and (not after or each.created >= parse_iso(after))
            and (not before or each.created <= parse_iso(before))
        )

    def _page(self, found: list[Workload], limit: int, request: Request) -> dict[str, Any]:
        start = _start(found, limit, request)
        page = found[start : start + limit]
        body: dict[str, Any] = {
            "workloads": [self._view(each) for each in page],
            "total_count": len(found),
            "limit": limit,
        }
        if start > 0 and page:
            body["previous"] = {"href": _href(request, limit, "previous", found[start])}
        if start + limit < len(found):
            body["next"] = {"href": _href(request, limit, "next", page[-1])}
        return body

    def _view(self, each: Workload) -> dict[str, Any]:
        settle = self.scheduler.settings.usage_settle_seconds
        settled = each.ended is not None and self.clock.now() >= each.ended + settle
        usage = {"qpu_charge_time_seconds": each.seconds, "status": "complete" if settled else "pending"}
        view = {
            "id": each.id,
            "created": iso(each.created),
            "ended": iso(each.ended),
            "backend": each.backend,
            "instance": self.identity.crn,
            "user_id": each.user_id,
            "accepting_jobs": each.accepting_jobs,
            "mode": each.mode,
            "status": each.status,
            "tags": each.tags,
            "usage": usage,
            "usage_seconds": each.seconds,
            "estimated_running_time_seconds": None,
        }
        return view | ({"status_reason": each.reason} if each.mode == "job" else {})


def _of_session(session: SessionRecord) -> Workload:
    status = _SESSION_STATUS.get(session.state, "in_progress")
    return Workload(
        id=session.id,
        created=session.created,
        ended=session.closed_at,
        backend=session.backend,
        user_id=session.user_id,
        mode="batch" if session.mode == "batch" else "session",
        status="canceled" if session.final and session.cancelled else status,
        seconds=session.billed_seconds,
        accepting_jobs=session.accepting_jobs,
    )


def _of_job(job: JobRecord, now: float) -> Workload:
    return Workload(
        id=job.id,
        created=job.created,
        ended=job.finished,
        backend=job.backend,
        user_id=job.user_id,
        mode="job",
        status=_JOB_STATUS[job.status],
        seconds=job.charged(now),
        reason=job.reason,
        tags=job.tags,
    )


def _validate(request: Request) -> Response | None:
    for name, allowed in CHOICES.items():
        if wrong := set(request.query.get(name, [])) - allowed:
            return bad_request(f"{name} must be one of {', '.join(sorted(allowed))}, not {min(wrong)!r}.")
    limit = request.first("limit", "10")
    if not limit.isdigit() or not 1 <= int(limit) <= 50:
        return bad_request("limit must be 1..50.")
    try:
        for name in ("created_after", "created_before"):
            parse_iso(request.first(name, "2026-01-01T00:00:00Z"))
        for name in ("next", "previous"):
            _instant(request.first(name, _cursor(0.0)))
    except ValueError:
        return bad_request("created_after, created_before, next or previous is not valid.")
    return None


def _start(found: list[Workload], limit: int, request: Request) -> int:
    """Return the page's first index: after the cursor ``next``, or ``limit`` before ``previous``."""
    stamps = [round(each.created, 6) for each in found]
    newest_first = request.first("sort") == "-createdAt"
    if "next" in request.query:
        mark = _instant(request.first("next"))
        return sum(stamp >= mark if newest_first else stamp <= mark for stamp in stamps)
    if "previous" in request.query:
        mark = _instant(request.first("previous"))
        return max(0, sum(stamp > mark if newest_first else stamp < mark for stamp in stamps) - limit)
    return 0


def _href(request: Request, limit: int, name: str, at: Workload) -> str:
    kept = [(key, value) for key in _KEPT for value in request.query.get(key, [])]
    query = urlencode([("limit", str(limit)), *kept, (name, _cursor(at.created))])
    return f"http://{request.host}/api/v1/workloads?{query}"


def _cursor(created: float) -> str:
    """Return IBM's form of a cursor: a timestamp in base64."""
    return base64.standard_b64encode((iso(created) or "").encode()).decode()


def _instant(cursor: str) -> float:
    return round(parse_iso(base64.standard_b64decode(cursor).decode()), 6)
