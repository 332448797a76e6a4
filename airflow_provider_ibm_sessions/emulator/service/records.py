# SPDX-License-Identifier: Apache-2.0
"""Sessions, jobs, outcomes and tokens as the service stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .reason_codes import UNBILLED, reason_of

FINAL = frozenset({"Completed", "Cancelled", "Failed"})
"""Job states that never change again (IBM's API reference, GET /jobs/{id})."""


@dataclass(frozen=True)
class Outcome:
    """The end of a job."""

    status: Literal["Completed", "Failed", "Cancelled"] = "Completed"
    reason: str | None = None
    reason_code: int | None = None
    seconds: float | None = None
    """Running time; None: the setting ``job_seconds``."""
    queue_seconds: float | None = None
    """Waiting time; None: the setting ``queue_seconds``."""
    results: Any = None
    """Body of GET results, as JSON values or encoded; None: the runner's to say."""
    logs: str | None = None
    """Body of GET logs; None: a line with the status."""

    @classmethod
    def of(cls, value: Outcome | Mapping[str, Any]) -> Outcome:
        """Return an outcome, given as such or as a mapping with its fields."""
        return value if isinstance(value, Outcome) else cls(**value)

    @classmethod
    def failed(cls, code: int, detail: str | None = None, seconds: float | None = None) -> Outcome:
        """Return a failure with IBM's reason code and, unless ``detail`` is given, its usual reason."""
        return cls("Failed", detail or reason_of(code), code, seconds)


@dataclass
class SessionRecord:
    """The whole state of one session or batch. Instants in seconds since the epoch."""

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
    """Number of its jobs that were started."""
    active_seconds: float = 0.0
    """Wall-clock time it held the QPU, brought up to date whenever it is read."""
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
        """Return true if the session is closed."""
        return self.state == "closed"

    @property
    def accepts_jobs(self) -> bool:
        """Return true if jobs can be submitted; a closed session takes none, whatever its flag says."""
        return self.accepting_jobs and self.state not in ("pending_closed", "closed")


@dataclass
class JobRecord:
    """The whole state of one job. Instants in seconds since the epoch."""

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
    outcome: Outcome | None = None
    """None as long as the job is being computed."""
    status: str = "Queued"
    reason: str | None = None
    reason_code: int | None = None
    ready_at: float = 0.0
    """When it may start, once a lane is free."""
    started: float | None = None
    """When it became Running: it is prepared, and waits for the QPU."""
    qpu_started: float | None = None
    """When the QPU began with it."""
    finished: float | None = None
    results_read: int = 0
    deleted: bool = False

    @property
    def final(self) -> bool:
        """Return true if the job has ended."""
        return self.status in FINAL

    def ran(self, now: float) -> float:
        """Return the seconds on the QPU so far."""
        if self.qpu_started is None:
            return 0.0
        # To the microsecond, as far as instants in seconds since the epoch are exact.
        return round((now if self.finished is None else self.finished) - self.qpu_started, 6)

    def charged(self, now: float) -> float:
        """Return the seconds that IBM bills so far: none for IBM's own errors."""
        return 0.0 if self.reason_code in UNBILLED else self.ran(now)


@dataclass
class Token:
    """One IAM access token."""

    value: str
    issued: float
    expires: float
    revoked: bool = False
    uses: int = 0
