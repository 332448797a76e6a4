# SPDX-License-Identifier: Apache-2.0
"""Run a whole experiment in one task: open a session, submit all jobs, drain, wait and report."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_ibm_sessions.client.enums import OnJobFailure
from airflow_provider_ibm_sessions.client.errors import (
    USER_ACTION_REQUIRED,
    ConfigurationError,
    IBMQuantumError,
    NotFoundError,
    RequestRejectedError,
)
from airflow_provider_ibm_sessions.client.validation import (
    to_seconds,
    validate_choice,
    validate_jobs,
)
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors, to_airflow_exception
from airflow_provider_ibm_sessions.lifecycle.session import (
    close_and_cancel,
    close_quietly,
    discard_previous_run,
    drain,
    end_unrecorded_sessions,
    get_if_accepting_jobs,
)
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.lifecycle.usage import log_job_logs, push_session_usage
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink
from airflow_provider_ibm_sessions.operators._job_results import JobResultCollector, errors_in
from airflow_provider_ibm_sessions.operators._provenance import ProvenanceFolder, with_provenance
from airflow_provider_ibm_sessions.operators.base import (
    IBMQuantumOperator,
    JobOwnerOperator,
    SessionOwnerOperator,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.submission import ResumedJob
    from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

_REFUSED = "Refused"
"""State of a job that IBM has not accepted: our word, where IBM has none."""


class SessionJobsOperator(SessionOwnerOperator, JobOwnerOperator, IBMQuantumOperator):
    """
    Base of the tasks that run jobs in a session of their own, which closes itself with the last of them.

    They open the session, submit every job exactly once, drain at once, so that no second of an idle QPU is
    paid for, and wait until all are final. They return a report for each job, in their order. The XCom
    ``session`` holds the session's details.

    A retry, and clearing the task, resume: in the same session if that still accepts jobs, and with the
    jobs that were submitted, if the input is the same. So clearing collects results, and runs nothing
    again, unless jobs have failed.

    :param on_job_failure: When a job fails: ``fail``: the task fails, without retries, when all jobs are
        final; the reports are in its XCom all the same. ``collect``: it succeeds, and the failed job's report
        has an ``error`` in place of ``results``.
    :param max_estimate: Submit nothing if the jobs take more QPU time than that by an estimate, which is a
        lower bound: seconds, a timedelta or text such as ``"5m"``.

    Further arguments are those of :class:`SessionOwnerOperator`, :class:`JobOwnerOperator`,
    :class:`JobWaitingOperator`, :class:`WaitingOperator` and :class:`IBMQuantumOperator`. When the time is
    over, the session and its jobs are ended and the task fails, without retries.
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
        max_estimate: int | str | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_estimate = None if max_estimate is None else to_seconds(max_estimate, "max_estimate")
        self.on_job_failure = validate_choice(on_job_failure, OnJobFailure, "on_job_failure")
        self._submissions: list[dict[str, Any]] = []
        self._job_ids: list[str] = []

    @abstractmethod
    def jobs_to_run(
        self, context: Context, state: TaskState, session_args: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """
        Return the validated jobs, after :meth:`resume_or_start` with all that decides on them.

        :param session_args: What :meth:`session_args` returns.
        :raises ConfigurationError: Naming the job and the field that is wrong, before a session is opened.
        """

    @abstractmethod
    def read_jobs(self, state: TaskState) -> Sequence[Mapping[str, Any]]:
        """Return the validated jobs as they were submitted, also after a deferral."""

    def resume_or_start(self, state: TaskState, inputs: Any) -> None:
        """Resume what earlier tries have started with the same input; end what they have with other input."""
        if state.input_has_changed(inputs):
            discard_previous_run(self.hook, state)
        state.resume_or_start(inputs)
        self.session_id = state.session_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Submit what no earlier try has, drain, and wait."""
        state = TaskState.load(context, self.task_id)
        self.session_id, self._submissions, self._job_ids = state.session_id, [], []
        try:
            with raise_as_airflow_errors():
                self._submit_all(context, state)
        except TaskDeferred:  # waits for usage, and has opened nothing
            raise
        except BaseException as error:  # a timeout or a kill as well: raised again
            self._clean_up_after_error(error, state)
            self.raise_if_killed()  # what failed since is the kill's doing
            raise
        event = self.wait(time.time() + self.timeout) if self._job_ids else {"status": "success", "jobs": []}
        return self._finish(context, state, self.settle_event(event))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Report on the jobs when the trigger has fired."""
        event = event or {}
        resume_data = event.get("resume_data") or {"refused": {}, "private": []}
        self.session_id = event.get("session_id")
        self._restore_submissions(event.get("job_ids", []), resume_data)
        return self._finish(context, TaskState.load(context, self.task_id), self.settle_event(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral; when the trigger broke, leave no session that accepts jobs."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowException as error:
            if next_method not in ("execute_complete", "execute_after_wait"):  # these clean up themselves
                state = TaskState.load(context, self.task_id)
                self.session_id = state.session_id
                self._clean_up_after_error(error, state)
            raise

    def cleanup_on_kill(self, *, fast: bool) -> None:
        """End the session and the jobs of a killed task, or let the jobs run if it is told to."""
        if self.session_id and self.cancel_on_kill:
            close_and_cancel(self.hook, self.session_id, self._job_ids, fast=fast)
        elif self.session_id:
            drain(self.hook, self.session_id, fast=fast)

    def trigger(self, end_time: float) -> IBMQuantumJobTrigger:
        """Return the trigger that waits for the jobs."""
        from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

        submissions = enumerate(self._submissions)
        refused = {str(index): each["error"] for index, each in submissions if each["id"] is None}
        private = [each["id"] for each in self._submissions if each["id"] and each["private"]]
        return IBMQuantumJobTrigger(
            job_ids=[each["id"] for each in self._submissions if each["id"]],
            session_id=self.session_id,
            cancel_on_kill=self.cancel_on_kill,
            owns_session=True,
            settle_seconds=self.settle_usage or 0,
            resume_data={"refused": refused, "private": private},
            end_time=end_time,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )

    # -- submitting ----------------------------------------------------------------------------------

    def _submit_all(self, context: Context, state: TaskState) -> None:
        """Submit what no earlier try has submitted, and drain the session."""
        try:
            session_args = self.session_args(context)
            self.validate_paths()
            jobs = self.jobs_to_run(context, state, session_args)
        except ConfigurationError:
            end_unrecorded_sessions(self.hook, context, state)
            raise
        earlier = self.find_submitted_jobs(state, len(jobs))
        resumed = [job for _, job in earlier if job]
        end_unrecorded_sessions(self.hook, context, state, {job.session_id for job in resumed})
        if not resumed:  # also when the task was cleared after this has failed
            self._check_estimate(jobs)
        self._open_or_resume_session(context, state, session_args, resumed, len(jobs))
        for index, (job, (tag, submitted)) in enumerate(zip(jobs, earlier, strict=True)):
            submission = {"id": submitted.id} if submitted else self._submit(state, index, tag, job)
            self._submissions.append({**submission, "private": bool(job.get("private"))})
        try:
            # Accept no more jobs, so that the session closes itself with the last one.
            self.hook.update_session(str(self.session_id), accepting_jobs=False)
        except USER_ACTION_REQUIRED:
            raise
        except IBMQuantumError as error:
            self.log.warning("%s. Session %s will be closed when its jobs are final", error, self.session_id)
        self.raise_if_killed()

    def _check_estimate(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """
        Log what the jobs take at least.

        :raises ConfigurationError: If that is more than ``max_estimate``.
        """
        estimate = self.hook.estimate_usage(jobs)
        self.log.info("The %d jobs take at least %s", len(jobs), estimate)
        if self.max_estimate is not None and estimate.qpu_seconds > self.max_estimate:
            raise ConfigurationError(
                f"max_estimate is {self.max_estimate} s, and the jobs take at least {estimate}. Nothing was "
                "submitted; make the jobs smaller, or raise max_estimate",
                field="max_estimate",
            )

    def find_submitted_jobs(self, state: TaskState, count: int) -> list[ResumedJob]:
        """Return what earlier tries have submitted, and the tags of what is to be submitted."""
        from airflow_provider_ibm_sessions.client.submission import ResumedJob, resume_jobs

        tags = [state.job_tag(index) for index in range(count)]
        self._job_ids = []
        if not state.is_resumed:
            return [ResumedJob(tag, None) for tag in tags]
        found = resume_jobs(self.hook.get_conn(), tags, self.session_id, state.is_repeated)
        self._job_ids = [job.id for _, job in found.values() if job]
        self.log.info(
            "Earlier tries have submitted %d of %d jobs: resuming with them", len(self._job_ids), count
        )
        return list(found.values())

    def _open_or_resume_session(
        self,
        context: Context,
        state: TaskState,
        session_args: dict[str, Any],
        resumed: Sequence[Job],
        count: int,
    ) -> None:
        """Resume the session of an earlier try; while jobs are missing, only if it accepts them."""
        known = [self.session_id, *(job.session_id for job in resumed)]
        for session_id in dict.fromkeys(each for each in known if each):
            if len(resumed) == count or get_if_accepting_jobs(self.hook, session_id):
                self.session_id = session_id
                self.log.info("Resuming session %s of an earlier try", session_id)
                self.hook.register_session(session_id, dag_run_scoped=False)
                if state.is_lost:
                    state.save_session(session_id)
                break
        else:
            self.open_session(context, state, session_args)
        IBMQuantumSessionLink.persist(context, self.hook.console_url(str(self.session_id)))

    def _submit(self, state: TaskState, index: int, tag: str, job: Mapping[str, Any]) -> dict[str, Any]:
        self.raise_if_killed()
        try:
            submitted = self.hook.submit_job_once(
                tag,
                is_retry=state.is_resumed,
                backend=self.backend,
                session_id=self.session_id,
                **job,
            )
        except RequestRejectedError as error:
            # Only what is wrong with this one job; everything else is wrong with the others as well.
            if type(error) not in (RequestRejectedError, NotFoundError):
                raise
            self.log.error("jobs[%d] was refused: %s", index, error)  # noqa: TRY400
            return {"id": None, "error": str(error)}
        self._job_ids.append(submitted.id)
        self.log.info("Submitted job %s: %s", submitted.id, self.hook.console_url(submitted.id))
        return {"id": submitted.id}

    def _clean_up_after_error(self, error: BaseException, state: TaskState) -> None:
        """
        Leave no session that accepts jobs, without masking the error.

        Where a retry follows, what is queued may run, since the retry collects the results; else it is ended.
        """
        if self.session_id is None or (self._kill and self._kill.is_superseded):
            return
        is_final = isinstance(error, AirflowFailException | AirflowSkipException)
        is_retried = isinstance(error, Exception) and not is_final
        if state.is_last_try or self._kill or not is_retried:
            close_and_cancel(self.hook, self.session_id, self._job_ids)
            session = close_quietly(self.hook, self.session_id)
            push_session_usage(self._context, self.hook, session)
            return
        try:
            self.hook.update_session(self.session_id, accepting_jobs=False)
        except IBMQuantumError:
            close_quietly(self.hook, self.session_id)

    # -- reporting -----------------------------------------------------------------------------------

    def _restore_submissions(self, job_ids: Sequence[str], resume_data: Mapping[str, Any]) -> None:
        """Restore what was submitted, in the order of ``jobs``, from the trigger's event."""
        self._job_ids = list(job_ids)
        refused, ids = resume_data["refused"], iter(job_ids)
        self._submissions = [
            {"id": None, "error": refused[str(index)], "private": False}
            if str(index) in refused
            else {"id": (job_id := next(ids)), "private": job_id in resume_data["private"]}
            for index in range(len(job_ids) + len(refused))
        ]

    def _finish(self, context: Context, state: TaskState, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Make sure that the session is closed, and report on the jobs."""
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
        private = [each["id"] for each in self._submissions if each["private"]]
        folder = ProvenanceFolder(self.hook, self.provenance_path)
        collector = JobResultCollector(
            self.hook,
            state,
            self.result_storage,
            private=private,
            detail=self.results,
            keep_raw=folder.keep_raw,
        )
        try:
            jobs = self._read_jobs() if is_given_up else event["jobs"]
        except IBMQuantumError as error:
            # Jobs that were given up are not to be run by a retry.
            raise to_airflow_exception("; ".join([*failures, str(error)]), retryable=False) from error
        if self.verbose:
            log_job_logs(self.hook, self._job_ids)
        submitted = self._submitted_fields(state)
        jobs = with_provenance(context, jobs, submitted, event.get("session"))
        folder.keep(jobs, submitted)
        reports = {report["id"]: report for report in collector.collect(jobs)}
        ordered = [
            reports.get(each["id"]) or {"id": None, "state": _REFUSED, "error": each["error"]}
            for each in self._submissions
        ]
        for report in ordered:
            self.log.info("%s", report.get("error") or f"Job {report['id']}: {report['state']}")
        can_retry = not is_given_up and bool(unclosed or collector.retryable_errors)
        job_errors = errors_in(ordered)
        if can_retry and not state.is_last_try:
            self.push_reports(context, ordered)
            raise to_airflow_exception("; ".join([*failures, *job_errors]), retryable=True)
        if unclosed is None and not collector.results_omitted and not collector.retryable_errors:
            state.mark_finished(report["id"] for report in ordered if report["id"] and "error" in report)
        # To collect is to live with jobs that fail, and with nothing else.
        if failures or collector.results_omitted or (job_errors and self.on_job_failure == OnJobFailure.FAIL):
            self.push_reports(context, ordered)
            raise to_airflow_exception("; ".join([*failures, *job_errors]), retryable=False)
        return ordered

    def _submitted_fields(self, state: TaskState) -> dict[str, Mapping[str, Any]]:
        """Return the fields of each job as they were submitted, by its id. After a deferral, read again."""
        ids = [each["id"] for each in self._submissions]
        try:
            return dict(zip(ids, self.read_jobs(state), strict=True))
        except Exception:  # of Airflow's store as well: the results are what was paid for
            self.log.warning("The reports carry no parameters", exc_info=True)
            return {}

    def _ensure_closed(self, context: Context, event: Mapping[str, Any]) -> IBMQuantumError | None:
        """Close the session unless it has closed itself; return the error if it may be open."""
        from airflow_provider_ibm_sessions.client.models.sessions import Session

        last_read = event.get("session")
        try:
            session = self.hook.ensure_session_closed(
                str(self.session_id), Session.model_validate(last_read) if last_read else None
            )
        except IBMQuantumError as error:
            push_session_usage(context, self.hook, None)
            return error
        push_session_usage(context, self.hook, session)
        if session is not None:
            context["ti"].xcom_push(key="session", value=session.to_json())
        return None

    def _read_jobs(self) -> list[dict[str, Any]]:
        from airflow_provider_ibm_sessions.client.flows import JobSet

        poll = JobSet(tuple(self._job_ids), self.session_id).poll()
        return [job.to_json() for job in self.hook.get_conn().run_flow(poll).jobs]


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
        jobs = self.read_jobs(state)
        self.resume_or_start(state, [jobs, session_args["backend"], session_args["mode"]])
        return jobs

    def read_jobs(self, state: TaskState) -> list[dict[str, Any]]:
        """Return the fields of each job as they are submitted."""
        from airflow_provider_ibm_sessions.client.submission import validate_job

        return [validate_job(job, f"jobs[{index}]") for index, job in enumerate(validate_jobs(self.jobs))]
