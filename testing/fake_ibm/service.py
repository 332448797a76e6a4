# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import secrets
import threading
import uuid
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .catalogue import VERSIONS, Catalogue
from .iam import Iam
from .jobs import Jobs
from .lifecycle import Lifecycle
from .replies import Reply, bad_request, error, html, not_found
from .requests import Request
from .sessions import Sessions
from .timeline import Timeline
from .workloads import Workloads

if TYPE_CHECKING:
    from .clock import Clock
    from .settings import Settings

Handler = Callable[[Request], Reply]
IAM_PATH = "/identity/token"
_CRN = re.compile(r"crn:v1:bluemix:public:quantum-computing:(us-east|eu-de):a/[0-9a-f]{32}:[0-9a-f-]{36}::")


class Service:
    """IBM Quantum and IAM behind one door: no sockets, one request after the other."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.lock = threading.RLock()
        self.settings = settings
        self.clock = clock
        self.api_key = secrets.token_urlsafe(33)
        self.crn = (
            f"crn:v1:bluemix:public:quantum-computing:us-east:a/{secrets.token_hex(16)}:{uuid.uuid4()}::"
        )
        self.user_id = f"IBMid-{secrets.token_hex(5).upper()}"
        self.timeline = Timeline()
        self.life = Lifecycle(settings, self.timeline)
        self.iam = Iam(settings, clock, self.api_key, self.user_id)
        self.leaks: list[str] = []
        self.complaints: list[str] = []
        self._routes = self._table()

    def _table(self) -> list[tuple[str, list[str], str, Handler]]:
        sessions = Sessions(self.life, self.clock, self.user_id)
        jobs = Jobs(self.life, self.clock, self.user_id)
        workloads = Workloads(self.life, self.clock, self.user_id, self.crn)
        catalogue = Catalogue(self.life, self.clock, self.crn)
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
            ("GET /v1/versions", "list_versions", catalogue.versions),
            ("GET /v1/backends", "list_backends", catalogue.backends),
            ("GET /v1/backends/{id}/status", "get_backend_status", catalogue.backend_status),
            (
                "GET /v1/backends/{id}/configuration",
                "get_backend_configuration",
                catalogue.backend_configuration,
            ),
            ("GET /v1/backends/{id}/defaults", "get_backend_defaults", catalogue.backend_defaults),
            ("GET /v1/instance", "get_instance", catalogue.instance),
            ("GET /v1/instances/usage", "get_usage", catalogue.usage),
            ("GET /v1/accounts/{id}", "get_account", catalogue.account),
        ]
        split = [(where.split(" "), operation, handler) for where, operation, handler in rows]
        return [(method, path.split("/")[1:], name, handler) for (method, path), name, handler in split]

    def operation(self, request: Request) -> str:
        """The name of what is asked for; `unknown` for a path or method that does not exist."""
        if request.path == IAM_PATH:
            return "token"
        route = self._match(request)
        return route[0] if isinstance(route, tuple) else "unknown"

    def handle(self, request: Request) -> Reply:
        """Let time catch up, then answer."""
        with self.lock:
            self.timeline.settle(self.clock.now())
            return self._handle(request)

    def inspect(self, request: Request) -> None:
        """Note what a client must not do: show the raw key outside IAM's form, leave headers out."""
        with self.lock:
            for place in self._places_of_key(request):
                self.leaks.append(f"{request.method} {request.path}: API key in the {place}")
            if self.settings.strict_headers and request.path.startswith("/v1/"):
                missing = _missing_headers(request)
                self.complaints += [f"{request.method} {request.path}: {what}" for what in missing]

    def _places_of_key(self, request: Request) -> list[str]:
        places = [name for name, value in request.headers.items() if self.api_key in unquote(value)]
        if self.api_key in unquote(request.target):
            places.append("URL")
        if request.path != IAM_PATH and self.api_key.encode() in request.body:
            places.append("body")
        return places

    def _handle(self, request: Request) -> Reply:
        if request.path == IAM_PATH:
            wrong = error(404, "Not found.", shape="iam")
            return self.iam.exchange(request) if request.method == "POST" else wrong
        route = self._match(request)
        if route is None:
            return html()
        if isinstance(route, Reply):
            return route
        operation, handler = route
        refusal = None if operation == "list_versions" else self._refusal(request)
        return handler(request) if refusal is None else refusal

    def _match(self, request: Request) -> tuple[str, Handler] | Reply | None:
        """The route; None for a path that does not exist; a 404 for a method that a path lacks."""
        known = False
        for method, pattern, operation, handler in self._routes:
            ids = _ids(pattern, request.segments)
            if ids is not None and method == request.method:
                request.ids = ids
                return operation, handler
            known = known or ids is not None
        return not_found(f"Cannot {request.method} {request.path}") if known else None

    def _refusal(self, request: Request) -> Reply | None:
        """What every call but /versions is checked for: version, token, instance, in this order."""
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
        if crn != self.crn:
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


def _missing_headers(request: Request) -> list[str]:
    headers = request.headers
    missing = []
    if headers.get("ibm-api-version") not in VERSIONS:
        missing.append("IBM-API-Version missing or unknown")
    accept = headers.get("accept", "")
    if "application/json" not in accept and not (request.path.endswith("/logs") and "text/plain" in accept):
        missing.append("Accept does not name application/json")
    if not headers.get("x-qx-client-application"):
        missing.append("X-Qx-Client-Application missing")
    if request.body and "application/json" not in headers.get("content-type", ""):
        missing.append("a body that is not declared as application/json")
    return missing
