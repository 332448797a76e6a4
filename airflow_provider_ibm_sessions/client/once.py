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
from collections.abc import Iterator
from typing import Any

from airflow_provider_ibm_sessions.client.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import OutcomeUnknownError
from airflow_provider_ibm_sessions.client.jobs import Job

log = logging.getLogger(__name__)

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
                return _or_raise(found, error)
            log.warning("It was not: submitting it again")
        else:
            # An unanswered submission may have been on its way for longer than we looked.
            return submitted if sending == 1 else find_job(client, tag) or submitted
    raise AssertionError("unreachable")


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


def _or_raise(found: Job | None, error: OutcomeUnknownError) -> Job:
    if found is None:
        raise error
    return found
