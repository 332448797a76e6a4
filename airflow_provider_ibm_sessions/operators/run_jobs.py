# SPDX-License-Identifier: Apache-2.0
"""Run a whole experiment in one task: open a session, submit all jobs, drain, wait and report."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)

from airflow_provider_ibm_sessions.client.enums import JobState, OnJobFailure
from airflow_provider_ibm_sessions.client.error_hints import UNBILLED_CODES
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.validation import (
    validate_choice,
    validate_int,
    validate_jobs,
    validate_reason_codes,
)
from airflow_provider_ibm_sessions.exceptions import to_airflow_exception
from airflow_provider_ibm_sessions.lifecycle.session import close_and_cancel
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.lifecycle.usage import (
    log_job_logs,
    push_session_usage,
    push_xcom_quietly,
)
from airflow_provider_ibm_sessions.operators._job_results import errors_in
from airflow_provider_ibm_sessions.operators._job_submitter import JobSubmittingOperator
from airflow_provider_ibm_sessions.operators._submissions import from_resume_data, to_resume_data
from airflow_provider_ibm_sessions.operators.base import SessionOwnerOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

_REFUSED = "Refused"
"""State of a job that IBM has not accepted: our word, where IBM has none."""

_MAX_JOB_RETRIES = 100


class SessionJobsOperator(JobSubmittingOperator):
    """
    Base of the tasks that run jobs in a session of their own, which closes itself with the last of them.

    They open the session, submit every job exactly once, drain at once, so that no second of an idle QPU is
    paid for, and wait until all are final. They return a report for each job, in their order. The XCom
    ``session`` holds the session's details.

    A retry, and clearing the task, resume: in the same session if that still accepts jobs, and with the
    jobs that were submitted, if the input is the same. So clearing collects results, and runs nothing
    again, unless jobs have failed or ``on_clear`` says so.

    :param on_job_failure: When a job fails: ``fail``: the task fails, without retries, when all jobs are
        final; the reports are in its XCom all the same. ``collect``: it succeeds, and the failed job's report
        has an ``error`` in place of ``results``.
    :param job_retries: How often a job that failed with one of ``retry_on`` is submitted again: by the same
        try, when all jobs are final, in another session. Clearing the task allows that many once more.
    :param retry_on: IBM's reason codes. By default those of its own errors, which it does not bill in a
        batch: 1999 and 9999.

    Further arguments are those of :class:`JobSubmittingOperator`, :class:`SessionOwnerOperator`,
    :class:`JobOwnerOperator`, :class:`JobWaitingOperator`, :class:`WaitingOperator` and
    :class:`IBMQuantumOperator`. When the time is over, the session and its jobs are ended and the task fails,
    without retries.
    """

    template_fields: Sequence[str] = (
        *SessionOwnerOperator.template_fields,
        "results_path",
        "provenance_path",
    )

    def __init__(
        self,
        *,
        on_job_failure: str = "fail",
        job_retries: int = 0,
        retry_on: Collection[int | str] = UNBILLED_CODES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.on_job_failure = validate_choice(on_job_failure, OnJobFailure, "on_job_failure")
        self.job_retries = validate_int(job_retries, "job_retries", at_most=_MAX_JOB_RETRIES)
        self.retry_on = validate_reason_codes(retry_on, "retry_on")

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Submit what no earlier try has, drain, and wait."""
        state = TaskState.load(context, self.task_id, after_deferral=self._was_deferred)
        self.session_id, self._session_ids = state.session_id, state.session_ids
        self._submissions, self._kept = {}, {}
        self._submit_all(context, state)
        return self._wait_and_finish(context, state, time.time() + self.timeout)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Report on the jobs when the trigger has fired."""
        event = event or {}
        data = event.get("resume_data") or {}
        self.session_id = event.get("session_id")
        self._session_ids = list(data.get("session_ids", ()))
        self._submissions = dict(enumerate(from_resume_data(data, event.get("job_ids", []))))
        state = TaskState.load(context, self.task_id, after_deferral=True)
        return self._finish(context, state, self.settle_event(event))

    def trigger(self, end_time: float) -> IBMQuantumJobTrigger:
        """Return the trigger that waits for the jobs."""
        from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

        job_ids = self._job_ids or self._all_job_ids
        return IBMQuantumJobTrigger(
            job_ids=job_ids,
            session_id=self.session_id,
            cancel_on_kill=self.cancel_on_kill,
            owns_session=True,
            settle_seconds=self.settle_usage or 0,
            resume_data=to_resume_data(self._in_order(), job_ids, self._session_ids),
            end_time=end_time,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )

    def _wait_and_finish(self, context: Context, state: TaskState, end_time: float) -> list[dict[str, Any]]:
        event = self.wait(end_time) if self._all_job_ids else {"status": "success", "jobs": []}
        return self._finish(context, state, self.settle_event(event))

    # -- reporting -----------------------------------------------------------------------------------

    def _finish(self, context: Context, state: TaskState, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Make sure that the session is closed, submit again what has failed, and report on the jobs."""
        if self.cancel_on_kill:
            self.raise_if_killed()  # what has ended since is the kill's doing
        failures: list[str] = []
        is_given_up = event["status"] != "success"
        if is_given_up:
            failures.append(event["message"])
            self.log.error("%s", event["message"])
            close_and_cancel(self.hook, self.session_id, self._job_ids)
        unclosed = self._ensure_closed(context, event)
        failures += [str(unclosed)] if unclosed else []
        try:
            jobs = self._jobs_from(event)
        except IBMQuantumError as error:
            # Jobs that were given up are not to be run by a retry.
            retryable = error.retryable and not is_given_up
            raise to_airflow_exception("; ".join([*failures, str(error)]), retryable=retryable) from error
        if not failures and (failed := self._find_retried(state, jobs, event)):
            error_of_retry = self._submit_again(context, state, failed)
            if error_of_retry is None:
                return self._wait_and_finish(context, state, event["end_time"])
            failures.append(error_of_retry)
        return self._report(context, state, event, jobs, failures, may_be_open=unclosed is not None)

    def _report(
        self,
        context: Context,
        state: TaskState,
        event: Mapping[str, Any],
        jobs: Sequence[Mapping[str, Any]],
        failures: list[str],
        *,
        may_be_open: bool,
    ) -> list[dict[str, Any]]:
        """
        Collect the results, and return a report for each job.

        :param failures: Errors for which the task fails, whatever its jobs did.
        :param may_be_open: True if a retry of the task is to close the session.
        """
        if self.verbose:
            log_job_logs(self.hook, self._all_job_ids)
        submissions = self._in_order()
        found, collector = self.collect_results(
            context,
            state,
            jobs,
            private=[each.id for each in submissions if each.id and each.private],
            session=event.get("session"),
        )
        reports = {report["id"]: report for report in found}
        ordered = [
            {**reports[each.id], "attempts": each.attempts}
            if each.id
            else {"id": None, "state": _REFUSED, "error": each.error}
            for each in submissions
        ]
        for report in ordered:
            self.log.info("%s", report.get("error") or f"Job {report['id']}: {report['state']}")
        can_retry = event["status"] == "success" and bool(may_be_open or collector.retryable_errors)
        job_errors = errors_in(ordered)
        if can_retry and not state.is_last_try:
            self.push_reports(context, ordered)
            raise to_airflow_exception("; ".join([*failures, *job_errors]), retryable=True)
        if not may_be_open and not collector.results_omitted and not collector.retryable_errors:
            state.mark_finished(collector.jobs_without_results)
        # To collect is to live with jobs that fail, and with nothing else.
        if failures or collector.results_omitted or (job_errors and self.on_job_failure == OnJobFailure.FAIL):
            self.push_reports(context, ordered)
            raise to_airflow_exception("; ".join([*failures, *job_errors]), retryable=False)
        return ordered

    def read_fields_by_id(self, state: TaskState) -> Mapping[str, Mapping[str, Any]]:
        """Return the fields of each job as they were submitted, by its id, also after a deferral."""
        return dict(
            zip([each.id or "" for each in self._in_order()], self.read_job_fields(state), strict=True)
        )

    def _ensure_closed(self, context: Context, event: Mapping[str, Any]) -> IBMQuantumError | None:
        """Close the session unless it has closed itself; return the error if it may be open."""
        from airflow_provider_ibm_sessions.client.models.sessions import Session

        last_read = event.get("session")
        try:
            session = self.hook.ensure_session_closed(
                str(self.session_id), Session.model_validate(last_read) if last_read else None
            )
        except IBMQuantumError as error:
            push_session_usage(context, self.hook, None, self._earlier_sessions())
            return error
        push_session_usage(context, self.hook, session, self._earlier_sessions())
        if session is not None:
            push_xcom_quietly(context, "session", session.to_json())
        return None

    def _jobs_from(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return all jobs, in their order: as the event has them, or else as they are now."""
        from airflow_provider_ibm_sessions.client.flows import JobSet

        is_given_up = event["status"] != "success"
        jobs = {} if is_given_up else {job["id"]: job for job in event["jobs"]}
        missing = [job_id for job_id in self._all_job_ids if job_id not in jobs]
        if missing:
            # What was final before the task started to wait is in an earlier session, most likely the last.
            session_id = self.session_id if is_given_up else next(reversed(self._earlier_sessions()), None)
            poll = JobSet(missing, session_id).poll()
            jobs |= {job.id: job.to_json() for job in self.hook.get_conn().run_flow(poll).jobs}
        return [jobs[job_id] for job_id in self._all_job_ids]

    # -- submitting again what has failed ------------------------------------------------------------

    def _find_retried(
        self, state: TaskState, jobs: Sequence[Mapping[str, Any]], event: Mapping[str, Any]
    ) -> dict[int, str]:
        """Return the ids of the failed jobs that this try is to submit again, by their indexes."""
        failed = {
            job["id"]
            for job in jobs
            if job.get("state") != JobState.COMPLETED and str(job.get("reason_code")) in self.retry_on
        }
        found = {
            index: each.id
            for index, each in self._submissions.items()
            if each.id and each.id in failed and state.count_retries(index, each.attempts) < self.job_retries
        }
        if found and time.time() >= event["end_time"]:
            self.log.warning("Jobs %s have failed, and the timeout leaves no time", ", ".join(found.values()))
            return {}
        return found

    def _submit_again(self, context: Context, state: TaskState, failed: Mapping[int, str]) -> str | None:
        """
        Submit failed jobs again, in another session, as a retry of the task would do.

        :param failed: Their ids by their indexes.
        :returns: The error if it cannot be done, and is not left to a retry of the task; the jobs are
            reported as they are then.
        """
        self.log.warning(
            "Jobs %s have failed for a reason in retry_on: submitting them again, in another session",
            ", ".join(failed.values()),
        )
        self.raise_if_killed()
        if self.verbose:
            log_job_logs(self.hook, failed.values())
        session_id, before = self.session_id, self._submissions
        self._kept = {
            index: replace(each, is_awaited=False) for index, each in before.items() if index not in failed
        }
        self.session_id = None
        self._submissions = dict(self._kept)
        state.retry_jobs(failed.values())
        try:
            self._submit_all(context, state)
        except (AirflowException, AirflowSkipException) as error:
            is_retried = not isinstance(error, AirflowFailException | AirflowSkipException)
            if self._kill or (is_retried and not state.is_last_try):
                raise
            self.session_id, self._submissions = session_id, before
            self.log.exception("Jobs %s are not submitted again", ", ".join(failed.values()))
            return f"Jobs that have failed are not submitted again: {error}"
        for index in failed:  # one that never ran, as its session had closed, is found under its old tag
            new, least = self._submissions[index], before[index].attempts + 1
            self._submissions[index] = replace(new, attempts=max(new.attempts, least))
        return None


class IBMQuantumRunJobsOperator(SessionJobsOperator):
    """
    Run jobs that are ready before the session opens.

    :param jobs: The jobs: mappings with ``program_id``, ``params`` (``{"pubs": [...]}``, circuits as
        OpenQASM 3 text or as Qiskit encodes them, compiled for the backend), and optionally ``tags`` (7 at
        most), ``cost`` (seconds), ``private``, ``log_level``, ``calibration_id``. (templated)

    Further arguments are those of :class:`SessionJobsOperator`.
    """

    template_fields: Sequence[str] = (*SessionJobsOperator.template_fields, "jobs")
    template_fields_renderers: ClassVar[dict[str, str]] = {"jobs": "json"}

    def __init__(self, *, jobs: Sequence[Mapping[str, Any]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.jobs = jobs

    def jobs_to_run(
        self, context: Context, state: TaskState, session_args: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the fields of each job as they are submitted."""
        jobs = self.read_job_fields(state)
        self.resume_or_start(state, [jobs, session_args["backend"], session_args["mode"]])
        return jobs

    def read_job_fields(self, state: TaskState) -> list[dict[str, Any]]:
        """Return the fields of each job as they are submitted."""
        from airflow_provider_ibm_sessions.client.submission import validate_job

        return [validate_job(job, f"jobs[{index}]") for index, job in enumerate(validate_jobs(self.jobs))]
