# SPDX-License-Identifier: Apache-2.0
"""Fetch the results of jobs that exist already."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ibm_sessions.client.enums import JobState, OnJobFailure
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, NotFoundError
from airflow_provider_ibm_sessions.client.validation import (
    validate_bool,
    validate_choice,
    validate_datetime,
    validate_id,
    validate_ids,
    validate_tags,
)
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors, to_airflow_exception
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.lifecycle.usage import log_job_logs
from airflow_provider_ibm_sessions.operators._job_results import JobResultCollector, errors_in
from airflow_provider_ibm_sessions.operators.base import IBMQuantumOperator, JobWaitingOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.flows import Progress
    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger


class IBMQuantumJobResultsOperator(JobWaitingOperator, IBMQuantumOperator):
    """
    Wait for jobs that somebody has submitted, and return their results.

    The jobs are named in one of three ways: ``job_ids``, ``session_id`` or ``tags``. Returns a report for
    each job: in the order of ``job_ids``, else the oldest first. Submits, changes and cancels nothing, even
    when it is killed.

    :param job_ids: The jobs. (templated)
    :param session_id: All jobs of a session. One without jobs is waited for until it closes. (templated)
    :param tags: All jobs that carry each of these tags, and are listed when the task starts. (templated)
    :param created_after: With ``tags``: a time with a time zone, or its ISO 8601 string. (templated)
    :param created_before: The same. (templated)
    :param on_job_failure: When a job has failed or was cancelled: ``fail``: the task fails, without retries;
        the reports are in its XCom all the same. ``collect``: it succeeds, and the job's report has an
        ``error`` in place of ``results``.
    :param wait_for_completion: Wait until the jobs are final. Else a job that is not has a report without
        ``results``, which tells its ``state``.

    Further arguments are those of :class:`JobWaitingOperator`,
    :class:`WaitingOperator` and :class:`IBMQuantumOperator`. When the time is over, the task fails, without
    retries; the reports of jobs that are final are in its XCom.
    """

    template_fields: Sequence[str] = (
        "job_ids",
        "session_id",
        "tags",
        "created_after",
        "created_before",
        "results_path",
        "ibm_quantum_conn_id",
    )

    def __init__(
        self,
        *,
        job_ids: Sequence[str] | str | None = None,
        session_id: str | None = None,
        tags: Sequence[str] | str | None = None,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        on_job_failure: str = "fail",
        wait_for_completion: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sum(each is not None for each in (job_ids, session_id, tags)) != 1:
            raise ConfigurationError(
                "exactly one of job_ids, session_id and tags must be given", field="job_ids"
            )
        if tags is None and (created_after is not None or created_before is not None):
            raise ConfigurationError(
                "created_after and created_before need tags: other jobs are named one by one",
                field="created_after" if created_after is not None else "created_before",
            )
        self.job_ids = job_ids
        self.session_id = session_id
        self.tags = tags
        self.created_after = created_after
        self.created_before = created_before
        self.on_job_failure = validate_choice(on_job_failure, OnJobFailure, "on_job_failure")
        self.wait_for_completion = validate_bool(wait_for_completion, "wait_for_completion")
        self._awaited: list[str] = []
        self._reported: list[str] = []
        self._newest: datetime | None = None
        self.check_literals(
            job_ids=validate_ids,
            session_id=validate_id,
            tags=validate_tags,
            created_after=partial(validate_datetime, field="created_after"),
            created_before=partial(validate_datetime, field="created_before"),
        )

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Find the jobs, and wait for those that are not final."""
        with raise_as_airflow_errors():
            self.result_storage.validate()
            found = self._find_jobs()
        if self.session_id is not None:
            self.show_session(context, self.session_id)
        if not found.jobs:
            period = f"between {self.created_after or 'ever'} and {self.created_before or 'now'}"
            what = f"session {self.session_id}" if self.session_id else f"tags {self.tags} {period}"
            self.log.warning("IBM lists no job of %s: check it, and the connection", what)
        is_done = found.is_done or not (found.jobs or self.session_id)
        if is_done or not self.wait_for_completion:
            return self._finish(context, {"status": "success"}, found.jobs)
        self._awaited = [job.id for job in found.jobs if not job.is_final]
        self._newest = max((job.created for job in found.jobs if job.created), default=None)
        return self._finish(context, self.settle_event(self.wait(time.time() + self.timeout)), found.jobs)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Report on the jobs when the trigger has fired."""
        event = event or {}
        self._awaited = event.get("job_ids") or []
        newest = event.get("resume_data")
        self._newest = datetime.fromisoformat(newest) if newest else None
        return self._finish(context, self.settle_event(event), None)

    def workload(self) -> dict[str, Any]:
        """Return what the task knows of its session and jobs."""
        return {**super().workload(), "job_ids": self._reported}

    def trigger(self, end_time: float) -> IBMQuantumJobTrigger:
        """Return the trigger that waits for the jobs."""
        from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

        return IBMQuantumJobTrigger(
            job_ids=() if self.session_id else self._awaited,
            session_id=self.session_id,
            settle_seconds=self.settle_usage or 0,
            resume_data=self._newest.isoformat() if self._newest else None,
            end_time=end_time,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )

    def _find_jobs(self) -> Progress:
        """
        Return the jobs, and their session if it is named.

        :raises ConfigurationError: Naming the argument that is wrong.
        :raises NotFoundError: If the instance does not know a job or the session.
        """
        from airflow_provider_ibm_sessions.client.flows import JobSet, Progress

        if self.tags is not None:
            return Progress(tuple(self._list_by_tags()))
        found: list[Job] = []
        try:
            if self.session_id is not None:
                self.session_id = validate_id(self.session_id)
                named = f"session_id: {self.session_id}"
                return self.hook.get_conn().run_flow(JobSet((), self.session_id).poll())
            for job_id in validate_ids(self.job_ids):
                named = f"job_ids: {job_id}"
                found.append(self.hook.get_job(job_id))
            return Progress(tuple(found))
        except NotFoundError as error:
            error.message = (
                f"{named} is not known to the instance of connection '{self.ibm_quantum_conn_id}'. It may be "
                f"of another instance, or deleted. {error.message}"
            )
            raise

    def _list_by_tags(self) -> list[Job]:
        tags = validate_tags(self.tags)
        if not tags:
            raise ConfigurationError("tags must name at least one tag", field="tags")
        period = {
            name: validate_datetime(value, name)
            for name, value in (
                ("created_after", self.created_after),
                ("created_before", self.created_before),
            )
            if value is not None
        }
        if len(period) == 2 and period["created_after"] >= period["created_before"]:
            raise ConfigurationError(
                f"created_after must be before created_before, got {self.created_after} and "
                f"{self.created_before}",
                field="created_after",
            )
        return [
            job
            for job in self.hook.list_jobs(tags=tags, **period)
            # The tags are compared again in case IBM ignores the filter. Jobs that were submitted since this
            # task has started to wait are not among those that it waits for.
            if set(tags).issubset(job.tags or ())
            and not (self._newest and job.created and job.created > self._newest)
        ]

    def _read_jobs(
        self, last_read: Iterable[dict[str, Any]], found: Sequence[Job] | None
    ) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """
        Return the jobs by their ids, and the ids of those that are final.

        :param last_read: Those that were waited for: newer than what was found before.
        :param found: None: they are to be found again.
        """
        seen = {job["id"]: job for job in last_read}
        if found is None:
            found = self._find_jobs().jobs
        jobs = {job.id: job.to_json() for job in found} | seen
        final = [*seen, *(job.id for job in found if job.is_final and job.id not in seen)]
        for job_id in final if self.job_ids is None else ():
            is_completed = jobs[job_id].get("state") == JobState.COMPLETED
            if is_completed and "private" not in jobs[job_id]:  # a list need not tell
                jobs[job_id] |= self.hook.get_job(job_id).to_json()
        return jobs, final

    def _finish(
        self, context: Context, event: dict[str, Any], found: Sequence[Job] | None
    ) -> list[dict[str, Any]]:
        """
        Report on the jobs.

        :param event: What the waiting has ended with.
        :param found: None: they are to be found again.
        """
        if event["status"] == "error":
            raise AirflowFailException(event["message"])
        timed_out = event["status"] == "timeout"
        with raise_as_airflow_errors():
            jobs, final = self._read_jobs(event.get("jobs", ()), None if timed_out else found)
        self._reported = list(jobs)
        if self.verbose:
            log_job_logs(self.hook, final)
        state = TaskState.load(context, self.task_id)
        collector = JobResultCollector(self.hook, state, self.result_storage, detail=self.results)
        reports = jobs | {report["id"]: report for report in collector.collect(jobs[name] for name in final)}
        for report in reports.values():
            self.log.info("%s", report.get("error") or f"Job {report['id']}: {report['state']}")
        returned = list(reports.values())
        errors = errors_in(returned)
        can_retry = bool(collector.retryable_errors) and not (timed_out or state.is_last_try)
        if not (collector.retryable_errors or collector.results_omitted or timed_out):
            state.discard_results()  # else clearing the task returns them
        if timed_out:
            errors.insert(0, event["message"])
        elif not (can_retry or collector.results_omitted or self.on_job_failure == OnJobFailure.FAIL):
            return returned
        if errors:
            self.push_reports(context, returned)
            raise to_airflow_exception("; ".join(errors), retryable=can_retry)
        return returned
