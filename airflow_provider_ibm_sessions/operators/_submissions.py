# SPDX-License-Identifier: Apache-2.0
"""The submissions of a task's jobs, kept over a deferral, and which of them to repeat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MAX_REFUSED, _MIN_REFUSED = 8000, 24
"""Characters of all errors of refused jobs that a trigger keeps, and of each at least. The log has them."""


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


def to_resume_data(
    submissions: Sequence[Submission], awaited: Sequence[str], session_ids: Iterable[str]
) -> dict[str, Any]:
    """
    Return what a trigger hands back with its event, as plain JSON.

    Jobs go by their indexes: MySQL keeps 64 kB of a trigger, which has the ids of the awaited jobs already.

    :param awaited: The jobs that the trigger waits for, in the order of their submissions.
    :param session_ids: The sessions that were opened for the task so far.
    """
    numbered = list(enumerate(submissions))
    waits = set(awaited)
    refused = {str(index): each.error or "" for index, each in numbered if each.id is None}
    most = max(_MAX_REFUSED // (len(refused) or 1), _MIN_REFUSED)
    return {
        "count": len(submissions),
        "others": {str(index): each.id for index, each in numbered if each.id and each.id not in waits},
        "refused": {index: error[:most] for index, error in refused.items()},
        "private": [index for index, each in numbered if each.id and each.private],
        "attempts": {str(index): each.attempts for index, each in numbered if each.id and each.attempts > 1},
        "session_ids": list(session_ids),
    }


def from_resume_data(data: Mapping[str, Any], awaited: Sequence[str]) -> list[Submission]:
    """
    Return the submissions in the order of the task's jobs.

    :param data: What :func:`to_resume_data` returned.
    :param awaited: The jobs that the trigger has waited for.
    """
    refused, others, attempts = data.get("refused", {}), data.get("others", {}), data.get("attempts", {})
    ids, waits, private = iter(awaited), set(awaited), set(data.get("private", ()))
    found = []
    for number in range(data.get("count", len(awaited))):
        index = str(number)
        if index in refused:
            found.append(Submission(None, error=refused[index]))
            continue
        job_id = others.get(index) or next(ids)
        found.append(
            Submission(
                job_id,
                private=number in private,
                attempts=attempts.get(index, 1),
                is_awaited=job_id in waits,
            )
        )
    return found
