# SPDX-License-Identifier: Apache-2.0
"""
Submit a job exactly once.

IBM has no idempotency key for jobs, but a job carries tags and can be found by them. So each job gets a tag
of its own. When the response to a submission is lost, the tag shows whether it was carried out; when a whole
process is, its retry asks first.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_ibm_sessions.client.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    OutcomeUnknownError,
)
from airflow_provider_ibm_sessions.client.models.jobs import Job, SubmitJob
from airflow_provider_ibm_sessions.client.operations import validate
from airflow_provider_ibm_sessions.client.validation import (
    MAX_TAG_LENGTH,
    MAX_TAGS,
    short_repr,
    to_seconds,
    validate_string,
    validate_tags,
)

log = logging.getLogger(__name__)

JOB_FIELDS = ("program_id", "params", "tags", "cost", "private", "log_level", "calibration_id")
"""Fields of a job that its owner sets; backend and session are set where it is submitted."""

IN_FLIGHT = 8
"""Submissions at once: 8 of a client's 10 connections."""

_ONE_BY_ONE = 16
"""Jobs that are submitted one by one, so that IBM queues them in their order: at once saves seconds only."""

_SUBMIT_REQUESTS = 5
_MAX_OWN_TAGS = MAX_TAGS - 1
"""Tags that a user may give: the last one marks the job, so that it is never submitted twice."""


def submit_once(
    client: IBMQuantumClient,
    tag: str,
    *,
    is_retry: bool = False,
    created_after: datetime | None = None,
    **job: Any,
) -> Job:
    """
    Submit a job that no earlier call has submitted; a retry calls :func:`resume_job` first.

    :param tag: A tag that no other job ever has.
    :param is_retry: See :func:`post_once`.
    :param created_after: See :func:`post_once`.
    :param job: Arguments of ``client.submit_job``.
    :raises OutcomeUnknownError: See :func:`post_once`.
    """
    fields = {**job, "tags": add_tag(job.get("tags"), _validate_tag(tag))}
    return post_once(
        client, tag, lambda: client.submit_job(**fields), is_retry=is_retry, created_after=created_after
    )


def submit_each(submit: Callable[[int], None], indexes: Iterable[int], *, in_flight: int = IN_FLIGHT) -> None:
    """
    Submit several jobs: few one by one, in their order; of many, the first, then several at once.

    After an error nothing more is sent. It is raised when the outcome of what was sent is known; what
    interrupts the calling thread, such as a timeout of its task, is raised at once.

    :param submit: Submits the job with this index, from any thread.
    :param in_flight: How many are submitted at once.
    """
    numbers = list(indexes)
    # Most of what can be wrong with all shows with the first.
    alone = len(numbers) if len(numbers) <= _ONE_BY_ONE else 1
    for index in numbers[:alone]:
        submit(index)
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="ibm-quantum-submit")
    try:
        submissions = [pool.submit(submit, index) for index in numbers[alone:]]
        wait(submissions, return_when=FIRST_EXCEPTION)
    except BaseException:  # a timeout or a kill: raised again
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown(cancel_futures=True)
    for submission in submissions:
        if not submission.cancelled():
            submission.result()


def post_once(
    client: IBMQuantumClient,
    tag: str,
    post: Callable[[], Job],
    *,
    is_retry: bool = False,
    created_after: datetime | None = None,
) -> Job:
    """
    Post a job that carries this tag, again only if IBM lists no job with it.

    :param post: Sends the request, whose outcome is unknown if it raises ``OutcomeUnknownError``.
    :param is_retry: Look for a duplicate afterwards as well: what the try before has submitted in its last
        moment may be listed only now.
    :param created_after: Jobs that are older are not meant, though they have the tag.
    :raises OutcomeUnknownError: If IBM leaves submissions unanswered and lists none of them. ``retryable``:
        a later :func:`resume_job` may find one.
    """
    unknown = OutcomeUnknownError("Submit a job: not sent")
    for request in range(1, _SUBMIT_REQUESTS + 1):
        may_have_duplicate = is_retry or request > 1
        try:
            submitted = post()
        except OutcomeUnknownError as error:
            unknown = error
            log.warning("%s. Looking for a job with the tag %s", error, tag)
            if found := _wait_and_find(client, tag, unknown, created_after):
                return found
            log.warning("No job has the tag; request %d of at most %d failed", request, _SUBMIT_REQUESTS)
        except IBMQuantumError:
            # An unanswered submission may have been on its way for longer than we looked.
            if may_have_duplicate and (found := resume_job(client, tag, created_after)):
                return found
            raise
        else:
            if not may_have_duplicate:
                return submitted
            jobs = _valid_jobs(client, tag, created_after)
            if submitted.id not in {job.id for job in jobs}:  # not listed yet
                jobs.append(submitted)
            return _keep_oldest(client, jobs) or submitted
    unknown.retryable = True
    raise unknown


