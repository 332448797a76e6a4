# SPDX-License-Identifier: Apache-2.0
"""Submit one job, in a session or alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    BaseOperator,
    conf,
)

from airflow_provider_ibm_sessions.client.errors import ConfigurationError, SessionClosedError
from airflow_provider_ibm_sessions.client.validation import (
    DEFAULT_WAIT_TIMEOUT,
    short_repr,
    validate_backend,
    validate_id,
    validate_seconds,
)
from airflow_provider_ibm_sessions.exceptions import (
    IBMQuantumTaskError,
    TaskSupersededError,
    raise_as_airflow_errors,
)
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.lifecycle.session import cancel_before_anew, cancel_job_by_tag, end_all
from airflow_provider_ibm_sessions.lifecycle.task_mixin import IBMQuantumTaskMixin
from airflow_provider_ibm_sessions.lifecycle.task_state import Attempt
from airflow_provider_ibm_sessions.links import IBMQuantumJobLink, IBMQuantumSessionLink, console_url
from airflow_provider_ibm_sessions.operators._job_results import (
    XCOM_BYTES,
    JobResultCollector,
    Storage,
    errors_in,
)
from airflow_provider_ibm_sessions.operators.run_jobs import IBMQuantumRunJobsOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context

    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.models.sessions import Session

__all__ = ["IBMQuantumRunJobsOperator", "IBMQuantumSubmitJobOperator"]


class IBMQuantumSubmitJobOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Submits a job exactly once, and waits for its results.

    Returns ``id``, ``state``, ``results`` (for a sampler ``[{"counts": {register: {bits: count}}}, ...]``,
    for an estimator ``[{"evs": ..., "stds": ...}, ...]``, else as they come), ``usage`` and more of IBM's
    fields. Not waiting, it returns ``id``, ``backend`` and ``session_id``; the XCom ``job_id`` holds the id
    from the submission on. A retry goes on with the job of the attempt before. A job that fails, fails the
    task, without retries.

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
    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    :param wait_for_completion: Wait for the job's end, and return its results.
    :param timeout: Seconds that an attempt waits, queueing included, before the job is cancelled and the task
        fails, without retries.
    :param poll_interval: Seconds between polls.
    :param deferrable: Wait in the triggerer, without a worker slot.
    :param cancel_on_kill: Cancel the job when the task is killed (when it is deferred: in Airflow 3.3 and
        newer), or runs into ``execution_timeout``.
    :param results_path: Folder for results that are too large for XCom, as ``ObjectStoragePath`` takes it
        (``s3://conn_id@bucket/folder``); the result then has ``results_path``. (templated)
    :param results_threshold: Bytes of JSON from which on results are too large.
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
        "ibm_quantum_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"program_params": "json"}
    operator_extra_links: Collection[BaseOperatorLink] = (IBMQuantumJobLink(), IBMQuantumSessionLink())

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
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        wait_for_completion: bool = True,
        timeout: float | timedelta = DEFAULT_WAIT_TIMEOUT,
        poll_interval: float | timedelta = 5,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        cancel_on_kill: bool = True,
        results_path: str | None = None,
        results_threshold: int = XCOM_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.program_id = program_id
        self.program_params = program_params
        self.backend = backend
        self.session_id = session_id
        self.tags = tags
        self.cost = cost
        self.private = private
        self.log_level = log_level
        self.calibration_id = calibration_id
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.wait_for_completion = wait_for_completion
        self.timeout = validate_seconds(timeout, "timeout")
        self.poll_interval = validate_seconds(poll_interval, "poll_interval")
        self.deferrable = deferrable
        self.cancel_on_kill = cancel_on_kill
        self.results_path = results_path
        self.results_threshold = results_threshold
        self.job_id: str | None = None
        self._tag: str | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the job, unless an earlier attempt has, and wait for it if asked to."""
        with raise_as_airflow_errors():
            attempt = Attempt(context)
            try:
                fields = self._checked()
            except ConfigurationError:
                if attempt.is_pending:  # who cannot go on with the job of an attempt before, ends it
                    cancel_job_by_tag(self.hook, attempt.tag())
                raise
            job = self._submitted(attempt, fields)
        self._keep(context, job)
        if not self.wait_for_completion:
            return job.to_json()
        return self._wait(context, time.time() + self.timeout)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take up what the trigger told."""
        event = event or {}
        echo = event.get("echo") or {}
        self.job_id, self.session_id = echo.get("job_id"), echo.get("session_id")
        if self.cancel_on_kill:
            self.raise_if_killed()
        if event.get("status") == "success":
            return self._deliver(context)
        end_time = event.get("end_time", 0.0)
        if event.get("retryable") and time.time() < end_time:
            self.log.warning("%s. Waiting on", event.get("message"))
            return self._wait(context, end_time)
        if self.job_id:
            end_all(self.hook, None, [self.job_id])
        raise AirflowFailException(event.get("message", f"Not an event of ours: {event}"))

    def end_all(self, *, single_attempt: bool) -> None:
        """Cancel the job of a killed task."""
        if not self.cancel_on_kill:
            return
        if self.job_id:
            end_all(self.hook, None, [self.job_id], single_attempt=single_attempt)
        elif self._tag:
            cancel_job_by_tag(self.hook, self._tag, single_attempt=single_attempt)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Called by Airflow after a deferral. When the trigger itself broke for good, cancel the job."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowException:
            attempt = Attempt(context)
            if next_method != "execute_complete" and attempt.is_last:
                cancel_job_by_tag(self.hook, attempt.tag())
            raise

    def _checked(self) -> dict[str, Any]:
        """All that can be known to be wrong before anything is sent."""
        from airflow_provider_ibm_sessions.client.submission import validate_job

        Storage(self.results_path, self.results_threshold).check()
        if not isinstance(self.program_params, Mapping):
            raise ConfigurationError(
                f"program_params must be a mapping, got {short_repr(self.program_params)}",
                field="program_params",
            )
        fields = validate_job(
            {
                "program_id": self.program_id,
                "params": self.program_params,
                "tags": self.tags,
                "cost": self.cost,
                "private": self.private,
                "log_level": self.log_level,
                "calibration_id": self.calibration_id,
            }
        )
        if self.backend is not None:
            fields["backend"] = validate_backend(self.backend)
        if self.session_id is not None:
            fields["session_id"] = validate_id(self.session_id)
        elif self.backend is None:
            raise ConfigurationError("backend or session_id must be given", field="backend")
        return fields

    def _submitted(self, attempt: Attempt, fields: dict[str, Any]) -> Job:
        from airflow_provider_ibm_sessions.client.submission import resume_job

        attempt.begin(fields)
        for key in attempt.forsaken:
            cancel_before_anew(self.hook, attempt.tag(key=key))
            attempt.ended_forsaken(key)
        self._tag = attempt.tag()
        if not attempt.is_first and (found := resume_job(self.hook.get_conn(), self._tag)):
            self.log.info("Job %s was submitted by an earlier attempt: going on with it", found.id)
            return found
        if self.session_id is not None:
            session = require_accepting(self.hook.get_session(self.session_id), self.backend)
            fields.setdefault("backend", session.backend_name)
        self.raise_if_killed()
        return self.hook.submit_job_once(self._tag, is_retry=not attempt.is_first, **fields)

    def _keep(self, context: Context, job: Job) -> None:
        self.job_id = job.id
        self.log.info("Submitted job %s: %s", job.id, console_url(job.id))
        try:
            self.raise_if_killed()
        except TaskSupersededError:
            raise
        except IBMQuantumTaskError:  # killed while the request was under way
            self.end_all(single_attempt=True)
            raise
        context["ti"].xcom_push(key="job_id", value=job.id)
        IBMQuantumJobLink.persist(context, job.id)
        if self.session_id:
            IBMQuantumSessionLink.persist(context, self.session_id)

    def _wait(self, context: Context, end_time: float) -> dict[str, Any]:
        from airflow_provider_ibm_sessions.triggers.base import wait_for
        from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

        trigger = IBMQuantumJobTrigger(
            job_ids=[str(self.job_id)],
            cancel_on_kill=self.cancel_on_kill,
            echo={"job_id": self.job_id, "session_id": self.session_id},
            end_time=end_time,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )
        return self.execute_complete(context, wait_for(self, trigger))

    def _deliver(self, context: Context) -> dict[str, Any]:
        attempt = Attempt(context)
        with raise_as_airflow_errors():
            job = self.hook.get_job(str(self.job_id))
            storage = Storage(self.results_path, self.results_threshold)
            private = [job.id] if self.private else []
            delivery = JobResultCollector(self.hook, attempt, storage, private)
            [report] = delivery.report([job])
        self.log.info("Job %s: %s", job.id, job.final_status)
        if not delivery.results_omitted:
            attempt.delivered()
        if failures := errors_in([report]):
            context["ti"].xcom_push(key="return_value", value=report)
            raise AirflowFailException(failures[0])
        return report


def require_accepting(session: Session, backend: str | None) -> Session:
    """
    Return the session if it can take a job for this backend.

    :raises SessionClosedError: If it takes no jobs.
    :raises ConfigurationError: If it is on another backend, or IBM does not say on which and nor do we.
    """
    if not session.accepts_jobs:
        raise SessionClosedError(
            f"session_id: {session.id} takes no jobs, it is {session.state} "
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
