# SPDX-License-Identifier: Apache-2.0
"""Wait for a job, or for all jobs of a session."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.enums import JobState, OnJobFailure
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, JobFailedError
from airflow_provider_ibm_sessions.client.validation import validate_choice, validate_id
from airflow_provider_ibm_sessions.exceptions import job_error
from airflow_provider_ibm_sessions.links import IBMQuantumJobLink
from airflow_provider_ibm_sessions.sensors.base import IBMQuantumSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context

    from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger


class IBMQuantumJobSensor(IBMQuantumSensor):
    """
    Wait until a job is final, or all jobs of a session are. Changes and cancels nothing.

    Returns the job's details, or a list of those of the session's jobs, oldest first; results are fetched
    with ``IBMQuantumHook().job_results(job_id)``. A session without jobs is waited for until it closes.

    :param job_id: The job. (templated)
    :param session_id: Or the session. (templated)
    :param on_job_failure: When a job has failed or was cancelled: ``fail`` the sensor, without retries, or
        ``collect`` its details like the others'.
    :param timeout: Seconds until the sensor gives up; Airflow's default is 7 days.

    Further arguments are those of :class:`IBMQuantumSensor`.
    """

    template_fields: Sequence[str] = ("job_id", "session_id", "ibm_quantum_conn_id")
    operator_extra_links: Collection[BaseOperatorLink] = (
        IBMQuantumJobLink(),
        *IBMQuantumSensor.operator_extra_links,
    )

    def __init__(
        self,
        *,
        job_id: str | None = None,
        session_id: str | None = None,
        on_job_failure: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.session_id = session_id
        self.on_job_failure = validate_choice(on_job_failure, OnJobFailure, "on_job_failure")
        self._seen: object = None
        self._require_one_id()
        self.check_literals(job_id=partial(validate_id, field="job_id"), session_id=validate_id)

    def validate(self, context: Context) -> None:
        """Validate the id, and show the link."""
        self._require_one_id()
        if self.job_id is not None:
            url = self.hook.console_url(validate_id(self.job_id, "job_id"))
            IBMQuantumJobLink.persist(context, url)
        if self.session_id is not None:
            self.show_session(context, validate_id(self.session_id))

    def poll_once(self) -> Any:
        """Poll the jobs."""
        from airflow_provider_ibm_sessions.client.flows import JobSet

        progress = self.hook.get_conn().run_flow(JobSet(self._job_ids, self.session_id).poll())
        seen = (progress.final, progress.session and progress.session.state)
        if seen != self._seen:
            self._seen = seen
            self.log.info("%s", progress)
        return self._result([job.to_json() for job in progress.jobs]) if progress.is_done else None

    def result_from_event(self, event: dict[str, Any]) -> Any:
        """Return the details of the job or the jobs."""
        return self._result(event["jobs"])

    def trigger(self, **waiting: Any) -> IBMQuantumJobTrigger:
        """Return the trigger that waits for the same."""
        from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

        return IBMQuantumJobTrigger(job_ids=self._job_ids, session_id=self.session_id, **waiting)

    def _require_one_id(self) -> None:
        if (self.job_id is None) == (self.session_id is None):
            raise ConfigurationError("either job_id or session_id must be given", field="job_id")

    @property
    def _job_ids(self) -> tuple[str, ...]:
        return () if self.job_id is None else (self.job_id,)

    def _result(self, jobs: list[dict[str, Any]]) -> Any:
        errors = [
            str(job_error(job, self.hook.console_url(job["id"])))
            for job in jobs
            if job.get("state") != JobState.COMPLETED
        ]
        if errors and self.on_job_failure == OnJobFailure.FAIL:
            raise JobFailedError(f"{len(errors)} of {len(jobs)} jobs did not complete: {'; '.join(errors)}")
        for error in errors:
            self.log.warning("%s", error)
        return jobs if self.job_id is None else jobs[0]
