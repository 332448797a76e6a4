# SPDX-License-Identifier: Apache-2.0
"""A whole experiment in one task: open a session, submit all jobs, drain, wait without a worker, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    BaseOperator,
    conf,
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
    DEFAULT_WAIT_TIMEOUT,
    short_repr,
    validate_choice,
    validate_seconds,
)
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors, to_airflow_exception
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.hooks.session_registry import enter, strike
from airflow_provider_ibm_sessions.lifecycle.session import (
    SESSION,
    close,
    close_quietly,
    drain,
    end_all,
    end_forsaken,
    get_if_accepting_jobs,
    open_session,
    validate_session_args,
)
from airflow_provider_ibm_sessions.lifecycle.task_mixin import IBMQuantumTaskMixin
from airflow_provider_ibm_sessions.lifecycle.task_state import Attempt
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink, console_url
from airflow_provider_ibm_sessions.operators._job_results import (
    XCOM_BYTES,
    JobResultCollector,
    Storage,
    errors_in,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.models.sessions import Session

_REFUSED = "Refused"
"""The state of a job that IBM has not taken: our word, where IBM has none."""


class IBMQuantumRunJobsOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Runs jobs in a session of their own, which closes itself with the last of them.

    Opens the session, submits every job exactly once, drains at once, so that no second of an idle QPU is
    paid for, and waits until all are final. Returns a report for each job, in the order of ``jobs``: ``id``,
    ``state``, ``results`` or ``error``, ``usage`` and more of IBM's fields. The XCom ``session`` holds the
    session's details.

    A retry goes on where the attempt before it was: in the same session if that still takes jobs, and with
    the jobs that were submitted, if its input is the same.

    :param backend: Name of the QPU. (templated)
    :param jobs: The jobs: mappings with ``program_id``, ``params`` (``{"pubs": [...]}``, circuits as
        OpenQASM 3 text or as Qiskit encodes them, compiled for the backend), and optionally ``tags`` (7 at
        most), ``cost`` (seconds), ``private``, ``log_level``, ``calibration_id``. (templated)
    :param mode: ``dedicated`` or ``batch``. (templated)
    :param max_ttl: Longest life of the session from its first job's start: seconds, a timedelta or
        ``"2h 30m"``; left out, the Dag's ``dagrun_timeout``, at most and else 8 hours. (templated)
    :param on_job_failure: When a job fails: ``fail``: the task fails, without retries, when all jobs have
        ended; the reports are in its XCom all the same. ``collect``: it succeeds, and the failed job's report
        has an ``error`` in place of ``results``.
    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    :param timeout: Seconds that an attempt waits, queueing included, before the session and its jobs are
        ended and the task fails, without retries.
    :param poll_interval: Seconds between polls.
    :param deferrable: Wait in the triggerer, without a worker slot.
    :param cancel_on_kill: End the session and its jobs when the task is killed while it waits (when it is
        deferred: in Airflow 3.3 and newer), or runs into ``execution_timeout``. While it submits, a kill
        always does.
    :param results_path: Folder for results that are too large for XCom, as ``ObjectStoragePath`` takes it
        (``s3://conn_id@bucket/folder``); the reports then have ``results_path``. (templated)
    :param results_threshold: Bytes of JSON from which on all results together are too large.
    """

    template_fields: Sequence[str] = (
        "backend",
        "jobs",
        "mode",
        "max_ttl",
        "results_path",
        "ibm_quantum_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"jobs": "json"}

    def __init__(
        self,
        *,
        backend: str,
        jobs: Sequence[Mapping[str, Any]],
        mode: str = "dedicated",
        max_ttl: int | str | timedelta | None = None,
        on_job_failure: str = "fail",
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        timeout: float | timedelta = DEFAULT_WAIT_TIMEOUT,
        poll_interval: float | timedelta = 10,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        cancel_on_kill: bool = True,
        results_path: str | None = None,
        results_threshold: int = XCOM_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backend = backend
        self.jobs = jobs
        self.mode = mode
        self.max_ttl = max_ttl
        self.on_job_failure = validate_choice(on_job_failure, OnJobFailure, "on_job_failure")
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.timeout = validate_seconds(timeout, "timeout")
        self.poll_interval = validate_seconds(poll_interval, "poll_interval")
        self.deferrable = deferrable
        self.cancel_on_kill = cancel_on_kill
        self.results_path = results_path
        self.results_threshold = results_threshold
        self.session_id: str | None = None
        self._job_ids: list[str] = []

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Submit what no earlier attempt has, drain, and wait."""
        attempt = Attempt(context)
        self.session_id = attempt.recall(SESSION)
        try:
            with raise_as_airflow_errors():
                slots = self._submit_all(context, attempt)
        except BaseException as error:  # a timeout or a kill as well: raised again
            self._leave(error, attempt)
            self.raise_if_killed()  # what failed since is the kill's doing
            raise
        return self._wait(context, slots, time.time() + self.timeout)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Take up what the trigger told."""
        event = event or {}
        echo = event.get("echo") or {"session_id": None, "slots": []}
        self.session_id = echo["session_id"]
        self._job_ids = _ids_in(echo["slots"])
        if self.cancel_on_kill:
            self.raise_if_killed()
        end_time = event.get("end_time", 0.0)
        if event.get("retryable") and time.time() < end_time:
            self.log.warning("%s. Waiting on", event.get("message"))
            return self._wait(context, echo["slots"], end_time)
        trouble = None
        if event.get("status") != "success":
            trouble = event.get("message", f"Not an event of ours: {event}")
            self.log.error("%s", trouble)
            end_all(self.hook, self.session_id, self._job_ids)
        return self._conclude(context, echo["slots"], trouble)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Called by Airflow after a deferral. When the trigger broke, leave no session that takes jobs."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowException as error:
            if next_method != "execute_complete":
                attempt = Attempt(context)
                self.session_id = attempt.recall(SESSION)
                self._leave(error, attempt)
            raise

    def end_all(self, *, single_attempt: bool) -> None:
        """End the session and the jobs of a killed task."""
        if self.session_id and self.cancel_on_kill:
            end_all(self.hook, self.session_id, self._job_ids, single_attempt=single_attempt)
        elif self.session_id:
            drain(self.hook, self.session_id, single_attempt=single_attempt)

    # -- submitting ----------------------------------------------------------------------------------

    def _checked_jobs(self) -> list[dict[str, Any]]:
        """All that can be known to be wrong before anything is sent."""
        from airflow_provider_ibm_sessions.client.submission import validate_job

        Storage(self.results_path, self.results_threshold).check()
        if isinstance(self.jobs, str | Mapping) or not isinstance(self.jobs, Sequence) or not self.jobs:
            raise ConfigurationError(
                f"jobs must be a list of at least one job, got {short_repr(self.jobs)}", field="jobs"
            )
        return [validate_job(job, f"jobs[{index}]") for index, job in enumerate(self.jobs)]

    def _submit_all(self, context: Context, attempt: Attempt) -> list[dict[str, Any]]:
        """A slot for each job: its ``id``, or the ``error`` with which IBM refused it."""
        session = validate_session_args(context, backend=self.backend, mode=self.mode, max_ttl=self.max_ttl)
        jobs = self._checked_jobs()
        attempt.begin([jobs, session["backend"], session["mode"]])
        end_forsaken(self.hook, context, attempt)
        self.session_id = attempt.recall(SESSION)
        earlier = {} if attempt.is_first else self._find_earlier(attempt, len(jobs))
        self._enter_session(context, attempt, session, earlier, all_there=len(earlier) == len(jobs))
        slots = []
        for index, job in enumerate(jobs):
            found = {"id": earlier[index].id} if index in earlier else self._submit(attempt, index, job)
            slots.append({**found, "private": bool(job.get("private"))})
        self._drain()
        self.raise_if_killed()
        return slots

    def _enter_session(
        self,
        context: Context,
        attempt: Attempt,
        session: dict[str, Any],
        earlier: Mapping[int, Job],
        *,
        all_there: bool,
    ) -> None:
        """Go on in the session of an earlier attempt; if jobs are missing still, only while it takes them."""
        known = [self.session_id, *(job.session_id for job in earlier.values())]
        for session_id in dict.fromkeys(name for name in known if name):
            if all_there or get_if_accepting_jobs(self.hook, session_id):
                self.session_id = session_id
                self.log.info("Going on with session %s of an earlier attempt", session_id)
                enter(context, session_id, self.ibm_quantum_conn_id)
                break
        else:
            open_session(self.hook, context, attempt, session, lambda opened: self._keep(context, opened))
        IBMQuantumSessionLink.persist(context, str(self.session_id))

    def _keep(self, context: Context, session: Session) -> None:
        self.session_id = session.id
        enter(context, session.id, self.ibm_quantum_conn_id)
        context["ti"].xcom_push(key="session", value=session.to_json())
        self.raise_if_killed()

    def _find_earlier(self, attempt: Attempt, count: int) -> dict[int, Job]:
        """The jobs that earlier attempts have submitted, by their place."""
        from airflow_provider_ibm_sessions.client.submission import resume_job

        client = self.hook.get_conn()
        found = {index: resume_job(client, attempt.tag(index)) for index in range(count)}
        earlier = {index: job for index, job in found.items() if job is not None}
        self._job_ids = [job.id for job in earlier.values()]
        self.log.info(
            "Earlier attempts have submitted %d of %d jobs: going on with them", len(earlier), count
        )
        return earlier

    def _submit(self, attempt: Attempt, index: int, job: dict[str, Any]) -> dict[str, Any]:
        self.raise_if_killed()
        try:
            submitted = self.hook.submit_job_once(
                attempt.tag(index),
                is_retry=not attempt.is_first,
                backend=self.backend,
                session_id=self.session_id,
                **job,
            )
        except RequestRejectedError as error:
            # Only what is wrong with this one job; all else is wrong with the others as well.
            if type(error) not in (RequestRejectedError, NotFoundError):
                raise
            self.log.error("%s", error)  # noqa: TRY400
            return {"id": None, "error": str(error)}
        self._job_ids.append(submitted.id)
        self.log.info("Submitted job %s: %s", submitted.id, console_url(submitted.id))
        return {"id": submitted.id}

    def _drain(self) -> None:
        """Take no more jobs, so that the session closes itself with the last one."""
        try:
            self.hook.update_session(str(self.session_id), accepting_jobs=False)
        except USER_ACTION_REQUIRED:
            raise
        except IBMQuantumError as error:
            self.log.warning("%s. The session will be closed when its jobs have ended", error)

    def _leave(self, error: BaseException, attempt: Attempt) -> None:
        """
        Leave no session that takes jobs, without masking the error.

        Where a retry follows, what is queued may run, since that collects the results; else it is ended.
        """
        if self.session_id is None or self._is_superseded:
            return
        if attempt.is_last or self._killed or not _is_retried(error):
            end_all(self.hook, self.session_id, self._job_ids)
            close_quietly(self.hook, self.session_id)
            return
        try:
            self.hook.update_session(self.session_id, accepting_jobs=False)
        except IBMQuantumError:
            close_quietly(self.hook, self.session_id)

    # -- waiting and reporting -----------------------------------------------------------------------

    def _wait(self, context: Context, slots: list[dict[str, Any]], end_time: float) -> list[dict[str, Any]]:
        from airflow_provider_ibm_sessions.triggers.base import wait_for
        from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger

        if not _ids_in(slots):
            return self._conclude(context, slots, None)
        trigger = IBMQuantumJobTrigger(
            job_ids=_ids_in(slots),
            session_id=self.session_id,
            cancel_on_kill=self.cancel_on_kill,
            owns_session=True,
            echo={"session_id": self.session_id, "slots": slots},
            end_time=end_time,
            poll_interval=self.poll_interval,
            ibm_quantum_conn_id=self.ibm_quantum_conn_id,
        )
        return self.execute_complete(context, wait_for(self, trigger))

    def _conclude(
        self, context: Context, slots: list[dict[str, Any]], trouble: str | None
    ) -> list[dict[str, Any]]:
        """Make sure that the session is closed, and report on the jobs."""
        attempt = Attempt(context)
        unclosed = self._close(context)
        storage = Storage(self.results_path, self.results_threshold)
        delivery = JobResultCollector(
            self.hook, attempt, storage, [slot["id"] for slot in slots if slot["private"]]
        )
        failures = [text for text in (trouble, unclosed and str(unclosed)) if text]
        try:
            reports = self._reports(delivery, slots)
        except IBMQuantumError as error:
            # Jobs that were given up are not to be run by a retry.
            raise to_airflow_exception(
                "; ".join([*failures, str(error)]), retryable=error.retryable and not trouble
            ) from error
        failures += errors_in(reports)
        for report in reports:
            self.log.info("%s", report.get("error") or f"Job {report['id']}: {report['state']}")
        if unclosed is None and not delivery.results_omitted:
            attempt.delivered()
        # To collect is to live with jobs that fail, and with nothing else.
        must_fail = (
            trouble or unclosed or delivery.results_omitted or self.on_job_failure == OnJobFailure.FAIL
        )
        if failures and must_fail:
            context["ti"].xcom_push(key="return_value", value=reports)
            raise to_airflow_exception("; ".join(failures), retryable=unclosed is not None and not trouble)
        return reports

    def _close(self, context: Context) -> IBMQuantumError | None:
        """The session has closed itself, or is closed now; returns what speaks against it."""
        session_id = str(self.session_id)
        try:
            session = self._closed() or close(self.hook, session_id)
        except IBMQuantumError as error:
            return error
        if session is not None:
            used = "" if session.elapsed_time is None else f", {session.elapsed_time:g} s used"
            self.log.info("Session %s is %s%s", session.id, session.state, used)
            context["ti"].xcom_push(key="session", value=session.to_json())
        return None

    def _closed(self) -> Session | None:
        """The session, if it can be read and has closed itself, which is noted then."""
        try:
            session = self.hook.get_session(str(self.session_id))
        except IBMQuantumError as error:
            self.log.warning("%s", error)
            return None
        if not session.is_closed:
            return None
        strike(session.id)
        return session

    def _reports(self, delivery: JobResultCollector, slots: list[dict[str, Any]]) -> list[dict[str, Any]]:
        from airflow_provider_ibm_sessions.client.flows import JobSet

        job_ids = _ids_in(slots)
        looked = JobSet(tuple(job_ids), self.session_id).look()
        jobs = self.hook.get_conn().run_flow(looked).jobs if job_ids else ()
        reports = {report["id"]: report for report in delivery.report(jobs)}
        return [reports.get(slot["id"]) or _refused(slot) for slot in slots]


def _ids_in(slots: list[dict[str, Any]]) -> list[str]:
    return [slot["id"] for slot in slots if slot["id"]]


def _refused(slot: dict[str, Any]) -> dict[str, Any]:
    """The report of a job that IBM has not taken."""
    return {"id": None, "state": _REFUSED, "error": slot["error"]}


def _is_retried(error: BaseException) -> bool:
    """Whether Airflow will retry a task that ends with this. A timeout, from outside, ends all the same."""
    return isinstance(error, Exception) and not isinstance(error, AirflowFailException)
