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
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    OutcomeUnknownError,
)
from airflow_provider_ibm_sessions.client.models.jobs import Job, SubmitJob
from airflow_provider_ibm_sessions.client.operations import validate
from airflow_provider_ibm_sessions.client.validation import MAX_TAG_LENGTH, MAX_TAGS, short_repr, to_seconds

log = logging.getLogger(__name__)

JOB_FIELDS = ("program_id", "params", "tags", "cost", "private", "log_level", "calibration_id")
"""What may be said of a job; its backend and its session are said elsewhere."""

_SENDINGS = 5


def submit_once(client: IBMQuantumClient, tag: str, *, is_retry: bool = False, **job: Any) -> Job:
    """
    Submit a job that no earlier call has submitted; whoever may be a retry calls :func:`resume_job` first.

    :param tag: A tag that no other job has, ever.
    :param is_retry: Look for a double afterwards as well: what the predecessor has submitted in its last
        moment may show in IBM's list only now.
    :param job: Arguments of ``client.submit_job``.
    :raises OutcomeUnknownError: If IBM leaves submissions unanswered, and none of them shows. ``retryable``:
        a later :func:`resume_job` may know more.
    """
    fields = {**job, "tags": [*_checked_tags(job.get("tags") or ()), _checked_tag(tag)]}
    unknown = OutcomeUnknownError("Submit a job: not sent")
    for sending in range(_SENDINGS):
        try:
            submitted = client.submit_job(**fields)
        except OutcomeUnknownError as error:
            unknown = error
            log.warning("%s. Looking for its tag %s", error, tag)
            if found := _settled(client, tag, unknown):
                return found
            log.warning("It does not show. Submission %d of at most %d failed", sending + 1, _SENDINGS)
        except IBMQuantumError:
            # An unanswered submission may have been on its way for longer than we looked.
            if (sending or is_retry) and (found := _single(client, tag)):
                return found
            raise
        else:
            return _single(client, tag, submitted) or submitted if sending or is_retry else submitted
    unknown.retryable = True
    raise unknown


def find_job(client: IBMQuantumClient, tag: str) -> Job | None:
    """
    The job with this tag that counts: the oldest that was not cancelled.

    A job does not count if somebody has cancelled it, or if its session closed before it ran.
    """
    counting = _counting(client, _checked_tag(tag))
    return counting[0] if counting else None


def resume_job(client: IBMQuantumClient, tag: str) -> Job | None:
    """
    The job that an earlier process has submitted under this tag, if it has.

    :param tag: A tag of one's own: should there be two jobs with it, the younger is cancelled.
    """
    return _single(client, _checked_tag(tag))


def validate_job(job: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """
    Return a job's fields for :func:`submit_once`, without its backend and session, if IBM can take them.

    ``None`` stands for a field that is left out. ``cost`` is read as lengths of time are.

    :param place: What to call the job in errors (``jobs[3]``).
    :raises ConfigurationError: Naming the field that is wrong, and what is allowed.
    """
    try:
        return _checked_fields(job)
    except ConfigurationError as error:
        if not place:
            raise
        field = f"{place}.{error.field}" if error.field else place
        raise ConfigurationError(f"{place}: {error.message}", field=field) from error


def _checked_fields(job: Mapping[str, Any]) -> dict[str, Any]:
    allowed = ", ".join(JOB_FIELDS)
    if not isinstance(job, Mapping):
        raise ConfigurationError(f"must be a mapping with {allowed}, got {short_repr(job)}")
    if unknown := [name for name in job if name not in JOB_FIELDS]:
        raise ConfigurationError(f"{unknown[0]}: unknown field; allowed are {allowed}", field=str(unknown[0]))
    fields = {name: value for name, value in job.items() if value is not None}
    fields["tags"] = _checked_tags(fields.get("tags", ()))
    if "cost" in fields:
        fields["cost"] = _checked_cost(fields["cost"])
    validate(SubmitJob, {**fields, "backend": "any"})
    return fields


def _checked_cost(cost: object) -> int:
    """To IBM, 0 is a length of time too."""
    is_zero = isinstance(cost, int | str) and not isinstance(cost, bool) and str(cost).strip() in ("0", "0s")
    return 0 if is_zero else to_seconds(cost, "cost")


def _checked_tags(tags: object) -> list[str]:
    most = MAX_TAGS - 1
    if isinstance(tags, str) or not isinstance(tags, Sequence) or len(tags) > most:
        raise ConfigurationError(
            f"tags must be a list of at most {most} texts (IBM takes {MAX_TAGS}, and one marks the job, so "
            f"that it is never submitted twice), got {short_repr(tags)}",
            field="tags",
        )
    return list(tags)


def _checked_tag(tag: object) -> str:
    if isinstance(tag, str) and 1 <= len(tag) <= MAX_TAG_LENGTH:
        return tag
    raise ConfigurationError(
        f"tag must be a text of 1 to {MAX_TAG_LENGTH} characters, got {short_repr(tag)}", field="tag"
    )


def _counting(client: IBMQuantumClient, tag: str) -> list[Job]:
    # What has not the tag is a stranger's, should IBM ever list more than it was asked for.
    return [job for job in client.list_jobs(tags=[tag]) if tag in (job.tags or ()) and not job.is_void]


def _single(client: IBMQuantumClient, tag: str, submitted: Job | None = None) -> Job | None:
    """The job that counts; a double that waits is cancelled. ``submitted`` may not be listed yet."""
    counting = _counting(client, tag)
    if submitted is not None and submitted.id not in {job.id for job in counting}:
        counting.append(submitted)
    for double in counting[1:]:
        if not double.is_final:
            _cancel(client, double, counting[0])
    return counting[0] if counting else None


def _cancel(client: IBMQuantumClient, double: Job, counting: Job) -> None:
    log.warning("Job %s was submitted twice, as %s too: cancelling that", counting.id, double.id)
    try:
        client.cancel_job(double.id)
    except IBMQuantumError as error:
        log.error("%s", error)  # noqa: TRY400


def _settled(client: IBMQuantumClient, tag: str, unknown: OutcomeUnknownError) -> Job | None:
    """Look until the job shows, or would have shown."""
    for pause in pauses(client.retry.list_lag):
        time.sleep(pause)
        try:
            if found := _single(client, tag):
                return found
        except IBMQuantumError as error:
            unknown.retryable = True
            raise unknown from error
    return None


def pauses(seconds: float) -> Iterator[float]:
    """Growing pauses that add up to ``seconds``; at least one, of nothing."""
    pause, left = seconds / 15, seconds
    while left > pause > 0:
        yield pause
        pause, left = pause * 2, left - pause
    yield left
