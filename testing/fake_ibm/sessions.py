# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .clock import Clock, iso
from .replies import Reply, bad_request, error, not_found, nothing, ok

if TYPE_CHECKING:
    from .lifecycle import Lifecycle
    from .records import SessionRecord
    from .requests import Request

MAX_INT32 = 2**31 - 1


class Sessions:
    """The four session calls (IBM's API reference, Sessions)."""

    def __init__(self, life: Lifecycle, clock: Clock, user_id: str) -> None:
        self.life = life
        self.clock = clock
        self.user_id = user_id

    def create(self, request: Request) -> Reply:
        """POST /v1/sessions."""
        body = request.json
        if not isinstance(body, dict):
            return bad_request("The request body must be a JSON object.")
        refusal = self._refusal(body)
        if refusal is not None:
            return refusal
        cap = self.life.settings.max_ttl
        session = self.life.open_session(
            self.clock.now(),
            mode=body["mode"],
            backend=body.get("backend") or body.get("backend_name"),
            # Above the plan's cap it is clamped without a word.
            max_ttl=min(body.get("max_ttl", cap), cap),
            user_id=self.user_id,
        )
        short = self.life.settings.create_reply == "id"
        return ok({"id": session.id} if short else self.view(session))

    def _refusal(self, body: dict[str, Any]) -> Reply | None:
        if body.get("mode") not in ("dedicated", "batch"):
            # Seen on the live service: a wrong mode is not a 400.
            return Reply(500, json.dumps({"statusCode": 500, "message": "Internal server error"}).encode())
        if not _positive(body.get("max_ttl", 1)):
            return bad_request("max_ttl must be an integer number of seconds, at least 1.")
        backend = body.get("backend", body.get("backend_name"))
        if backend is not None and backend not in self.life.settings.backends:
            return bad_request(f"Backend {backend!r} was not found.")
        if body["mode"] == "dedicated" and self.life.settings.plan == "open":
            return error(
                400,
                "You are not authorized to run a session when using the open plan.",
                1352,
                solution="Create an instance of a different plan type or use a different execution mode.",
            )
        return None

    def _find(self, request: Request) -> SessionRecord | None:
        return self.life.sessions.get(request.ids["id"])

    def get(self, request: Request) -> Reply:
        """GET /v1/sessions/{id}."""
        session = self._find(request)
        return unknown(request) if session is None else ok(self.view(session))

    def update(self, request: Request) -> Reply:
        """PATCH /v1/sessions/{id} with {"accepting_jobs": bool} and nothing else."""
        session, body = self._find(request), request.json
        if session is None:
            return unknown(request)
        if not isinstance(body, dict) or set(body) != {"accepting_jobs"}:
            return bad_request("The body must be an object with the one field accepting_jobs.")
        if not isinstance(body["accepting_jobs"], bool):
            return bad_request("accepting_jobs must be a boolean.")
        self.life.set_accepting(self.clock.now(), session, body["accepting_jobs"])
        return nothing()

    def close(self, request: Request) -> Reply:
        """DELETE /v1/sessions/{id}/close. Closing twice is safe."""
        session = self._find(request)
        if session is None:
            return unknown(request)
        self.life.close(self.clock.now(), session)
        return nothing()

    def view(self, session: SessionRecord) -> dict[str, Any]:
        """The session object. It has no created_at, no tags, and an elapsed_time only when not in use."""
        self.life.refresh_one(session, self.clock.now())
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


def unknown(request: Request) -> Reply:
    """404 that names the session."""
    return not_found(f"Session not found. Session ID: {request.ids['id']}")


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INT32
