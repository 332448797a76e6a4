# SPDX-License-Identifier: Apache-2.0
"""The words of IBM's API: modes and states. IBM may send others, which are never taken for final."""

from __future__ import annotations

from enum import StrEnum


class SessionMode(StrEnum):
    """How a session uses the QPU: held for you (``dedicated``) or job by job (``batch``)."""

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

    The last one is a cancellation by IBM (``reason_code`` 1305), told only by the field ``status``.
    """

    QUEUED = "Queued"
    RUNNING = "Running"
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"
    FAILED = "Failed"
    RAN_TOO_LONG = "Cancelled - Ran too long"


class OnJobFailure(StrEnum):
    """What a task does when one of its jobs fails: fail as well, or pass the failure on like a result."""

    FAIL = "fail"
    COLLECT = "collect"


PENDING_CLOSED = "pending_closed"
"""A state that IBM's own client knows and no document does: closed, while a job that runs is ending."""
