# SPDX-License-Identifier: Apache-2.0
"""Leave what a task's session or job has used: as the XCom ``usage``, in the log, and as a record."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import redact

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.usage import UsageReport

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

log = logging.getLogger(__name__)

MAX_LOG_LINES = 1000
"""Lines of a job's own log that a task's log shows, the last ones."""


def push_session_usage(
    context: Context | None,
    hook: IBMQuantumHook,
    session: Session | None,
    earlier_ids: Sequence[str] = (),
) -> UsageReport:
    """
    Push what a task's sessions have used; unknown if one could not be read.

    :param context: The task's context; None if it is not known, in the last moments of a killed task.
    :param session: The last session of the task.
    :param earlier_ids: Those that were opened for the same task before, and have ended.
    :returns: The usage of the last session alone.
    """
    usage = UsageReport()
    with _errors_are_logged():
        credentials = hook.credentials
        if session is not None:
            usage = hook.session_usage(session)
            used = usage.describe(credentials.price_per_second, credentials.currency)
            log.info("Session %s is %s: %s", session.id, session.state, used)
        if context is not None:
            total = UsageReport.total([usage, *(_read_usage(hook, each) for each in earlier_ids)])
            if earlier_ids:
                used = total.describe(credentials.price_per_second, credentials.currency)
                log.info("All %d sessions of this task: %s", len(earlier_ids) + 1, used)
            _leave_usage(context, hook, total)
            if session is not None and context.get("task_state_store") is None:
                # Before Airflow 3.3 there is no record that outlives the task.
                push_xcom_quietly(context, "session", session.to_json())
    return usage


def push_job_usage(
    context: Context, hook: IBMQuantumHook, jobs: Sequence[Job], *, session_id: str | None
) -> None:
    """
    Push what a task's one job has used, and keep a record of it if it has run without a session.

    In a session, its QPU time is known, and what is billed is the session's.

    :param jobs: The job; none if it could not be read.
    """
    from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
    from airflow_provider_ibm_sessions.hooks.session_record import SessionRecord
    from airflow_provider_ibm_sessions.hooks.session_registry import VariableSessionRegistry

    with _errors_are_logged():
        usage = UsageReport.of_jobs(jobs) if jobs else UsageReport()
        if session_id is not None:
            usage = replace(usage, billed_seconds=None, billed_is_final=False)
        else:
            owner = SessionOwner.of(context, hook.ibm_quantum_conn_id)
            for job in _with_earlier_jobs(context, hook, jobs):
                VariableSessionRegistry(context).keep(SessionRecord.of_job(job, owner, hook.credentials))
        _leave_usage(context, hook, usage)


def _leave_usage(context: Context, hook: IBMQuantumHook, usage: UsageReport) -> None:
    """Push the XCom ``usage``, and keep it with the task for its lineage."""
    task: Any = context["task"]
    task.usage = hook.usage_to_json(usage)
    push_xcom_quietly(context, "usage", task.usage)


@contextmanager
def _errors_are_logged() -> Iterator[None]:
    """Log what goes wrong with the figures of jobs that are paid for: the task's outcome is what matters."""
    try:
        yield
    except Exception:  # a bug in the figures as well
        log.exception("The usage could not be determined. See it in IBM's console")


def log_job_logs(hook: IBMQuantumHook, job_ids: Iterable[str]) -> None:
    """Bring the jobs' own logs into the task's, without what Airflow masks. Errors are logged."""
    from airflow_provider_ibm_sessions.client.models.base import single_line

    for job_id in job_ids:
        try:
            lines = hook.get_conn().job_logs(job_id).splitlines()
        except IBMQuantumError as error:
            log.warning("The log of job %s was not read: %s", job_id, error)
            continue
        if len(lines) > MAX_LOG_LINES:
            log.info("Job %s: %d lines left out", job_id, len(lines) - MAX_LOG_LINES)
        for line in lines[-MAX_LOG_LINES:]:
            # On one line, without what could control a terminal.
            log.info("Job %s: %s", job_id, redact(single_line(line)))


def _read_usage(hook: IBMQuantumHook, session_id: str) -> UsageReport:
    """Return what an earlier session has used by now, and update its record."""
    try:
        return hook.session_usage(hook.settle_session(session_id))
    except IBMQuantumError as error:
        log.warning("The usage of session %s is not known: %s", session_id, error)
        return UsageReport()


def _with_earlier_jobs(context: Context, hook: IBMQuantumHook, jobs: Sequence[Job]) -> Iterable[Job]:
    """Return the job, and those under its own tag that a retry has replaced: cancelled by a kill."""
    found = {job.id: job for job in jobs}
    own_tags = [tag for job in jobs for tag in (job.tags or [])[-1:]]
    if context["ti"].try_number > 1:
        try:
            for tag in own_tags:
                found = {job.id: job for job in hook.list_jobs(tags=[tag]) if job.is_final} | found
        except IBMQuantumError as error:
            log.warning("Earlier tries may have used more than is recorded: %s", error)
    return found.values()


def push_xcom_quietly(context: Context, key: str, value: dict[str, Any]) -> None:
    """Push an XCom; an error is logged, since the task's own outcome is what matters."""
    try:
        context["ti"].xcom_push(key=key, value=value)
    except Exception:  # whatever it is: Airflow names no exceptions here
        log.warning("The XCom %s could not be pushed: %s", key, value, exc_info=True)
