# SPDX-License-Identifier: Apache-2.0
"""Metrics from the service's recorded state and from Airflow's event log. Times are in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

_WORKING = "running"
_AT_REST = {"success", "failed", "skipped", "deferred", "up_for_retry", "up_for_reschedule"}

Records = Sequence[Mapping[str, Any]]


def paid_idle(recorded: Mapping[str, Any]) -> float:
    """Return the billed seconds in which no job ran: gaps between jobs, and after the last job."""
    open_ = [session["id"] for session in recorded["session_records"] if session["metered_since"]]
    if open_:
        raise RuntimeError(f"still billed: {open_}")
    billed = sum(session["billed_seconds"] for session in recorded["session_records"])
    ran = covered((job["started"], job["finished"]) for job in recorded["job_records"])
    return round(billed - ran, 6) + 0.0  # no minus zero


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the total length of the union of the intervals."""
    total, reached = 0.0, 0.0
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def slot_seconds(events: Records) -> float:
    """
    Return the seconds in a worker, by Airflow's own event log.

    A task instance's ``duration`` does not serve: after a deferral it still counts from the first start.
    """
    total, since = 0.0, {}
    for event in sorted(events, key=lambda event: event["event_log_id"]):
        task = (event["task_id"], event["map_index"], event["try_number"])
        if event["event"] == _WORKING:
            since[task] = _seconds(event["when"])
        elif event["event"] in _AT_REST and task in since:
            total += _seconds(event["when"]) - since.pop(task)
    if since:
        raise RuntimeError(f"no end in the event log: {list(since)}")
    return total


def _seconds(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()