def add_tag(tags: object, tag: str, field: str = "tags") -> list[str]:
    """
    Return a job's own tags with the one that marks the job.

    :param field: What to call them in errors.
    :raises ConfigurationError: If they are more than 7, or no tags.
    """
    return [*validate_tags(tags, field, _MAX_OWN_TAGS), tag]


def find_job(client: IBMQuantumClient, tag: str) -> Job | None:
    """
    Return the oldest valid job with this tag.

    A job is void if somebody has cancelled it, or if its session closed before it ran.
    """
    jobs = _valid_jobs(client, _validate_tag(tag))
    return jobs[0] if jobs else None


def resume_job(client: IBMQuantumClient, tag: str, created_after: datetime | None = None) -> Job | None:
    """
    Return the job that an earlier process has submitted under this tag, if there is one.

    :param tag: A tag of one's own: should two jobs have it, the younger is cancelled.
    :param created_after: Jobs that are older are not meant, though they have the tag.
    """
    return _keep_oldest(client, _valid_jobs(client, _validate_tag(tag), created_after))


class ResumedJob(NamedTuple):
    """
    The last submission of a job by earlier processes.

    :param tag: The tag that it has, or that the next submission gets.
    :param job: None if the job is to be submitted.
    """

    tag: str
    job: Job | None


def resume_jobs(
    client: IBMQuantumClient,
    tags: Sequence[str],
    session_ids: Iterable[str] = (),
    is_repeated: Callable[[Job], bool] = lambda _: False,
    *,
    is_complete: bool = False,
    created_after: datetime | None = None,
) -> dict[str, ResumedJob]:
    """
    Return the last submission under each of these tags.

    A job that has failed can be submitted again, under its tag with a number: ``<tag>-1``, ``<tag>-2``.

    :param session_ids: The sessions that they were submitted to, as far as they are known: one list for all
        jobs of each.
    :param is_repeated: Tells of a job that has failed whether it is to be submitted again, or was already.
    :param is_complete: True if these are all sessions there were. Else the tags that none of them has are
        looked up one by one.
    :param created_after: Jobs of other sessions that are older are not meant, though they have such a tag.
    """
    jobs = _JobsByTag(client, session_ids, is_complete=is_complete, created_after=created_after)
    return {tag: _last_submission(jobs, tag, is_repeated) for tag in tags}


def count_attempts(first_tag: str, tag: str) -> int:
    """Return how often a job with this tag was submitted: once under its first tag, which has no number."""
    return 1 + int(tag.removeprefix(first_tag).removeprefix("-") or 0)


