# SPDX-License-Identifier: Apache-2.0
"""Settings of the service and of its devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

OPEN_MAX_TTL = 600
PAID_MAX_TTL = 28_800
OPEN_MAX_COST = 600
MAX_COST = 10_800
UNUSED_SECONDS = 1_800.0
"""A dedicated session without a job for so long closes by itself."""

Plan = Literal["open", "premium", "flex", "payg"]


@dataclass
class Device:
    """A QPU as GET /backends describes it."""

    qubits: int
    status: Literal["online", "paused", "offline"] = "online"
    reason: str | None = None
    """Reason of the status; None: "available" when online, otherwise "maintenance"."""
    is_reserved: bool = False
    """Reserved for somebody else for now: jobs are refused with code 1233."""
    queue_length: int = 0
    """Jobs of other users in its queue."""
    wait_seconds: float | None = None
    """Average waiting time; None: the setting ``queue_seconds``."""
    shows_wait: bool = True
    """Show waiting times; IBM was seen to send null in their place."""
    is_simulator: bool = False
    processor_type: dict[str, Any] | None = None
    """``family``, ``revision`` and ``segment``; None: those of Qiskit's snapshot."""
    clops: int | None = None
    """Circuit layers per second; None: that of Qiskit's snapshot."""
    performance_metrics: dict[str, Any] | None = None
    """As in GET /backends; None: computed from the calibration data of Qiskit's snapshot."""
    calibrations: list[str] | None = None
    """Ids that ``calibration_id`` may name; None: any."""

    def has_calibration(self, calibration_id: str) -> bool:
        """Return True if jobs can be run with this calibration; the empty string is the default one."""
        return not calibration_id or self.calibrations is None or calibration_id in self.calibrations


CALIBRATIONS = ("alternate",)
"""Calibrations of the emulator's QPUs beside the default one. Those of IBM are for chosen users."""


def default_devices() -> dict[str, Device]:
    """Return five QPUs of which Qiskit's fake provider holds snapshots, all online."""
    qubits = {"ibm_fez": 156, "ibm_marrakesh": 156, "ibm_kingston": 156, "ibm_torino": 133, "ibm_miami": 120}
    return {name: Device(number, calibrations=list(CALIBRATIONS)) for name, number in qubits.items()}


def installed_qiskit() -> str | None:
    """Return the version of Qiskit that computes the jobs; None where none is installed."""
    try:
        return version("qiskit")
    except PackageNotFoundError:
        return None


@dataclass
class Settings:
    """Choices of a user or a test, changeable while the service runs. Times are seconds of its clock."""

    plan: Plan = "premium"
    token_lifetime: int = 3600
    """Lifetime of an IAM token. IBM's is 3600."""
    job_seconds: float = 1.0
    """Running time of a job on the QPU whose outcome names none."""
    queue_seconds: float = 0.0
    """Waiting time of a job whose session does not hold the QPU."""
    lanes: int = 5
    """Jobs that are ``Running`` at a time in one session. IBM: 5 on most backends."""
    one_job_at_a_time: bool = True
    """A QPU executes one job at a time, whatever is ``Running``; False, in tests: all at the same time."""
    interactive_ttl: float = 60.0
    """Idle time after which a session goes inactive. IBM: 60 s for Premium; users cannot choose it."""
    pending_seconds: float = 0.0
    """Duration of the transient states pending_inactive and pending_closed."""
    strict_headers: bool = True
    """In tests: record a complaint for each request without the headers that a well-behaved client sends."""
    closed_session_status: int = 400
    """Status for a job whose session accepts none. IBM documents neither status nor code."""
    create_reply: Literal["full", "id"] = "full"
    """Response to POST /sessions: the session, or (as in IBM's REST guide) its id only."""
    backends: dict[str, Device] = field(default_factory=default_devices)
    failures: list[int] = field(default_factory=list)
    """IBM's reason codes with which the next jobs fail, in order of submission; 0 lets one pass."""
    limit_reached: bool = False
    """The instance's usage limit counts as reached, whatever was used: POST /jobs is answered 409."""
    usage_limit_seconds: float | None = 36_000.0
    """The instance's usage limit; None: no limit, and the response has no fields for it."""
    usage_before: float = 0.0
    """Seconds of the limit that were used before the service started."""
    usage_settle_seconds: float = 0.0
    """Time after a job's end for which its usage is ``pending``."""
    qiskit_version: str | None = field(default_factory=installed_qiskit)
    """Version of Qiskit that the metrics of each job name."""
    provisional_usage: float = 0.5
    """Share of the final charge that is shown as long as usage is ``pending`` after a job's end."""

    @property
    def max_ttl(self) -> int:
        """Return the plan's cap on a session's life from its first job on: 8 h, on Open 10 min."""
        return OPEN_MAX_TTL if self.plan == "open" else PAID_MAX_TTL

    @property
    def max_cost(self) -> int:
        """Return the plan's cap on one job's QPU time: 3 h, on Open 10 min."""
        return OPEN_MAX_COST if self.plan == "open" else MAX_COST
