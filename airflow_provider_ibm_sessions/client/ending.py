# SPDX-License-Identifier: Apache-2.0
"""Ends what nobody waits for any more: the session, and the jobs that run in it."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_ibm_sessions.client.errors import ConflictError, IBMQuantumError
from airflow_provider_ibm_sessions.client.operations import CANCEL_JOB, CLOSE_SESSION, Calls


def end_all(session_id: str | None, job_ids: Iterable[str]) -> Calls[list[str]]:
    """
    Close a session, so that what is queued never runs, and cancel jobs: closing does not stop those that run.

    One that cannot be ended does not keep the others. Follow it with a client.

    :param session_id: The session, if it is to be closed: its owner may.
    :returns: What went wrong, in words.
    """
    calls = [CLOSE_SESSION.call(session_id)] if session_id else []
    calls += [CANCEL_JOB.call(job_id) for job_id in job_ids]
    trouble = []
    for call in calls:
        try:
            yield call
        except ConflictError:
            pass  # it has ended already
        except IBMQuantumError as error:
            trouble.append(str(error))
    return trouble
