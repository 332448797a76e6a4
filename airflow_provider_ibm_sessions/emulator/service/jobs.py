# SPDX-License-Identifier: Apache-2.0
"""The calls under /v1/jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import Clock, iso, parse_iso
from .job_validation import validate_job, validate_tags
from .reason_codes import RAN_TOO_LONG, solution_of
from .responses import Response, bad_request, error, no_content, not_found, ok, text

if TYPE_CHECKING:
    from .identity import Identity
    from .records import JobRecord
    from .requests import Request
    from .scheduler import Scheduler

NEW_USAGE = "2026-03-15"
"""From this API version on: usage.qpu_charge_time_seconds instead of usage.quantum_seconds and bss."""
NEW_METRICS = "2026-04-15"
"""From this API version on: circuits_execution_time_ns at the root of the metrics."""


class Jobs:
    """The job calls (IBM's API reference, Jobs)."""

    def __init__(self, scheduler: Scheduler, clock: Clock, identity: Identity) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.identity = identity

    def create(self, request: Request) -> Response:
        """Answer POST /v1/jobs. The response has no status."""
        body, now = request.json, self.clock.now()
        error_response = validate_job(body, self.scheduler, now)
        if error_response is not None:
            return error_response
        job = self.scheduler.submit(now, **self._fields(body, request))
        view: dict[str, Any] = {"id": job.id, "backend": job.backend}
        optional = {"session_id": job.session_id, "calibration_id": job.calibration_id}
        view |= {name: value for name, value in optional.items() if value}
        return ok(view | ({"private": True} if job.private else {}))

    def _fields(self, body: dict[str, Any], request: Request) -> dict[str, Any]:
        cap = self.scheduler.settings.max_cost
        return {
            "backend": body["backend"],
            "program_id": body["program_id"],
            "params": body.get("params", {}),
            "user_id": self.identity.user_id,
            "session_id": body.get("session_id"),
            "tags": list(body.get("tags", [])),
            # Larger is capped; none means the plan's maximum.
            "cost": min(body.get("cost", cap), cap),
            "private": body.get("private", False),
            "calibration_id": body.get("calibration_id"),
            "runtime": body.get("runtime"),
            "caller": request.headers.get("x-qx-client-application"),
        }

    def _find(self, request: Request) -> JobRecord | None:
        job = self.scheduler.jobs.get(request.ids["id"])
        return None if job is None or job.deleted else job

    def get(self, request: Request) -> Response:
        """Answer GET /v1/jobs/{id}; exclude_params is false unless given."""
        job = self._find(request)
        if job is None:
            return _unknown(request)
        return ok(self.view(job, _version(request), with_params=not request.flag("exclude_params", False)))

    def view(self, job: JobRecord, version: str, *, with_params: bool) -> dict[str, Any]:
        """Return the job object. A private job never shows its parameters."""
        view = {
            "id": job.id,
            "backend": job.backend,
            "state": _state(job),
            "status": _long_status(job),
            "program": {"id": job.program_id},
            "created": iso(job.created),
            "cost": job.cost,
            "tags": job.tags,
            "user_id": job.user_id,
            "usage": self._usage(job, version),
            "private": job.private,
            "estimated_running_time_seconds": self._estimate(job),
        }
        optional = {
            "session_id": job.session_id,
            "calibration_id": job.calibration_id,
            "runtime": job.runtime,
        }
        view |= {name: value for name, value in optional.items() if value}
        return view | ({"params": job.params} if with_params and not job.private else {})

    def _estimate(self, job: JobRecord) -> float:
        known = job.outcome.seconds if job.outcome else None
        return self.scheduler.settings.job_seconds if known is None else known

    def _usage(self, job: JobRecord, version: str) -> dict[str, Any]:
        now, settings = self.clock.now(), self.scheduler.settings
        settled = job.finished is not None and now >= job.finished + settings.usage_settle_seconds
        seconds = job.charged(now) * (1.0 if settled or not job.final else settings.provisional_usage)
        if version >= NEW_USAGE:
            return {"qpu_charge_time_seconds": seconds, "status": "complete" if settled else "pending"}
        return {"quantum_seconds": seconds, "seconds": seconds}

    def search(self, request: Request) -> Response:
        """Answer GET /v1/jobs. A limit or offset out of range silently falls back to its default."""
        try:
            found = [job for job in self.scheduler.jobs.values() if _matches(job, request)]
        except ValueError:
            return bad_request("created_after and created_before must be date-times.")
        found.sort(key=lambda job: job.created, reverse=request.first("sort", "DESC").upper() != "ASC")
        limit = _number(request.first("limit"), 1, 200, 200)
        offset = _number(request.first("offset"), 0, 10**9, 0)
        with_params = not request.flag("exclude_params", True)
        page = found[offset : offset + limit]
        jobs = [self.view(job, _version(request), with_params=with_params) for job in page]
        return ok({"jobs": jobs, "count": len(found), "offset": offset, "limit": limit})

    def results(self, request: Request) -> Response:
        """
        Answer GET /v1/jobs/{id}/results: 204 when there is none, text for a failed job.

        A private job's results are deleted once they have been read.
        """
        job = self._find(request)
        if job is None:
            return _unknown(request)
        if job.status == "Failed":
            where = 'Traceback (most recent call last):\n  File "program.py", line 1'
            return text(f"{where}\n{job.reason or 'Job failed'}\n")
        if job.status != "Completed" or (job.private and job.results_read):
            return no_content()
        job.results_read += 1
        return ok(self.scheduler.runner.results(job))

    def metrics(self, request: Request) -> Response:
        """Answer GET /v1/jobs/{id}/metrics; its shape depends on the API version."""
        job = self._find(request)
        if job is None:
            return _unknown(request)
        version, usage = _version(request), self._usage(job, _version(request))
        view: dict[str, Any] = {
            "caller": job.caller,
            "timestamps": {
                "created": iso(job.created),
                "running": iso(job.started),
                "finished": iso(job.finished),
            },
            "usage": usage,
            "qiskit_version": self.scheduler.settings.qiskit_version,
        }
        nanoseconds = int(job.ran(self.clock.now()) * 1e9)
        (view if version >= NEW_METRICS else usage)["circuits_execution_time_ns"] = nanoseconds
        return ok(view if version >= NEW_USAGE else view | {"bss": {"seconds": usage["seconds"]}})

    def logs(self, request: Request) -> Response:
        """Answer GET /v1/jobs/{id}/logs: plain text; 404 before the job has ended."""
        job = self._find(request)
        if job is None:
            return _unknown(request)
        if not job.final:
            return not_found("logs not found")
        return text((job.outcome and job.outcome.logs) or f"{job.program_id}: {job.status}\n")

    def cancel(self, request: Request) -> Response:
        """Answer POST /v1/jobs/{id}/cancel: 409 when it has ended already."""
        job = self._find(request)
        if job is None:
            return _unknown(request)
        if self.scheduler.cancel(self.clock.now(), job):
            return no_content()
        return error(409, f"Job {job.id} is not cancellable: it is {job.status}.")

    def delete(self, request: Request) -> Response:
        """Answer DELETE /v1/jobs/{id}: final jobs only."""
        job = self._find(request)
        if job is None:
            return _unknown(request)
        if not job.final:
            return error(409, f"Job {job.id} can be deleted only in a terminal state; it is {job.status}.")
        job.deleted = True
        return no_content()

    def tag(self, request: Request) -> Response:
        """Answer PUT /v1/jobs/{id}/tags."""
        job = self._find(request)
        if job is None:
            return _unknown(request)
        body = request.json
        if not isinstance(body, dict) or set(body) != {"tags"}:
            return bad_request("The body must be an object with the one field tags.")
        error_response = validate_tags(body["tags"])
        if error_response is None:
            job.tags = list(body["tags"])
        return error_response or no_content()


def _unknown(request: Request) -> Response:
    return not_found(f"Job not found. Job ID: {request.ids['id']}")


def _version(request: Request) -> str:
    """Return the API version asked for: without the header, the oldest."""
    return request.headers.get("ibm-api-version", "2024-01-01")


def _state(job: JobRecord) -> dict[str, Any]:
    state: dict[str, Any] = {"status": job.status}
    if job.reason:
        state["reason"] = job.reason
    if job.reason_code is not None:
        state |= {"reason_code": job.reason_code, "reason_solution": solution_of(job.reason_code)}
    return state


def _long_status(job: JobRecord) -> str:
    """Return the top-level status, which has one more value than the state."""
    late = job.status == "Cancelled" and job.reason_code == RAN_TOO_LONG
    return "Cancelled - Ran too long" if late else job.status


def _number(text: str, low: int, high: int, default: int) -> int:
    return int(text) if text.isdigit() and low <= int(text) <= high else default


def _matches(job: JobRecord, request: Request) -> bool:
    after, before = request.first("created_after"), request.first("created_before")
    pending = request.first("pending").lower()
    return (
        not job.deleted
        and (pending not in ("true", "false") or (pending == "true") == (not job.final))
        and request.first("program", job.program_id) == job.program_id
        and request.first("backend", job.backend) == job.backend
        and request.first("session_id", job.session_id or "") == (job.session_id or "")
        and set(request.query.get("tags", [])) <= set(job.tags)
        and (not after or job.created >= parse_iso(after))
        and (not before or job.created <= parse_iso(before))
    )
