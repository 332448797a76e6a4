# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKENDS: dict[str, int] = {
    "ibm_fez": 156,
    "ibm_marrakesh": 156,
    "ibm_kingston": 156,
    "ibm_torino": 133,
    "ibm_miami": 120,
}
"""Devices and their number of qubits."""

OPEN_MAX_TTL = 600
PAID_MAX_TTL = 28_800
OPEN_MAX_COST = 600
MAX_COST = 10_800
UNUSED_SECONDS = 1_800.0


@dataclass
class Settings:
    """What a test may choose. All may be changed while the service runs. Times are seconds of its clock."""

    plan: Literal["open", "premium", "flex", "payg"] = "premium"
    token_lifetime: int = 3600
    """Life of an IAM token. IBM's is 3600."""
    job_seconds: float = 1.0
    """How long a job runs on the QPU."""
    queue_seconds: float = 0.0
    """How long a job waits for the QPU when its session does not hold it."""
    lanes: int = 5
    """Jobs that run side by side inside one session. IBM: 5 on most backends."""
    interactive_ttl: float = 60.0
    """Idle time after which a session goes inactive. IBM: 60 s for Premium; users cannot choose it."""
    pending_seconds: float = 0.0
    """How long the transient states pending_inactive and pending_closed last."""
    strict_headers: bool = True
    """Note in `complaints` each request without the headers that a well-behaved client sends."""
    closed_session_status: int = 400
    """Answer to a job for a session that takes none. IBM documents neither status nor code."""
    create_reply: Literal["full", "id"] = "full"
    """What POST /sessions answers: the session, or (as in IBM's REST guide) its id only."""
    limit_reached: bool = False
    """The instance's usage limit is reached: POST /jobs is answered 409."""
    backends: dict[str, int] = field(default_factory=lambda: dict(BACKENDS))
    """Devices and their number of qubits."""
    offline: set[str] = field(default_factory=set)
    """Names of devices that report themselves offline."""

    @property
    def max_ttl(self) -> int:
        """The plan's cap on a session's life from its first job on: 8 h, on Open 10 min."""
        return OPEN_MAX_TTL if self.plan == "open" else PAID_MAX_TTL

    @property
    def max_cost(self) -> int:
        """The plan's cap on one job's QPU time: 3 h, on Open 10 min."""
        return OPEN_MAX_COST if self.plan == "open" else MAX_COST


@dataclass(frozen=True)
class Outcome:
    """How one job will go: given in advance, used up by the next job that is submitted."""

    status: Literal["Completed", "Failed", "Cancelled"] = "Completed"
    reason: str | None = None
    reason_code: int | None = None
    seconds: float | None = None
    """Running time; None: the setting `job_seconds`."""
    queue_seconds: float | None = None
    """Waiting time; None: the setting `queue_seconds`."""
    results: Any = None
    """The body of GET results; None: made from the job's parameters."""

    @classmethod
    def of(cls, value: Outcome | Mapping[str, Any]) -> Outcome:
        return value if isinstance(value, Outcome) else cls(**value)
