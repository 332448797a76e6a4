# SPDX-License-Identifier: Apache-2.0
"""
Submits a job exactly once.

IBM has no idempotency key for jobs, but a job carries tags, and can be found by them. So each job gets a tag
of its own. When the answer to a submission is lost, the tag tells whether it was carried out; when a whole
process is, its successor asks first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_ibm_sessions.client.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, OutcomeUnknownError
from airflow_provider_ibm_sessions.client.jobs import Job, SubmitJob
from airflow_provider_ibm_sessions.client.operations import checked
from airflow_provider_ibm_sessions.client.values import MAX_TAGS, shown, to_seconds

log = logging.getLogger(__name__)

JOB_FIELDS = ("program_id", "params", "tags", "cost", "private", "log_level", "calibration_id")
"""What may be said of a job; its backend and its session are said elsewhere."""

_SENDINGS = 5


def submit_once(client: IBMQuantumClient, tag: str, **job: Any) -> Job:
    """
    Submit a job that no earlier call has submitted; whoever may be a successor calls :func:`find_job` first.

    :param tag: A tag that no other job has, ever.
    :param job: Arguments of ``client.submit_job``.
    :raises OutcomeUnknownError: If IBM leaves each of a few submissions unanswered, and none of them shows.
    """
    fields = {**job, "tags": [*(job.get("tags") or []), tag]}
    for sending in range(1, _SENDINGS + 1):
        try:
            submitted = client.submit_job(**fields)
        except OutcomeUnknownError as error:
            log.warning("%s. Looking whether it was, by its tag %s", error, tag)
            found = _settled(client, tag)
            if found or sending == _SENDINGS:
                return _known(found, error)
            log.warning("It was not: submitting it again")
        else:
            # An unanswered submission may have been on its way for longer than we looked.
            return submitted if sending == 1 else find_job(client, tag) or submitted
    raise AssertionError("unreachable")


def checked_job(job: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """
    Return a job's fields for :func:`submit_once`, without its backend and session, if IBM can take them.

    ``None`` stands for a field that is left out. ``cost`` is read as lengths of time are.

    :param place: What to call the job in errors (``jobs[3]``).
    :raises ConfigurationError: Naming the field that is wrong, and what is allowed.
    """
    try:
        if not isinstance(job, Mapping):
            raise ConfigurationError(f"must be a mapping with {', '.join(JOB_FIELDS)}, got {shown(job)}")
        if unknown := [name for name in job if name not in JOB_FIELDS]:
            raise ConfigurationError(f"{unknown[0]}: unknown field; allowed are {', '.join(JOB_FIELDS)}")
        fields = {name: value for name, value in job.items() if value is not None}
        tags = fields["tags"] = _checked_tags(fields.get("tags", ()))
        if fields.get("cost", 0) not in (0, "0"):
            fields["cost"] = to_seconds(fields["cost"], "cost")
        checked(SubmitJob, {**fields, "tags": tags, "backend": "any"})
    except ConfigurationError as error:
        where = f"{place}: " if place else ""
        raise ConfigurationError(
            f"{where}{error.message}", field=f"{place}.{error.field}".strip(".")
        ) from error
    return fields


def _checked_tags(tags: object) -> list[str]:
    most = MAX_TAGS - 1
    if isinstance(tags, str) or not isinstance(tags, Sequence) or len(tags) > most:
        raise ConfigurationError(
            f"tags must be a list of at most {most} texts (IBM takes {MAX_TAGS}, and one marks the job, so "
            f"that it is never submitted twice), got {shown(tags)}",
            field="tags",
        )
    return list(tags)


def find_job(client: IBMQuantumClient, tag: str) -> Job | None:
    """
    The job with this tag that counts: the oldest that was not cancelled. Others that wait are cancelled.

    A job does not count if somebody has cancelled it, or if its session closed before it ran.
    """
    counting = [job for job in client.list_jobs(tags=[tag]) if not job.never_counted]
    for double in counting[1:]:
        if not double.is_final:
            log.warning("Job %s was submitted twice, as %s too: cancelling that", counting[0].id, double.id)
            client.cancel_job(double.id)
    return counting[0] if counting else None


def _settled(client: IBMQuantumClient, tag: str) -> Job | None:
    """Look until the job shows, or would have shown."""
    for pause in _pauses(client.retry.settling):
        time.sleep(pause)
        if found := find_job(client, tag):
            return found
    return None


def _pauses(seconds: float) -> Iterator[float]:
    """Growing pauses that add up to ``seconds``; at least one, of nothing."""
    pause, left = seconds / 15, seconds
    while left > pause > 0:
        yield pause
        pause, left = pause * 2, left - pause
    yield left


def _known(found: Job | None, error: OutcomeUnknownError) -> Job:
    if found is None:
        error.retryable = True  # whoever comes next asks for the tag first
        raise error
    return found
