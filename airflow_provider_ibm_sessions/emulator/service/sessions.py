# SPDX-License-Identifier: Apache-2.0
"""The calls under /v1/sessions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .clock import Clock, iso
from .responses import Response, bad_request, error, no_content, not_found, ok

if TYPE_CHECKING:
    from .identity import Identity
    from .records import SessionRecord
    from .requests import Request
    from .scheduler import Scheduler

MAX_INT32 = 2**31 - 1


class Sessions:
    """The four session calls (IBM's API reference, Sessions)."""

    def __init__(self, scheduler: Scheduler, clock: Clock, identity: Identity) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.identity = identity

    def create(self, request: Request) -> Response:
        """Answer POST /v1/sessions."""
        body = request.json
        if not isinstance(body, dict):
            return bad_request("The request body must be a JSON object.")
        error_response = self._validate(body)
        if error_response is not None:
            return error_response
        cap = self.scheduler.settings.max_ttl
        session = self.scheduler.open_session(
            self.clock.now(),
            mode=body["mode"],
            backend=body.get("backend") or body.get("backend_name"),
            # Above the plan's cap it is clamped silently.
            max_ttl=min(body.get("max_ttl", cap), cap),
            user_id=self.identity.user_id,
        )
        short = self.scheduler.settings.create_reply == "id"
        return ok({"id": session.id} if short else self.view(session))

    def _validate(self, body: dict[str, Any]) -> Response | None:
        if body.get("mode") not in ("dedicated", "batch"):
            # Seen on the live service: a wrong mode is not a 400.
            return Response(500, json.dumps({"statusCode": 500, "message": "Internal server error"}).encode())
        if not _positive(body.get("max_ttl", 1)):
            return bad_request("max_ttl must be an integer number of seconds, at least 1.")
        backend = body.get("backend", body.get("backend_name"))
        if backend is not None and backend not in self.scheduler.settings.backends:
            return bad_request(f"Backend {backend!r} was not found.")
        if body["mode"] == "dedicated" and self.scheduler.settings.plan == "open":
            return error(
                400,
                "You are not authorized to run a session when using the open plan.",
                1352,
                solution="Create an instance of a different plan type or use a different execution mode.",
            )
        return None

    def _find(self, request: Request) -> SessionRecord | None:
        return self.scheduler.sessions.get(request.ids["id"])

    def get(self, request: Request) -> Response:
        """Answer GET /v1/sessions/{id}."""
        session = self._find(request)
        return unknown(request) if session is None else ok(self.view(session))

    def update(self, request: Request) -> Response:
        """Answer PATCH /v1/sessions/{id} with {"accepting_jobs": bool} and nothing else."""
        session, body = self._find(request), request.json
        if session is None:
            return unknown(request)
        if not isinstance(body, dict) or set(body) != {"accepting_jobs"}:
            return bad_request("The body must be an object with the one field accepting_jobs.")
        if not isinstance(body["accepting_jobs"], bool):
            return bad_request("accepting_jobs must be a boolean.")
        self.scheduler.set_accepting(self.clock.now(), session, body["accepting_jobs"])
        return no_content()

    def close(self, request: Request) -> Response:
        """Answer DELETE /v1/sessions/{id}/close. Closing twice is safe."""
        session = self._find(request)
        if session is None:
            return unknown(request)
        self.scheduler.close(self.clock.now(), session)
        return no_content()

    def view(self, session: SessionRecord) -> dict[str, Any]:
        """Return the session object: no created_at, no tags, elapsed_time only when not in use."""
        self.scheduler.update_bill(session, self.clock.now())
        idle = session.state in ("inactive", "closed") and session.metered_since is None
        return {
            "id": session.id,
            "backend_name": session.backend,
            "mode": session.mode,
            "started_at": iso(session.started_at),
            "activated_at": iso(session.activated_at),
            "closed_at": iso(session.closed_at),
            "last_job_started": iso(session.last_job_started),
            "last_job_completed": iso(session.last_job_completed),
            "interactive_ttl": int(session.interactive_ttl),
            "max_ttl": session.max_ttl,
            "active_ttl": max(0, int(session.max_ttl - session.active_seconds)),
            "state": session.state,
            "state_reason": session.state_reason,
            "accepting_jobs": session.accepting_jobs,
            "timestamps": [{"status": s, "timestamp": iso(t)} for s, t in session.transitions],
            "user_id": session.user_id,
            "elapsed_time": session.billed_seconds if idle else None,
        }


def unknown(request: Request) -> Response:
    """Return a 404 that names the session."""
    return not_found(f"Session not found. Session ID: {request.ids['id']}")


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INT32
