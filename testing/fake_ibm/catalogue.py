# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import Clock, iso
from .replies import Reply, not_found, ok

if TYPE_CHECKING:
    from .lifecycle import Lifecycle
    from .requests import Request

VERSIONS: dict[str, str | None] = {
    "2024-01-01": "2027-01-01",
    "2025-01-01": "2027-01-01",
    "2025-05-01": "2027-01-01",
    "2026-02-01": "2027-02-01",
    "2026-02-15": "2027-02-15",
    "2026-03-15": "2027-03-15",
    "2026-04-15": None,
}
"""API versions and their sunset dates; the one without is live."""

OBJECTS_SINCE = "2025-01-01"
"""From this API version on GET /backends lists objects; before, names."""
PLAN_IDS = {"open": "plan-open", "premium": "plan-premium", "flex": "plan-flex", "payg": "plan-payg"}


class Catalogue:
    """What exists: API versions, devices, the instance and its usage (IBM's API reference)."""

    def __init__(self, life: Lifecycle, clock: Clock, crn: str) -> None:
        self.life = life
        self.clock = clock
        self.crn = crn
        self.started = clock.now()

    def versions(self, request: Request) -> Reply:
        """GET /v1/versions: the one call without authentication."""
        return ok({"versions": [_version(name, sunset) for name, sunset in VERSIONS.items()]})

    def backends(self, request: Request) -> Reply:
        """GET /v1/backends[?fields=wait_time_seconds]."""
        names = list(self.life.settings.backends)
        if request.headers.get("ibm-api-version", "2024-01-01") < OBJECTS_SINCE:
            return ok({"devices": names})
        waits = "wait_time_seconds" in ",".join(request.query.get("fields", []))
        return ok({"devices": [self._device(name, waits) for name in names]})

    def _device(self, name: str, waits: bool) -> dict[str, Any]:
        settings = self.life.settings
        device: dict[str, Any] = {
            "name": name,
            "status": {"name": "offline" if name in settings.offline else "online", "reason": "available"},
            "qubits": settings.backends[name],
            "queue_length": self._queue(name),
            "processor_type": {"family": "Heron", "revision": "2"},
            "clops": {"type": "hardware", "value": 195_000},
            "is_simulator": False,
            "performance_metrics": {"two_q_error_best": {"value": 0.0014, "unit": None}},
        }
        wait = {
            "average": settings.queue_seconds,
            "p50": settings.queue_seconds,
            "p95": settings.queue_seconds,
        }
        # The Open plan was seen to get no waiting times.
        return device | ({"wait_time_seconds": None if settings.plan == "open" else wait} if waits else {})

    def _queue(self, name: str) -> int:
        return sum(job.backend == name and job.status == "Queued" for job in self.life.jobs.values())

    def backend_status(self, request: Request) -> Reply:
        """GET /v1/backends/{id}/status."""
        name, settings = request.ids["id"], self.life.settings
        if name not in settings.backends:
            return not_found("device not found")
        up = name not in settings.offline
        status = {"state": up, "status": "active" if up else "offline", "message": "available" if up else ""}
        return ok(status | {"length_queue": self._queue(name), "backend_version": "1.0.0"})

    def backend_configuration(self, request: Request) -> Reply:
        """GET /v1/backends/{id}/configuration, the few fields that matter without Qiskit."""
        name, backends = request.ids["id"], self.life.settings.backends
        if name not in backends:
            return not_found("device not found")
        basis = ["cz", "id", "rz", "sx", "x"]
        return ok({"backend_name": name, "n_qubits": backends[name], "basis_gates": basis})

    def backend_defaults(self, request: Request) -> Reply:
        """GET /v1/backends/{id}/defaults: a literal null."""
        return ok(None) if request.ids["id"] in self.life.settings.backends else not_found("device not found")

    def instance(self, request: Request) -> Reply:
        """GET /v1/instance. Two of its numbers are strings."""
        settings = self.life.settings
        return ok(
            {
                "backends": [{"name": name} for name in settings.backends],
                "plan_id": PLAN_IDS[settings.plan],
                "instance_limit_seconds": "36000",
                "usage_allocation_seconds": "36000",
            }
        )

    def usage(self, request: Request) -> Reply:
        """GET /v1/instances/usage."""
        now, settings = self.clock.now(), self.life.settings
        self.life.refresh(now)
        alone = sum(job.ran(now) for job in self.life.jobs.values() if not job.session_id)
        return ok(
            {
                "instance_id": self.crn,
                "plan_id": PLAN_IDS[settings.plan],
                "usage_consumed_seconds": alone + sum(s.billed_seconds for s in self.life.sessions.values()),
                "usage_period": {
                    "start_time": iso(self.started),
                    "end_time": iso(self.started + 28 * 86_400),
                },
                "usage_limit_seconds": 36_000,
                "usage_allocation_seconds": 36_000,
                "usage_limit_reached": settings.limit_reached,
            }
        )

    def account(self, request: Request) -> Reply:
        """GET /v1/accounts/{id}: the timers of the account's plans."""
        if request.ids["id"] != self.crn.split(":")[6].removeprefix("a/"):
            return not_found("Account not found")
        settings = self.life.settings
        ttl = {"max_ttl": settings.max_ttl, "active_ttl": settings.max_ttl}
        plan = {"plan_id": PLAN_IDS[settings.plan]} | ttl | {"interactive_ttl": int(settings.interactive_ttl)}
        return ok({"plans": [plan]})


def _version(name: str, sunset: str | None) -> dict[str, str]:
    if sunset is None:
        return {"version": name, "status": "live"}
    return {"version": name, "status": "deprecated", "sunset_date": sunset}