def validate_job(job: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """
    Return a job's fields for :func:`submit_once`, without its backend and session.

    ``None`` stands for a field that is left out. ``cost`` is read as other durations are.

    :param place: What to call the job in errors (``jobs[3]``).
    :raises ConfigurationError: Naming the field that is wrong, and what is allowed.
    """
    try:
        return _validate_fields(job)
    except ConfigurationError as error:
        if not place:
            raise
        field = f"{place}.{error.field}" if error.field else place
        raise ConfigurationError(f"{place}: {error.message}", field=field) from error


def backoff_delays(seconds: float) -> Iterator[float]:
    """Yield growing delays that add up to ``seconds``; at least one, of nothing."""
    delay, left = seconds / 15, seconds
    while left > delay > 0:
        yield delay
        delay, left = delay * 2, left - delay
    yield left


def _validate_fields(job: Mapping[str, Any]) -> dict[str, Any]:
    allowed = ", ".join(JOB_FIELDS)
    if not isinstance(job, Mapping):
        raise ConfigurationError(f"must be a mapping with {allowed}, got {short_repr(job)}")
    if unknown := [name for name in job if name not in JOB_FIELDS]:
        name = unknown[0] if isinstance(unknown[0], str) else short_repr(unknown[0])
        raise ConfigurationError(f"{name}: unknown field; allowed are {allowed}", field=name)
    fields = {name: value for name, value in job.items() if value is not None}
    fields["tags"] = validate_tags(fields.get("tags"), "tags", _MAX_OWN_TAGS)
    if "calibration_id" in fields:
        fields["calibration_id"] = validate_string(fields["calibration_id"], "calibration_id")
    if "cost" in fields:
        cost = fields["cost"]
        # To IBM, 0 is a duration too.
        is_zero = cost.strip() in ("0", "0s") if isinstance(cost, str) else type(cost) is int and cost == 0
        fields["cost"] = 0 if is_zero else to_seconds(cost, "cost")
    validate(SubmitJob, {**fields, "backend": "any"})
    return fields


def _validate_tag(tag: object) -> str:
    return validate_string(tag, "tag", MAX_TAG_LENGTH)


class _JobsByTag:
    """The valid jobs of sessions by their tags; those of other sessions are looked up when asked for."""

    def __init__(
        self,
        client: IBMQuantumClient,
        session_ids: Iterable[str],
        *,
        is_complete: bool,
        created_after: datetime | None,
    ) -> None:
        self._client = client
        self._is_complete = is_complete
        self._created_after = created_after
        self._by_tag: dict[str, list[Job]] = {}
        self._read_sessions(session_ids)

    def oldest(self, tag: str) -> Job | None:
        """Return the oldest job with this tag, and cancel the others."""
        if tag not in self._by_tag and not self._is_complete:
            jobs = self._by_tag[tag] = _valid_jobs(self._client, _validate_tag(tag), self._created_after)
            # Where one is, others are: most lie in the same session.
            self._read_sessions(job.session_id for job in jobs if job.session_id)
        return _keep_oldest(self._client, self._by_tag.get(tag, []))

    def _read_sessions(self, session_ids: Iterable[str]) -> None:
        found: dict[str, list[Job]] = {}
        for session_id in dict.fromkeys(session_ids):
            for job in self._client.list_jobs(session_id=session_id):
                for tag in set(job.tags or ()).difference(self._by_tag):
                    if not job.is_void:
                        found.setdefault(tag, []).append(job)
        self._by_tag.update(found)


def _last_submission(jobs: _JobsByTag, tag: str, is_repeated: Callable[[Job], bool]) -> ResumedJob:
    last: ResumedJob | None = None
    for number in itertools.count():
        name = f"{tag}-{number}" if number else tag
        job = jobs.oldest(name)
        if job is None:
            break
        is_spent = is_repeated(job)
        if not is_spent and (job.is_completed or not job.is_final):
            return ResumedJob(name, job)
        last = None if is_spent else ResumedJob(name, job)
    return last or ResumedJob(name, None)


def _valid_jobs(client: IBMQuantumClient, tag: str, created_after: datetime | None = None) -> list[Job]:
    # Tag and time are compared again in case IBM ignores the filters.
    return [
        job
        for job in client.list_jobs(tags=[tag], created_after=created_after)
        if tag in (job.tags or ())
        and not job.is_void
        and not (created_after and job.created and job.created < created_after)
    ]


def _keep_oldest(client: IBMQuantumClient, jobs: Sequence[Job]) -> Job | None:
    """Return the oldest of the jobs that share a tag, and cancel the others that are not final."""
    for duplicate in jobs[1:]:
        if duplicate.is_final:
            continue
        log.warning("Job %s was submitted a second time as %s: cancelling that one", jobs[0].id, duplicate.id)
        try:
            client.cancel_job(duplicate.id)
        except IBMQuantumError as error:
            log.error("Job %s may run as a duplicate of %s: %s", duplicate.id, jobs[0].id, error)  # noqa: TRY400
    return jobs[0] if jobs else None


def _wait_and_find(
    client: IBMQuantumClient, tag: str, unknown: OutcomeUnknownError, created_after: datetime | None
) -> Job | None:
    """Look for the job until it is listed, or would have been."""
    for delay in backoff_delays(client.retry.list_lag):
        time.sleep(delay)
        try:
            if found := resume_job(client, tag, created_after):
                return found
        except IBMQuantumError as error:
            unknown.retryable = True
            raise unknown from error
    return None
