# SPDX-License-Identifier: Apache-2.0
"""Sessions and jobs as the page's routes send them: plain JSON, times in seconds since the epoch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.enums import JobState

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.models.jobs import Job, JobMetrics
    from airflow_provider_ibm_sessions.client.models.sessions import Session


def session_json(session: Session) -> dict[str, Any]:
    """Return what the page draws of a session."""
    spans = [
        [change.status, change.timestamp.timestamp()]
        for change in session.timestamps or []
        if change.timestamp and change.status
    ]
    return {
        "state": session.state,
        "reason": session.state_reason,
        "backend": session.backend_name,
        "mode": session.mode,
        "accepts_jobs": session.accepts_jobs,
        "max_ttl": session.max_ttl,
        "interactive_ttl": session.interactive_ttl,
        "billed": session.elapsed_time,
        "started": session.started_at.timestamp() if session.started_at else None,
        "closed": session.closed_at.timestamp() if session.closed_at else None,
        "last_job_completed": session.last_job_completed.timestamp() if session.last_job_completed else None,
        "spans": spans[-100:],
    }


def job_json(job: Job, metrics: JobMetrics | None) -> dict[str, Any]:
    """
    Return what the page draws of a job.

    :param metrics: The job's times and usage, if they have been read.
    """
    times = metrics.timestamps if metrics else None
    usage = (metrics.usage if metrics else None) or job.usage

    def at(name: str) -> float | None:
        moment = getattr(times, name, None)
        return moment.timestamp() if moment else None

    return {
        "id": job.id,
        "state": job.final_status,
        "reason": job.detail.reason,
        "program_id": job.program.id if job.program else None,
        "created": at("created") or (job.created.timestamp() if job.created else None),
        "started": at("running"),
        # The times are read after the list, and may be newer.
        "ended": at("finished") if job.is_final else None,
        "qpu_seconds": usage.qpu_charge_time_seconds if usage else None,
    }


def counts_json(jobs: list[Job]) -> dict[str, float]:
    """Return how many of these jobs are done, failed, queued and running, and their QPU time in seconds."""
    return {
        "done": sum(job.is_completed for job in jobs),
        "failed": sum(job.is_final and not job.is_completed for job in jobs),
        "queued": sum(job.final_status == JobState.QUEUED for job in jobs),
        "running": sum(job.final_status == JobState.RUNNING for job in jobs),
        "qpu_seconds": sum((job.usage and job.usage.qpu_charge_time_seconds) or 0.0 for job in jobs),
    }


def session_details(
    session: dict[str, Any], record: dict[str, Any] | None, jobs: dict[str, Any], connection: dict[str, Any]
) -> dict[str, Any]:
    """
    Return a session with its jobs: as IBM describes it, or else as it was recorded at its end.

    :param session: IBM's answer, without ``at`` if there is none.
    :param record: The record of an ended session; its price holds, not today's, also if it has none.
    :param jobs: The jobs with their ``counts``, which are None while the jobs have not been read, and
        ``jobs_error`` if they could not be listed.
    :param connection: The price of the connection.
    """
    record = record or {}
    if "at" not in session and record:
        session = {**_recorded(record), "error": session.get("error")}
    price = record.get("price_per_second") if record else connection.get("price")
    is_listed = jobs["counts"] is not None and not jobs["jobs_error"]
    return {
        **jobs,
        "session": {**session, "jobs": jobs["counts"]},
        "is_recorded": bool(record),
        "ended_by": record.get("closed_by"),
        # IBM forgets jobs: an empty list says nothing of a session that has had some.
        "jobs_are_known": is_listed and bool(jobs["jobs"] or not record.get("jobs")),
        "price": price,
        "currency": (record or connection).get("currency"),
    }


def _recorded(record: dict[str, Any]) -> dict[str, Any]:
    """Return what the page draws of a recorded session."""
    closed = max((at for _, at in record["spans"]), default=None)
    return {**record, "state": "closed", "at": time.time(), "closed": closed}
