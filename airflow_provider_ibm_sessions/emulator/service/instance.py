# SPDX-License-Identifier: Apache-2.0
"""The instance: API versions, backends, usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import snapshots
from .clock import Clock, iso
from .responses import Response, not_found, ok, unknown_calibration

if TYPE_CHECKING:
    from .identity import Identity
    from .requests import Request
    from .scheduler import Scheduler

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
PERIOD_SECONDS = 28 * 86_400


class Instance:
    """The instance and what it offers: API versions, backends, usage (IBM's API reference)."""

    def __init__(self, scheduler: Scheduler, clock: Clock, identity: Identity) -> None:
        self.scheduler = scheduler
        self.settings = scheduler.settings
        self.clock = clock
        self.identity = identity
        self.started = clock.now()

    def versions(self, request: Request) -> Response:
        """Answer GET /v1/versions, the one call without authentication."""
        versions = [
            {"version": name, "status": "live"}
            if sunset is None
            else {"version": name, "status": "deprecated", "sunset_date": sunset}
            for name, sunset in VERSIONS.items()
        ]
        return ok({"versions": versions})

    # -- backends ------------------------------------------------------------------------------------------

    def backends(self, request: Request) -> Response:
        """Answer GET /v1/backends[?fields=wait_time_seconds]."""
        names = list(self.settings.backends)
        if request.headers.get("ibm-api-version", "2024-01-01") < OBJECTS_SINCE:
            return ok({"devices": names})
        waits = "wait_time_seconds" in ",".join(request.query.get("fields", []))
        return ok({"devices": [self._device(name, waits) for name in names]})

    def _device(self, name: str, waits: bool) -> dict[str, Any]:
        device = self.settings.backends[name]
        described = snapshots.configuration(name) or {}
        view: dict[str, Any] = {
            "name": name,
            "status": {"name": device.status, "reason": device.reason or _default_reason(device.status)},
            "qubits": device.qubits,
            "queue_length": self._queue_length(name),
            "processor_type": device.processor_type
            or described.get("processor_type")
            or {"family": "Heron", "revision": "2"},
            "clops": {"type": "hardware", "value": device.clops or described.get("clops_h") or 195_000},
            "is_simulator": device.is_simulator,
            "performance_metrics": device.performance_metrics or snapshots.performance_metrics(name),
        }
        if not waits:
            return view
        wait = self.settings.queue_seconds if device.wait_seconds is None else device.wait_seconds
        times = {"average": wait, "p50": wait, "p95": wait}
        # The Open plan was seen to get no waiting times.
        hidden = self.settings.plan == "open" or not device.shows_wait
        return view | {"wait_time_seconds": None if hidden else times}

    def _queue_length(self, name: str) -> int:
        queued = sum(job.backend == name and job.status == "Queued" for job in self.scheduler.jobs.values())
        return self.settings.backends[name].queue_length + queued

    def backend_status(self, request: Request) -> Response:
        """Answer GET /v1/backends/{id}/status."""
        device = self.settings.backends.get(request.ids["id"])
        if device is None:
            return not_found("device not found")
        return ok(
            {
                "state": device.status == "online",
                "status": "active" if device.status == "online" else device.status,
                "message": device.reason or _default_reason(device.status),
                "length_queue": self._queue_length(request.ids["id"]),
                "backend_version": "1.0.0",
            }
        )

    def backend_configuration(self, request: Request) -> Response:
        """Answer GET /v1/backends/{id}/configuration; without a snapshot, with the few fields that matter."""
        name = request.ids["id"]
        if missing := self._missing(request):
            return missing
        basis = ["cz", "id", "rz", "sx", "x"]
        bare = {"backend_name": name, "n_qubits": self.settings.backends[name].qubits, "basis_gates": basis}
        return ok(snapshots.configuration(name) or bare)

    def backend_properties(self, request: Request) -> Response:
        """Answer GET /v1/backends/{id}/properties, the same for each calibration."""
        found = snapshots.properties(request.ids["id"])
        return self._missing(request) or (not_found("device not found") if found is None else ok(found))

    def _missing(self, request: Request) -> Response | None:
        """Return the error for a device, or for a calibration of it, that there is not."""
        device, calibration = self.settings.backends.get(request.ids["id"]), request.first("calibration_id")
        if device is None:
            return not_found("device not found")
        return None if device.has_calibration(calibration) else not_found(unknown_calibration(calibration))

    def backend_defaults(self, request: Request) -> Response:
        """Answer GET /v1/backends/{id}/defaults: a literal null."""
        return ok(None) if request.ids["id"] in self.settings.backends else not_found("device not found")

    # -- the instance --------------------------------------------------------------------------------------

    def describe(self, request: Request) -> Response:
        """Answer GET /v1/instance. Two of its numbers are strings."""
        limit = self.settings.usage_limit_seconds
        limits = {
            "instance_limit_seconds": f"{limit or 0:.0f}",
            "usage_allocation_seconds": f"{limit or 0:.0f}",
        }
        names = [{"name": name} for name in self.settings.backends]
        return ok({"backends": names, "plan_id": PLAN_IDS[self.settings.plan]} | (limits if limit else {}))

    def usage(self, request: Request) -> Response:
        """Answer GET /v1/instances/usage. Without a limit the limit's fields are absent."""
        now, limit = self.clock.now(), self.settings.usage_limit_seconds
        view: dict[str, Any] = {
            "instance_id": self.identity.crn,
            "plan_id": PLAN_IDS[self.settings.plan],
            "usage_consumed_seconds": self.scheduler.usage_consumed(now),
            "usage_period": {"start_time": iso(self.started), "end_time": iso(self.started + PERIOD_SECONDS)},
        }
        if limit is not None:
            view |= {
                "usage_limit_seconds": int(limit),
                "usage_allocation_seconds": int(limit),
                "usage_limit_reached": self.scheduler.limit_reached(now),
            }
        return ok(view)

    def account(self, request: Request) -> Response:
        """Answer GET /v1/accounts/{id}: the timers of the account's plans."""
        if request.ids["id"] != self.identity.account_id:
            return not_found("Account not found")
        settings = self.settings
        plan = {
            "plan_id": PLAN_IDS[settings.plan],
            "max_ttl": settings.max_ttl,
            "active_ttl": settings.max_ttl,
            "interactive_ttl": int(settings.interactive_ttl),
        }
        return ok({"plans": [plan]})


def _default_reason(status: str) -> str:
    return "available" if status == "online" else "maintenance"
