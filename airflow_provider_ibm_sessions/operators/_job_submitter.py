# SPDX-License-Identifier: Apache-2.0
"""Submit jobs to a session of their own, each exactly once, and drain it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_ibm_sessions.client.enums import OnClear
from airflow_provider_ibm_sessions.client.errors import (
    USER_ACTION_REQUIRED,
    ConfigurationError,
    IBMQuantumError,
    NotFoundError,
    RequestRejectedError,
)
from airflow_provider_ibm_sessions.client.validation import to_seconds, validate_choice
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors
from airflow_provider_ibm_sessions.lifecycle.kill import is_superseded
from airflow_provider_ibm_sessions.lifecycle.session import (
    close_and_cancel,
    close_quietly,
    discard_previous_run,
    drain,
    end_unrecorded_sessions,
    get_if_accepting_jobs,
)
from airflow_provider_ibm_sessions.lifecycle.usage import push_session_usage
from airflow_provider_ibm_sessions.operators._submissions import Submission
from airflow_provider_ibm_sessions.operators.base import (
    IBMQuantumOperator,
    JobOwnerOperator,
    SessionOwnerOperator,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.submission import ResumedJob
    from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class JobSubmittingOperator(SessionOwnerOperator, JobOwnerOperator, IBMQuantumOperator):
    """
    Base of the tasks that submit jobs to a session of their own.

    :param on_clear: When the task is cleared: ``repair``: completed jobs keep their results, failed ones run
        again in another session. ``rerun``: all jobs run again.
    :param max_estimate: Submit nothing if the jobs take more QPU time than that by an estimate, which is a
        lower bound: seconds, a timedelta or text such as ``"5m"``.
    """

    def __init__(
        self,
        *,
        on_clear: str = "repair",
        max_estimate: int | str | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.on_clear = validate_choice(on_clear, OnClear, "on_clear")
        self.max_estimate = None if max_estimate is None else to_seconds(max_estimate, "max_estimate")
        self._submissions: dict[int, Submission] = {}
        self._kept: dict[int, Submission] = {}
        self._session_ids: list[str] = []

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
    def read_job_fields(self, state: TaskState) -> Sequence[Mapping[str, Any]]:
        """Return the validated jobs as they were submitted, also after a deferral."""

    def resume_or_start(self, state: TaskState, inputs: Any) -> None:
        """Resume what earlier tries have started with the same input; end what they have with other input."""
        if self.on_clear == OnClear.RERUN:
            inputs = [inputs, state.clears]  # so each clear is other input
        if state.retries_jobs and state.input_has_changed(inputs):
            raise ConfigurationError(
                "jobs, backend and mode must render the same each time in this try, so that jobs which have "
                "failed can be submitted again",
                field="jobs",
            )
        if state.input_has_changed(inputs):
            discard_previous_run(self.hook, state)
        state.resume_or_start(inputs)
        # The session of the jobs that have failed is closed.
        self.session_id = None if state.retries_jobs else state.session_id

    def cleanup_on_kill(self, *, fast: bool) -> None:
        """End the session and the jobs of a killed task, or let the jobs run, as ``cancel_on_kill`` says."""
        if self.session_id and self.cancel_on_kill:
            close_and_cancel(self.hook, self.session_id, self._job_ids, fast=fast)
        elif self.session_id:
            drain(self.hook, self.session_id, fast=fast)

    def leave_to_retry(self) -> None:
        """Let the jobs run, and the session close itself after them: the retry collects."""
        if self.session_id:
            self.log.warning(
                "Airflow does not answer: draining session %s, and leaving its jobs to the retry. See %s",
                self.session_id,
                self.hook.console_url(self.session_id),
            )
            drain(self.hook, self.session_id, fast=True)

    def workload(self) -> dict[str, Any]:
        """Return what the task knows of its session and jobs."""
        return {**super().workload(), "job_ids": self._all_job_ids}

    @property
    def _all_job_ids(self) -> list[str]:
        """Return the ids of all jobs that IBM has accepted."""
        return [each.id for each in self._in_order() if each.id]

    @property
    def _job_ids(self) -> list[str]:
        """Return the ids of the jobs that may not be final."""
        return [each.id for each in self._in_order() if each.id and each.is_awaited]

    def _in_order(self) -> list[Submission]:
        return [self._submissions[index] for index in sorted(self._submissions)]

    def _earlier_sessions(self) -> list[str]:
        """Return the ids of the task's sessions except for the present one."""
        return [each for each in self._session_ids if each != self.session_id]

    def _submit_all(self, context: Context, state: TaskState) -> None:
        """Submit what was not submitted yet, and drain the session; leave no session open on an error."""
        try:
            with raise_as_airflow_errors():
                self._submit_missing(context, state)
        except TaskDeferred:  # waits for usage, and has opened nothing
            raise
        except BaseException as error:  # a timeout or a kill as well: raised again
            self._clean_up_after_error(error, state)
            self.raise_if_killed()  # what failed since is the kill's doing
            raise

    def _submit_missing(self, context: Context, state: TaskState) -> None:
        from airflow_provider_ibm_sessions.client.submission import submit_each

        try:
            session_args = self.session_args(context)
            self.validate_paths()
            jobs = self.jobs_to_run(context, state, session_args)
        except ConfigurationError:
            end_unrecorded_sessions(self.hook, context, state)
            raise
        earlier = self.find_submitted_jobs(state, len(jobs))
        resumed = [job for _, job in earlier.values() if job]
        end_unrecorded_sessions(self.hook, context, state, {job.session_id for job in resumed})
        if not (resumed or state.retries_jobs):  # also when the task was cleared after this has failed
            self._check_estimate(jobs)
        self._open_or_resume_session(context, state, session_args, resumed, len(earlier))
        tags = {index: tag for index, (tag, job) in earlier.items() if not job}

        def submit(index: int) -> None:
            self._submissions[index] = self._submit(state, index, tags[index], jobs[index])

        submit_each(submit, tags)
        for index in earlier:
            private = bool(jobs[index].get("private"))
            self._submissions[index] = replace(self._submissions[index], private=private)
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
        self.log.info("The jobs (%d) take at least %s", len(jobs), estimate)
        if self.max_estimate is not None and estimate.qpu_seconds > self.max_estimate:
            raise ConfigurationError(
                f"max_estimate is {self.max_estimate} s, and the jobs take at least {estimate}. Nothing was "
                "submitted; make the jobs smaller, or raise max_estimate",
                field="max_estimate",
            )

    def find_submitted_jobs(self, state: TaskState, count: int) -> dict[int, ResumedJob]:
        """Return, by the jobs' indexes, what was submitted, and the tags of what is to be submitted."""
        from airflow_provider_ibm_sessions.client.submission import (
            ResumedJob,
            count_attempts,
            resume_jobs,
        )

        tags = {index: state.job_tag(index) for index in range(count) if index not in self._kept}
        self._submissions = dict(self._kept)
        if not state.is_resumed:
            return {index: ResumedJob(tag, None) for index, tag in tags.items()}
        session_ids = [*state.session_ids, *([self.session_id] if self.session_id else [])]
        found = resume_jobs(
            self.hook.get_conn(),
            list(tags.values()),
            session_ids,
            state.is_repeated,
            is_complete=state.knows_all_sessions,
            created_after=state.jobs_created_after,
        )
        for index, first_tag in tags.items():
            tag, job = found[first_tag]
            attempts = count_attempts(first_tag, tag)
            if job is None:
                state.save_first_attempt(index, attempts)
            else:
                self._submissions[index] = Submission(job.id, attempts=attempts, is_awaited=not job.is_final)
        if not state.retries_jobs:
            self.log.info(
                "Earlier tries have submitted %d of %d jobs: resuming with them",
                len(self._submissions),
                count,
            )
        return {index: found[tag] for index, tag in tags.items()}

    def _open_or_resume_session(
        self,
        context: Context,
        state: TaskState,
        session_args: dict[str, Any],
        resumed: Sequence[Job],
        count: int,
    ) -> None:
        """Resume the session of an earlier try; while jobs are missing, only if it accepts them."""
        # Where no record says it: the session that was opened last is the one that may accept jobs.
        newest = sorted(resumed, key=lambda job: job.created or _LONG_AGO, reverse=True)
        known = [self.session_id, *(job.session_id for job in newest)]
        for session_id in dict.fromkeys(each for each in known if each):
            if len(resumed) == count or get_if_accepting_jobs(self.hook, session_id):
                self.session_id = session_id
                self.log.info("Resuming session %s of an earlier try", session_id)
                self.hook.register_session(session_id, dag_run_scoped=False)
                if state.may_have_unrecorded_work:
                    state.save_session(session_id)
                break
        else:
            self.open_session(context, state, session_args)
        known = [*self._session_ids, *(job.session_id for job in resumed), self.session_id]
        self._session_ids = list(dict.fromkeys(each for each in known if each))
        self.show_session(context, str(self.session_id))

    def _submit(self, state: TaskState, index: int, tag: str, job: Mapping[str, Any]) -> Submission:
        from airflow_provider_ibm_sessions.client.submission import count_attempts

        self.raise_if_killed()
        try:
            submitted = self.hook.submit_job_once(
                tag,
                is_retry=state.is_resumed,
                created_after=state.jobs_created_after,
                backend=self.backend,
                session_id=self.session_id,
                **job,
            )
        except RequestRejectedError as error:
            # Only what is wrong with this one job, for good. All else is wrong with the others as well.
            if error.retryable or type(error) not in (RequestRejectedError, NotFoundError):
                raise
            self.log.error("jobs[%d] was refused: %s", index, error)  # noqa: TRY400
            return Submission(None, error=str(error))
        self.log.info("Submitted job %s: %s", submitted.id, self.hook.console_url(submitted.id))
        return Submission(submitted.id, attempts=count_attempts(state.job_tag(index), tag))

    def _clean_up_after_error(self, error: BaseException, state: TaskState) -> None:
        """
        Leave no session that accepts jobs, without masking the error.

        Where a retry follows, what is queued may run, since the retry collects the results; else it is ended.
        """
        if self.session_id is None or (self._kill and self._kill.leaves_work()):
            return
        if not self._kill and is_superseded(self._context):
            self.log.warning("Another try is active: session %s and its jobs are left to it", self.session_id)
            return
        is_final = isinstance(error, AirflowFailException | AirflowSkipException)
        is_retried = isinstance(error, Exception) and not is_final
        if state.is_last_try or self._kill or not is_retried:
            close_and_cancel(self.hook, self.session_id, self._job_ids)
            session = close_quietly(self.hook, self.session_id)
            push_session_usage(self._context, self.hook, session, self._earlier_sessions())
            return
        try:
            self.hook.update_session(self.session_id, accepting_jobs=False)
        except IBMQuantumError:
            close_quietly(self.hook, self.session_id)
