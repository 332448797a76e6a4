# SPDX-License-Identifier: Apache-2.0
"""Modes and states of IBM's API. IBM may send others, which are never treated as final."""

from __future__ import annotations

from enum import StrEnum


class SessionMode(StrEnum):
    """A session's use of the QPU: reserved for it (``dedicated``) or shared between jobs (``batch``)."""

    DEDICATED = "dedicated"
    BATCH = "batch"


class SessionState(StrEnum):
    """
    The documented states of a session. IBM may send others; only ``closed`` is final.

    ``open``: created, no job has started. ``active``: holds the QPU, is billed. ``inactive``: was idle for
    longer than ``interactive_ttl``; holds nothing, and the next job activates it again.
    """

    OPEN = "open"
    ACTIVE = "active"
    INACTIVE = "inactive"
    CLOSED = "closed"


class JobState(StrEnum):
    """
    The documented states of a job. IBM may send others, which are not final.

    The last one is a cancellation by IBM (``reason_code`` 1305), reported only by the field ``status``.
    """

    QUEUED = "Queued"
    RUNNING = "Running"
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"
    FAILED = "Failed"
    RAN_TOO_LONG = "Cancelled - Ran too long"


class OnJobFailure(StrEnum):
    """A task's reaction to a job that fails: fail as well, or report the error like a result."""

    FAIL = "fail"
    COLLECT = "collect"


class OnClear(StrEnum):
    """A cleared task's reaction: run only the failed jobs again, or all jobs."""

    REPAIR = "repair"
    RERUN = "rerun"


class LogLevel(StrEnum):
    """The level from which on a job's program logs."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"


class ResultDetail(StrEnum):
    """Part of a job's results in a report: counts, the bits of each shot beside them, or IBM's body."""

    COUNTS = "counts"
    MEMORY = "memory"
    RAW = "raw"


class BackendOrder(StrEnum):
    """The figure by which the best of several QPUs is chosen: the lowest wins."""

    WAIT_TIME = "wait_time"
    QUEUE_LENGTH = "queue_length"
    TWO_Q_ERROR = "two_q_error"


class OnLowUsage(StrEnum):
    """A task's reaction to a usage limit that leaves too little: fail, be skipped, or wait for more."""

    FAIL = "fail"
    SKIP = "skip"
    WAIT = "wait"


PENDING_CLOSED = "pending_closed"
"""An undocumented state that Qiskit's client knows: closed, while a running job finishes."""
