# SPDX-License-Identifier: Apache-2.0
"""Submit one job, in a session or alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ibm_sessions.client.enums import LogLevel
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    SessionClosedError,
)
from airflow_provider_ibm_sessions.client.validation import (
    validate_backend,
    validate_bool,
    validate_calibration_id,
    validate_choice,
    validate_id,
    validate_params,
    validate_program_id,
    validate_tags,
)
from airflow_provider_ibm_sessions.exceptions import (
    IBMQuantumTaskError,
    TaskSupersededError,
    raise_as_airflow_errors,
    to_airflow_exception,
)
from airflow_provider_ibm_sessions.lifecycle.session import (
    cancel_job_by_tag,
    close_and_cancel,
    discard_previous_run,
)
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.lifecycle.usage import log_job_logs, push_job_usage
from airflow_provider_ibm_sessions.links import IBMQuantumJobLink
from airflow_provider_ibm_sessions.operators.base import IBMQuantumOperator, JobOwnerOperator
from airflow_provider_ibm_sessions.operators.results import IBMQuantumJobResultsOperator
from airflow_provider_ibm_sessions.operators.run_jobs import IBMQuantumRunJobsOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context

    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.client.submission import ResumedJob
    from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

__all__ = ["IBMQuantumJobResultsOperator", "IBMQuantumRunJobsOperator", "IBMQuantumSubmitJobOperator"]


class IBMQuantumSubmitJobOperator(JobOwnerOperator, IBMQuantumOperator):
    """
    Submit a job exactly once, and wait for its results.

    Returns a report on the job. Not waiting, it returns ``id``, ``backend`` and ``session_id``; the XCom
    ``job_id`` holds the id from the submission on. A retry, and clearing the task, resume with the job of the
    try before. A job that fails, fails the task, without retries; clearing it then submits again.

    :param program_id: ``sampler``, ``estimator``, ``executor`` or another of IBM's programs. (templated)
    :param program_params: The program's input, IBM's ``params``: ``{"pubs": [...], ...}`` with circuits as
        OpenQASM 3 text or as Qiskit encodes them, compiled for the backend. (templated) Airflow has a
        ``params`` of its own, which is another thing.
    :param backend: Name of the QPU. In a session it may be left out. (templated)
    :param session_id: The session to run in; left out, the job queues alone. (templated)
    :param tags: At most 7 labels of at most 86 characters; an eighth is the job's own. (templated)
    :param cost: Longest QPU time in seconds, 0 to 10800. (templated)
    :param private: IBM hides the input, and gives out the results once only. Airflow shows the input among
        the task's rendered templates, and keeps the results in its database.
    :param log_level: What the program logs: ``critical``, ``error``, ``warning``, ``info`` or ``debug``.
    :param calibration_id: The calibration to run with. (templated)
    :param wait_for_completion: Wait until the job is final, and return its results.

    Further arguments are those of :class:`JobOwnerOperator`, :class:`JobWaitingOperator`,
    :class:`WaitingOperator` and :class:`IBMQuantumOperator`. When the time is over, the job is cancelled and
    the task fails, without retries.
    """

    template_fields: Sequence[str] = (
        "program_id",
        "program_params",
        "backend",
        "session_id",
        "tags",
        "cost",
        "calibration_id",
        "results_path",
        "provenance_path",
        "ibm_quantum_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"program_params": "json"}
    operator_extra_links: Collection[BaseOperatorLink] = (
        IBMQuantumJobLink(),
        *IBMQuantumOperator.operator_extra_links,
    )

    returns_dict = True

    def __init__(
        self,
        *,
        program_id: str,
        program_params: Mapping[str, Any],
        backend: str | None = None,
        session_id: str | None = None,
        tags: Sequence[str] = (),
        cost: int | str | timedelta | None = None,
        private: bool = False,
        log_level: str | None = None,
        calibration_id: str | None = None,
        wait_for_completion: bool = True,
        poll_interval: float | timedelta = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(poll_interval=poll_interval, **kwargs)
        self.program_id = program_id
        self.program_params = program_params
        self.backend = backend
        self.session_id = session_id
        self.tags = tags
        self.cost = cost
        self.private = validate_bool(private, "private")
        self.log_level = None if log_level is None else validate_choice(log_level, LogLevel, "log_level")
        self.calibration_id = calibration_id
        self.wait_for_completion = validate_bool(wait_for_completion, "wait_for_completion")
        self.job_id: str | None = None
        self._tag: str | None = None
        self.check_literals(
            program_id=validate_program_id,
            backend=validate_backend,
            session_id=validate_id,
            tags=validate_tags,
            calibration_id=validate_calibration_id,
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the job, unless an earlier try has, and wait for it if asked to."""
        state = TaskState.load(context, self.task_id, after_deferral=self._was_deferred)
        with raise_as_airflow_errors():
            try:
                fields = self.validate_job()
            except ConfigurationError:
                if tag := state.unfinished_job_tag:  # what cannot be resumed, is ended
                    cancel_job_by_tag(self.hook, tag)
                raise
            job = self._submit(state, fields)
        self._take_job(context, job)
        if not self.wait_for_completion:
            state.mark_returned()
            self._push_usage(context, [])
            return job.to_json()
        return self._finish(context, state, self.settle_event(self.wait(time.time() + self.timeout)))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Report on the job when the trigger has fired."""
        event = event or {}
        self.job_id = (event.get("job_ids") or [None])[0]
        self.session_id = event.get("resume_data")
        return self._finish(context, TaskState.load(context, self.task_id), self.settle_event(event))

    def cleanup_on_kill(self, *, fast: bool) -> None:
        """Cancel the job of a killed task."""
        if not self.cancel_on_kill:
            return
        if self.job_id:
            close_and_cancel(self.hook, None, [self.job_id], fast=fast)
        elif self._tag:
            cancel_job_by_tag(self.hook, self._tag, fast=fast)

    def leave_to_retry(self) -> None:
        """Let the job run: the retry finds and awaits it."""
        self.log.warning(
            "Airflow does not answer: leaving job %s to the retry. See %s",
            self.job_id or f"with the tag {self._tag}",
            self.hook.console_url(self.job_id or ""),
        )

    def trigger(self, end_time: float) -> IBMQuantumJobTrigger:
        """Return the trigger that waits for the job."""
        from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

        return IBMQuantumJobTrigger(
            job_ids=[str(self.job_id)],
            cancel_on_kill=self.cancel_on_kill,
            settle_seconds=self.settle_usage or 0,
            resume_data=self.session_id,
            end_time=end_time,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )

    def validate_job(self) -> dict[str, Any]:
        """
        Return the job's fields as they are submitted.

        :raises ConfigurationError: Naming the field that is wrong, before anything is sent.
        """
        from airflow_provider_ibm_sessions.client.submission import validate_job

        self.validate_paths()
        job = {
            "program_id": self.program_id,
            "params": validate_params(self.program_params, "program_params"),
            "tags": self.tags,
            "cost": self.cost,
            "private": self.private,
            "log_level": self.log_level,
            "calibration_id": self.calibration_id,
        }
        try:
            fields = validate_job(job)
        except ConfigurationError as error:
            if error.field != "params":
                raise
            raise ConfigurationError(f"program_{error.message}", field="program_params") from error
        if self.backend is not None:
            fields["backend"] = validate_backend(self.backend)
        if self.session_id is not None:
            fields["session_id"] = validate_id(self.session_id)
        elif self.backend is None:
            raise ConfigurationError("backend or session_id must be given", field="backend")
        return fields

    def _submit(self, state: TaskState, fields: dict[str, Any]) -> Job:
        if state.input_has_changed(fields):
            discard_previous_run(self.hook, state)
        self._tag, found = self._resume(state, fields)
        if found:
            self.log.info("Resuming with job %s, which an earlier try has submitted", found.id)
            state.save_job_tag(self._tag)
            return found
        if self.session_id is not None:
            session = _require_accepting(self.hook.get_session(self.session_id), self.backend)
            fields.setdefault("backend", session.backend_name)
        state.save_job_tag(self._tag)
        self.raise_if_killed()
        return self.hook.submit_job_once(
            self._tag, is_retry=state.is_resumed, created_after=state.jobs_created_after, **fields
        )

    def _resume(self, state: TaskState, fields: dict[str, Any]) -> ResumedJob:
        """Return the job that an earlier try has submitted with the same fields, and its tag."""
        from airflow_provider_ibm_sessions.client.submission import ResumedJob, resume_jobs

        state.resume_or_start(fields)
        tag = state.job_tag()
        if not state.is_resumed:
            return ResumedJob(tag, None)
        found = resume_jobs(
            self.hook.get_conn(),
            [tag],
            is_repeated=state.is_repeated,
            created_after=state.jobs_created_after,
        )
        return found[tag]

    def _take_job(self, context: Context, job: Job) -> None:
        """Link to the job, and cancel it when the task is killed."""
        self.job_id = job.id
        self.log.info("Submitted job %s: %s", job.id, self.hook.console_url(job.id))
        try:
            self.raise_if_killed()
        except TaskSupersededError:
            raise
        except IBMQuantumTaskError:  # killed while the request was under way
            if self._kill and not self._kill.is_left_to_retry:
                self.cleanup_on_kill(fast=True)
            raise
        context["ti"].xcom_push(key="job_id", value=job.id)
        IBMQuantumJobLink.persist(context, self.hook.console_url(job.id))
        if self.session_id:
            self.show_session(context, self.session_id)

    def _finish(self, context: Context, state: TaskState, event: dict[str, Any]) -> dict[str, Any]:
        if self.cancel_on_kill:
            self.raise_if_killed()  # what has ended since is the kill's doing
        if event["status"] != "success":
            if self.job_id:
                close_and_cancel(self.hook, None, [self.job_id])
            self._push_usage(context, self._read_job())
            raise AirflowFailException(event["message"])
        self._push_usage(context, event["jobs"])
        if self.verbose:
            log_job_logs(self.hook, [str(self.job_id)])
        private = [str(self.job_id)] if self.private else []
        [report], collector = self.collect_results(context, state, event["jobs"], private=private)
        self.log.info("Job %s: %s", report["id"], report["state"])
        can_retry = bool(collector.retryable_errors)
        if not can_retry and not collector.results_omitted:
            state.mark_finished(collector.jobs_without_results)
        if "error" in report:
            self.push_reports(context, report)
            raise to_airflow_exception(report["error"], retryable=can_retry)
        return report

    def _push_usage(self, context: Context, jobs: Sequence[Mapping[str, Any]]) -> None:
        from airflow_provider_ibm_sessions.client.models.jobs import Job

        found = [Job.model_validate(job) for job in jobs]
        push_job_usage(context, self.hook, found, session_id=self.session_id)

    def read_fields_by_id(self, state: TaskState) -> dict[str, dict[str, Any]]:
        """Return the job's fields as they were submitted, by its id."""
        return {str(self.job_id): self.validate_job()}

    def _read_job(self) -> list[dict[str, Any]]:
        """Return the job as it is after it was given up, if it can be read."""
        try:
            return [self.hook.get_job(str(self.job_id)).to_json()]
        except IBMQuantumError as error:
            self.log.warning("The usage of job %s is not known: %s", self.job_id, error)
            return []


def _require_accepting(session: Session, backend: str | None) -> Session:
    """
    Return the session if it accepts a job for this backend.

    :raises SessionClosedError: If it accepts no jobs.
    :raises ConfigurationError: If it is on another backend, or neither IBM nor the caller names one.
    """
    if not session.accepts_jobs:
        raise SessionClosedError(
            f"session_id: {session.id} accepts no jobs, it is {session.state} "
            f"({session.state_reason or 'IBM gave no reason'})",
            sent=False,
        )
    if backend and session.backend_name and backend != session.backend_name:
        raise ConfigurationError(
            f"backend must be that of session {session.id}, {session.backend_name}, got '{backend}'",
            field="backend",
        )
    if not backend and not session.backend_name:
        raise ConfigurationError(
            f"backend must be given: IBM does not name that of session {session.id} yet", field="backend"
        )
    return session
