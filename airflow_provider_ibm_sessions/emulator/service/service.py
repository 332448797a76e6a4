# SPDX-License-Identifier: Apache-2.0
"""Routes and authorization."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

from .event_queue import EventQueue
from .iam import Iam
from .instance import Instance
from .jobs import Jobs
from .responses import Response, bad_request, error, not_found, web_application
from .scheduler import Scheduler
from .sessions import Sessions
from .workloads import Workloads

if TYPE_CHECKING:
    from .clock import Clock
    from .identity import Identity
    from .records import JobRecord, Outcome
    from .requests import Request
    from .runner import JobRunner
    from .settings import Settings

Handler = Callable[["Request"], Response]
IAM_PATH = "/identity/token"
_CRN = re.compile(r"crn:v1:bluemix:public:quantum-computing:(us-east|eu-de):a/[0-9a-f]{32}:[0-9a-f-]{36}::")


class QuantumService:
    """IBM Quantum and IAM as one function from requests to responses, one request after the other."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        identity: Identity,
        runner: JobRunner,
        *,
        token_clock: Clock | None = None,
    ) -> None:
        """
        Start with nothing but backends.

        :param token_clock: The clock of tokens, if it is not the service's: clients compare their ``exp``
            with the host's time.
        """
        self.lock = threading.RLock()
        self.settings = settings
        self.clock = clock
        self.identity = identity
        self.events = EventQueue()
        self.scheduler = Scheduler(settings, self.events, runner)
        self.iam = Iam(settings, token_clock or clock, identity)
        self._routes = self._table()

    def _table(self) -> list[tuple[str, list[str], str, Handler]]:
        parts = (self.scheduler, self.clock, self.identity)
        sessions, jobs = Sessions(*parts), Jobs(*parts)
        workloads, instance = Workloads(*parts), Instance(*parts)
        rows: list[tuple[str, str, Handler]] = [
            ("POST /v1/sessions", "create_session", sessions.create),
            ("GET /v1/sessions/{id}", "get_session", sessions.get),
            ("PATCH /v1/sessions/{id}", "update_session", sessions.update),
            ("DELETE /v1/sessions/{id}/close", "close_session", sessions.close),
            ("POST /v1/jobs", "create_job", jobs.create),
            ("GET /v1/jobs", "list_jobs", jobs.search),
            ("GET /v1/jobs/{id}", "get_job", jobs.get),
            ("DELETE /v1/jobs/{id}", "delete_job", jobs.delete),
            ("GET /v1/jobs/{id}/results", "get_job_results", jobs.results),
            ("GET /v1/jobs/{id}/metrics", "get_job_metrics", jobs.metrics),
            ("GET /v1/jobs/{id}/logs", "get_job_logs", jobs.logs),
            ("POST /v1/jobs/{id}/cancel", "cancel_job", jobs.cancel),
            ("PUT /v1/jobs/{id}/tags", "tag_job", jobs.tag),
            ("GET /v1/workloads", "list_workloads", workloads.search),
            ("GET /v1/versions", "list_versions", instance.versions),
            ("GET /v1/backends", "list_backends", instance.backends),
            ("GET /v1/backends/{id}/status", "get_backend_status", instance.backend_status),
            (
                "GET /v1/backends/{id}/configuration",
                "get_backend_configuration",
                instance.backend_configuration,
            ),
            ("GET /v1/backends/{id}/properties", "get_backend_properties", instance.backend_properties),
            ("GET /v1/backends/{id}/defaults", "get_backend_defaults", instance.backend_defaults),
            ("GET /v1/instance", "get_instance", instance.describe),
            ("GET /v1/instances/usage", "get_usage", instance.usage),
            ("GET /v1/accounts/{id}", "get_account", instance.account),
        ]
        split = [(where.split(" "), operation, handler) for where, operation, handler in rows]
        return [(method, path.split("/")[1:], name, handler) for (method, path), name, handler in split]

    def operation(self, request: Request) -> str:
        """Return the name of the operation; ``unknown`` for a path or method that does not exist."""
        if request.path == IAM_PATH:
            return "token"
        route = self._match(request)
        return route[0] if isinstance(route, tuple) else "unknown"

    def handle(self, request: Request) -> Response:
        """Let everything happen that is due, then answer."""
        with self.lock:
            self.events.run_due(self.clock.now())
            return self._handle(request)

    def resolve(self, job: JobRecord, outcome: Outcome) -> None:
        """Take a job's outcome from the runner, which may call from any thread."""
        with self.lock:
            now = self.clock.now()
            self.events.run_due(now)
            self.scheduler.resolve(now, job, outcome)

    def catch_up(self) -> None:
        """Let everything happen that is due by the clock, and bring the bills up to date."""
        with self.lock:
            now = self.clock.now()
            self.events.run_due(now)
            self.scheduler.update_bills(now)

    def _handle(self, request: Request) -> Response:
        if request.path == IAM_PATH:
            wrong = error(404, "Not found.", shape="iam")
            return self.iam.exchange(request) if request.method == "POST" else wrong
        route = self._match(request)
        if route is None:
            return web_application()
        if isinstance(route, Response):
            return route
        operation, handler = route
        error_response = None if operation == "list_versions" else self._authorize(request)
        return handler(request) if error_response is None else error_response

    def _match(self, request: Request) -> tuple[str, Handler] | Response | None:
        """Return the route; None for a path that does not exist; a 404 for a method that a path lacks."""
        known = False
        for method, pattern, operation, handler in self._routes:
            ids = _ids(pattern, request.segments)
            if ids is not None and method == request.method:
                request.ids = ids
                return operation, handler
            known = known or ids is not None
        return not_found(f"Cannot {request.method} {request.path}") if known else None

    def _authorize(self, request: Request) -> Response | None:
        """Check version, token and instance in this order, as every call but /versions is checked."""
        version = request.headers.get("ibm-api-version")
        if version is not None and not _is_date(version):
            return bad_request("Bad request")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.iam.valid(token):
            return error(401, "The token is missing, invalid or expired.")
        crn = request.headers.get("service-crn", "")
        if not crn:
            return bad_request("The Service-CRN header is required.", 1241)
        if not _CRN.fullmatch(crn):
            return bad_request("The Service-CRN header could not be read.", 1348)
        if crn != self.identity.crn:
            return error(404, f"Instance {crn} was not found.", 1279)
        return None


def _ids(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    ids: dict[str, str] = {}
    for wanted, given in zip(pattern, segments, strict=True):
        if wanted == "{id}" and given:
            ids["id"] = given
        elif wanted != given:
            return None
    return ids


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
