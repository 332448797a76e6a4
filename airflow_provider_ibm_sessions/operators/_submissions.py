# SPDX-License-Identifier: Apache-2.0
"""The submissions of a task's jobs, kept over a deferral, and which of them to repeat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Submission:
    """
    The last submission of one of a task's jobs.

    :param id: The job's id; None if IBM has refused it.
    :param error: Why IBM has refused it.
    :param private: True if its results can be read once only.
    :param attempts: How often the job was submitted, this time included.
    :param is_awaited: False if the job was final before the task started to wait.
    """

    id: str | None
    error: str | None = None
    private: bool = False
    attempts: int = 1
    is_awaited: bool = True


def to_resume_data(submissions: Sequence[Submission], session_ids: Iterable[str]) -> dict[str, Any]:
    """
    Return what a trigger hands back with its event, as plain JSON.

    :param session_ids: The sessions that were opened for the task so far.
    """
    accepted = [each for each in submissions if each.id]
    return {
        "job_ids": [each.id for each in accepted],
        "refused": {str(index): each.error for index, each in enumerate(submissions) if each.id is None},
        "private": [each.id for each in accepted if each.private],
        "attempts": {each.id: each.attempts for each in accepted if each.attempts > 1},
        "session_ids": list(session_ids),
    }


def from_resume_data(data: Mapping[str, Any], awaited: Sequence[str]) -> list[Submission]:
    """
    Return the submissions in the order of the task's jobs.

    :param data: What :func:`to_resume_data` returned. An older version of this package has not written
        all of its keys.
    :param awaited: The jobs that the trigger has waited for.
    """
    refused, job_ids = data.get("refused", {}), data.get("job_ids", awaited)
    ids = iter(job_ids)
    found = []
    for index in range(len(job_ids) + len(refused)):
        if str(index) in refused:
            found.append(Submission(None, error=refused[str(index)]))
            continue
        job_id = next(ids)
        found.append(
            Submission(
                job_id,
                private=job_id in data.get("private", ()),
                attempts=data.get("attempts", {}).get(job_id, 1),
                is_awaited=job_id in awaited,
            )
        )
    return found
