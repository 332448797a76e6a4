# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .settings import Outcome

FINAL = frozenset({"Completed", "Cancelled", "Failed"})
"""Job states that never change again (IBM's API reference, GET /jobs/{id})."""


@dataclass
class SessionRecord:
    """Everything the service knows about one session or batch. Instants in seconds since the epoch."""

    id: str
    mode: str
    backend: str | None
    max_ttl: int
    interactive_ttl: float
    user_id: str
    created: float
    state: str = "open"
    state_reason: str = "session_created"
    accepting_jobs: bool = True
    started_at: float | None = None
    activated_at: float | None = None
    closed_at: float | None = None
    last_job_started: float | None = None
    last_job_completed: float | None = None
    transitions: list[tuple[str, float]] = field(default_factory=list)
    """Each state entered, and when."""
    jobs: list[str] = field(default_factory=list)
    """Ids of the jobs submitted to it, in order."""
    jobs_run: int = 0
    """How many of them were started."""
    active_seconds: float = 0.0
    """Wall-clock time it held the QPU, brought up to date on every look."""
    billed_seconds: float = 0.0
    """What IBM would bill: active time for a dedicated session, the jobs' QPU time for a batch."""
    cancelled: bool = False
    """Closed by DELETE, which the web console shows as Cancelled."""
    last_submit: float | None = None
    metered_since: float | None = None
    serial: int = 0
    """Raised by every event that makes an earlier timer void."""

    @property
    def final(self) -> bool:
        return self.state == "closed"

    @property
    def accepts_jobs(self) -> bool:
        """A closed session's flag can be flipped to true again, yet it takes no job."""
        return self.accepting_jobs and self.state not in ("pending_closed", "closed")


@dataclass
class JobRecord:
    """Everything the service knows about one job. Instants in seconds since the epoch."""

    id: str
    backend: str
    program_id: str
    params: dict[str, Any]
    user_id: str
    created: float
    session_id: str | None = None
    tags: list[str] = field(default_factory=list)
    cost: float = 0.0
    private: bool = False
    calibration_id: str | None = None
    runtime: str | None = None
    caller: str | None = None
    outcome: Outcome = field(default_factory=Outcome)
    status: str = "Queued"
    reason: str | None = None
    reason_code: int | None = None
    ready_at: float = 0.0
    """When it may start, once a lane is free."""
    started: float | None = None
    finished: float | None = None
    results_read: int = 0
    deleted: bool = False

    @property
    def final(self) -> bool:
        return self.status in FINAL

    def ran(self, now: float) -> float:
        """Seconds on the QPU so far."""
        if self.started is None:
            return 0.0
        return (now if self.finished is None else self.finished) - self.started


@dataclass
class Token:
    """One IAM access token."""

    value: str
    issued: float
    expires: float
    revoked: bool = False
    uses: int = 0


@dataclass
class Entry:
    """One request in the journal."""

    method: str
    path: str
    """Below /api, dot segments resolved, still percent-encoded: `/v1/sessions/...`, `/identity/token`."""
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    json: Any
    time: float
    """On the service's clock."""
    client_port: int
    operation: str | None = None
    status: int | None = None
    """What was sent; None if nothing was."""
    fault: str | None = None
