# SPDX-License-Identifier: Apache-2.0
"""What operators have in common: retries, waiting for jobs or sessions, and owning a session."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_ibm_sessions.client.enums import OnLowUsage, ResultDetail
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError
from airflow_provider_ibm_sessions.client.polling import (
    TOLERATED_FAILURES,
    is_transient,
    jittered,
    may_pass,
)
from airflow_provider_ibm_sessions.client.validation import (
    DEFAULT_WAIT_TIMEOUT,
    to_seconds,
    validate_backend,
    validate_bool,
    validate_choice,
    validate_conn_id,
    validate_int,
    validate_mode,
    validate_path,
    validate_seconds,
)
from airflow_provider_ibm_sessions.exceptions import TaskSupersededError
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.lifecycle.session import (
    close_and_cancel,
    close_quietly,
    open_session,
    validate_session_args,
)
from airflow_provider_ibm_sessions.lifecycle.task_mixin import (
    DEFAULT_DEFERRABLE,
    DEFAULT_RETRIES,
    DEFAULT_RETRY_BACKOFF,
    IBMQuantumTaskMixin,
)
from airflow_provider_ibm_sessions.operators._job_results import (
    MAX_XCOM_BYTES,
    JobResultCollector,
    ResultStorage,
)
from airflow_provider_ibm_sessions.operators._provenance import Provenance

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
    from airflow_provider_ibm_sessions.triggers.base import IBMQuantumTrigger


class IBMQuantumOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Base of the operators.

    An Airflow API server or an IBM Quantum that is away for a minute fails no task: by default a task is
    retried, with growing delays. All operators are exactly-once, so a retry resumes and pays for nothing
    twice.

    :param ibm_quantum_conn_id: The Airflow connection. (templated)
    :param retries: As for any task; ``default_args`` win over the default.
    :param retry_delay: As for any task.
    :param retry_exponential_backoff: As for any task.
    """

    returns_dict: ClassVar[bool] = False
    """True if the task returns a dictionary, so that it can have ``multiple_outputs``."""

    def __init__(
        self,
        *,
        ibm_quantum_conn_id: str = DEFAULT_CONN_ID,
        retries: int | None = DEFAULT_RETRIES,
        retry_delay: timedelta | float = timedelta(seconds=30),
        retry_exponential_backoff: float = DEFAULT_RETRY_BACKOFF,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            retries=retries,
            retry_delay=retry_delay,
            retry_exponential_backoff=retry_exponential_backoff,
            **kwargs,
        )
        if self.multiple_outputs and not self.returns_dict:
            # Airflow would refuse the return value when everything is paid for, and in each retry.
            raise ConfigurationError(
                f"multiple_outputs cannot be set: {type(self).__name__} does not return a dictionary",
                field="multiple_outputs",
            )
        self.ibm_quantum_conn_id = ibm_quantum_conn_id
        self.check_literals(ibm_quantum_conn_id=validate_conn_id)


class WaitingOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Base of the operators that wait, in the triggerer or in the worker.

    :param timeout: Seconds, or a timedelta, that a try waits, queueing included.
    :param poll_interval: Seconds between polls, or a timedelta.
    :param deferrable: Wait in the triggerer, without a worker slot.
    """

    tolerated_refusals: ClassVar[int] = 0
    """How many refused polls in a row are followed by another."""

    def __init__(
        self,
        *,
        timeout: float | timedelta = DEFAULT_WAIT_TIMEOUT,
        poll_interval: float | timedelta = 10,
        deferrable: bool = DEFAULT_DEFERRABLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.timeout = validate_seconds(timeout, "timeout")
        self.poll_interval = validate_seconds(poll_interval, "poll_interval")
        self.deferrable = validate_bool(deferrable, "deferrable")

    @abstractmethod
    def trigger(self, end_time: float) -> IBMQuantumTrigger:
        """Return the trigger that waits for what this task has started."""

    def wait(self, end_time: float) -> dict[str, Any]:
        """
        Wait until the trigger fires, and return its event.

        What is final already is not deferred for. Once deferred, Airflow resumes the task in
        ``execute_complete``.

        :param end_time: Deadline in seconds since the epoch.
        """
        trigger = self._trigger_here(end_time)
        if not self.deferrable:
            return trigger.run_here()
        event = self._poll(trigger)
        if event is None:
            # No timeout here: the deadline inside of the trigger holds, and says what was awaited.
            self.defer(trigger=trigger, method_name="execute_complete", timeout=None)
        return event

    def settle_event(self, event: dict[str, Any] | None) -> dict[str, Any]:
        """
        Return an event that tells how the waiting has ended.

        An error on the triggerer's host, such as a missing connection or an IBM that is away, is no verdict
        on the jobs: this worker polls itself, and waits on.

        :returns: An event with the status ``success``, ``timeout`` or ``error``; the last is final.
        """
        event = event or {}
        event.setdefault("status", "error")
        event.setdefault("message", f"Unexpected trigger event: {event}")
        end_time = event.get("end_time", 0.0)
        while event["status"] == "error" and not event.get("is_final") and time.time() < end_time:
            self.log.warning("%s. Polling from this worker", event["message"])
            if event.get("retryable"):
                event = self.wait(end_time)
            else:  # the triggerer cannot wait, and this worker can
                trigger = self._trigger_here(end_time)
                event = self._poll(trigger) or trigger.run_here()
        return event

    def _poll(self, trigger: IBMQuantumTrigger) -> dict[str, Any] | None:
        """
        Poll once; return the event if this was the last poll: it has succeeded, or no other will.

        A refusal that may pass is followed by another poll, up to ``tolerated_refusals`` times.
        """
        refusals = 0
        while True:
            try:
                return trigger.poll_once_here()
            except IBMQuantumError as error:
                if is_transient(error):
                    self.log.warning("%s. Waiting on", error)
                    return None
                refusals += 1
                is_last = refusals > self.tolerated_refusals or time.time() >= trigger.end_time
                if is_last or not may_pass(error):
                    return trigger.payload({"status": "error", "message": str(error), "is_final": True})
                self.log.warning("%s. Polling again; refusal %d in a row", error, refusals)
            time.sleep(jittered(self.poll_interval))

    def _trigger_here(self, end_time: float) -> IBMQuantumTrigger:
        """Return the trigger on this task's hook, whose connection is looked up outside of the event loop."""
        trigger = self.trigger(end_time)
        trigger.hook = self.hook
        _ = self.hook.credentials
        return trigger


class JobWaitingOperator(WaitingOperator):
    """
    Base of the operators that wait for jobs and return reports on them.

    A report holds IBM's fields of the job (``id``, ``state``, ``usage``, ...), and ``results`` or, where
    there are none, ``error``.

    :param results: ``counts``; ``memory``: also the bits of each shot, in the order of submission; ``raw``:
        IBM's body, unchanged.
    :param results_path: Folder for results that are too large for XCom, as ``ObjectStoragePath`` takes it
        (``s3://conn_id@bucket/folder``); reports then have ``results_path`` in place of ``results``.
        (templated)
    :param results_threshold: Bytes of JSON from which on all results together are too large for XCom.
    :param settle_usage: When the jobs are final, wait that long at most until IBM's usage is final as well:
        seconds, a timedelta or text such as ``"15m"``. None: the XCom ``usage`` may be provisional.
    :param verbose: Bring the jobs' own logs into the task's log at the end.
    """

    def __init__(
        self,
        *,
        settle_usage: int | str | timedelta | None = None,
        verbose: bool = False,
        results: str = "counts",
        results_path: str | None = None,
        results_threshold: int = MAX_XCOM_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settle_usage = None if settle_usage is None else to_seconds(settle_usage, "settle_usage")
        self.verbose = validate_bool(verbose, "verbose")
        self.results = validate_choice(results, ResultDetail, "results")
        self.results_path = results_path
        self.results_threshold = validate_int(results_threshold, "results_threshold", at_least=1)
        self.check_literals(results_path=validate_path)

    @cached_property
    def result_storage(self) -> ResultStorage:
        """Return where results go."""
        return ResultStorage(self.results_path, self.results_threshold, pushes_xcom=self.do_xcom_push)

    def workload(self) -> dict[str, Any]:
        """Return what the task knows of its session and jobs, and where results are."""
        known = super().workload()
        if self.result_storage.has_stored:
            known["folders"].append(self.results_path)
        return known

    def push_reports(self, context: Context, reports: Any) -> None:
        """Push the reports of a task that fails, so that they are not lost."""
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=reports)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render a template. OpenQASM text is none: Jinja would read its braces."""
        if isinstance(content, str) and content.lstrip().startswith("OPENQASM"):
            return content
        return super().render_template(content, *args, **kwargs)


class JobOwnerOperator(JobWaitingOperator):
    """
    Base of the operators that submit the jobs that they wait for.

    :param cancel_on_kill: End what the task has started when it is killed, or runs into
        ``execution_timeout``, while it waits. (When it is deferred: in Airflow 3.3 and newer.)
    :param provenance_path: Folder for what is needed to repeat each job, as ``ObjectStoragePath`` takes it: a
        folder with its provenance, parameters unless private, results as IBM sends them, and the QPU's
        properties. (templated)
    """

    # IBM may not know yet what it has just accepted; to end the jobs would throw away what is paid for.
    tolerated_refusals = TOLERATED_FAILURES

    def __init__(
        self, *, cancel_on_kill: bool = True, provenance_path: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = validate_bool(cancel_on_kill, "cancel_on_kill")
        self.provenance_path = provenance_path
        self.check_literals(provenance_path=partial(validate_path, field="provenance_path"))

    def workload(self) -> dict[str, Any]:
        """Return what the task knows of its session and jobs, and where results and provenance are."""
        known = super().workload()
        if self.provenance_path and self.usage:  # the jobs were final
            known["folders"].append(self.provenance_path)
        return known

    def validate_paths(self) -> None:
        """
        Find out what can be known of the folders before a job is paid for.

        :raises ConfigurationError: Naming the argument that is wrong.
        """
        self.result_storage.validate()
        ResultStorage(self.provenance_path, self.results_threshold).validate("provenance_path")

    @abstractmethod
    def read_fields_by_id(self, state: TaskState) -> Mapping[str, Mapping[str, Any]]:
        """Return the fields of each job as they were submitted, by its id, also after a deferral."""

    def collect_results(
        self,
        context: Context,
        state: TaskState,
        jobs: Sequence[Mapping[str, Any]],
        *,
        private: Collection[str],
        session: Mapping[str, Any] | None = None,
    ) -> tuple[list[dict[str, Any]], JobResultCollector]:
        """
        Report on jobs that are final, with their results and what is needed to repeat them.

        :param jobs: The jobs as ``Job.to_json`` returns them.
        :param private: Ids of those that are known to be private.
        :param session: The session that most were in, as ``Session.to_json`` returns it, if it is known.
        :returns: The reports in the order of the jobs, and the collector, which tells what is missing.
        """
        try:
            submitted = self.read_fields_by_id(state)
        except Exception:  # of Airflow's store, or of the storage: the results are what was paid for
            self.log.warning("The reports carry no parameters", exc_info=True)
            submitted = {}
        provenance = Provenance(self.hook, self.provenance_path)
        collector = JobResultCollector(
            self.hook,
            state,
            self.result_storage,
            private=private,
            detail=self.results,
            keep_raw=provenance.keep_raw,
        )
        return collector.collect(provenance.add(context, jobs, submitted, session)), collector


class SessionOwnerOperator(IBMQuantumTaskMixin, BaseOperator):
    """
    Base of the tasks that open a session and own it.

    :param backend: Name of the QPU, such as ``ibm_fez``. (templated)
    :param mode: ``dedicated``: the QPU is held, and billed, while the session is active. ``batch``: jobs
        are run one by one, and billed for QPU time only. (templated)
    :param max_ttl: Longest life, counted from the first job's start: seconds, a timedelta, or text such as
        ``"2h 30m"``. It bounds the bill even if Airflow dies. Left out: the Dag's ``dagrun_timeout``, at
        most and else IBM's default of 8 hours. IBM lowers it to the plan's limit; the log then warns.
        (templated)
    :param min_usage_remaining: What the instance's usage limit must leave before a session is opened:
        seconds, a timedelta, or text such as ``"10m"``. An instance without a limit passes. (templated)
    :param on_low_usage: If it leaves less: ``fail`` without retries, ``skip`` the task, or ``wait`` until
        the period ends or the limit is raised; without a worker slot if the task is deferrable.
    """

    template_fields: Sequence[str] = (
        "backend",
        "mode",
        "max_ttl",
        "min_usage_remaining",
        "ibm_quantum_conn_id",
    )
    dag_run_scoped: ClassVar[bool] = False
    """
    True if the session is for the whole Dag run; else the sweep may close it once the task has finished.
    """

    def __init__(
        self,
        *,
        backend: str,
        mode: str = "dedicated",
        max_ttl: int | str | timedelta | None = None,
        min_usage_remaining: int | str | timedelta | None = None,
        on_low_usage: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backend = backend
        self.mode = mode
        self.max_ttl = max_ttl
        self.min_usage_remaining = min_usage_remaining
        self.check_literals(
            backend=validate_backend,
            mode=validate_mode,
            max_ttl=to_seconds,
            min_usage_remaining=partial(to_seconds, field="min_usage_remaining"),
        )
        self.on_low_usage = validate_choice(on_low_usage, OnLowUsage, "on_low_usage")
        self.session_id: str | None = None

    def workload(self) -> dict[str, Any]:
        """Return what the task knows of its session and jobs."""
        return {**super().workload(), "mode": self.mode}

    def session_args(self, context: Context) -> dict[str, Any]:
        """Return the validated arguments that a session is opened with, and validate the budget's."""
        if self.min_usage_remaining is not None:
            to_seconds(self.min_usage_remaining, "min_usage_remaining")
        return validate_session_args(context, backend=self.backend, mode=self.mode, max_ttl=self.max_ttl)

    def open_session(self, context: Context, state: TaskState, session_args: dict[str, Any]) -> Session:
        """Open a session and take hold of it; if that fails or the task was killed, close it again."""
        if not state.pending_create:  # else an earlier try may have opened one, which is to be found first
            self.check_budget()
        session = open_session(self.hook, context, state, session_args, dag_run_scoped=self.dag_run_scoped)
        try:
            self.take_session(context, session)
        except TaskSupersededError:
            raise
        except BaseException:  # a timeout or a kill as well: raised again below
            close_quietly(self.hook, session.id)
            raise
        return session

    def check_budget(self) -> None:
        """
        Open no session if the instance's usage limit leaves too little: fail, skip or wait, as asked.

        :raises TaskDeferred: To wait without a worker slot, if the task is deferrable.
        """
        if self.min_usage_remaining is None:
            return
        least = to_seconds(self.min_usage_remaining, "min_usage_remaining")
        while shortage := (usage := self.hook.instance_usage()).shortage(least):
            if self.on_low_usage == OnLowUsage.FAIL:
                raise AirflowFailException(shortage)
            if self.on_low_usage == OnLowUsage.SKIP:
                raise AirflowSkipException(shortage)
            self.log.warning("%s. No session is opened before", shortage)
            from airflow_provider_ibm_sessions.triggers.usage import IBMQuantumUsageTrigger

            trigger = IBMQuantumUsageTrigger.until_period_ends(usage, least, self.ibm_quantum_conn_id)
            if self.deferrable:
                self.defer(trigger=trigger, method_name="execute_after_wait", timeout=None)
            trigger.hook = self.hook
            trigger.run_here()  # whatever it reports: the usage is read again
            self.raise_if_killed()

    def execute_after_wait(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Start again when the trigger has seen enough usage left; Airflow resumes the task here."""
        if (event or {}).get("status", "error") == "error":
            self.log.warning("%s. Waiting in this worker", (event or {}).get("message", event))
            self.deferrable = False
        self._was_deferred = True
        return self.execute(context)

    def take_session(self, context: Context, session: Session) -> None:
        """Link to an open session, show its details, and close it when the task is killed."""
        self.session_id = session.id
        context["ti"].xcom_push(key="session", value=session.to_json())
        self.raise_if_killed()

    def cleanup_on_kill(self, *, fast: bool) -> None:
        """Close the session of a killed task, and cancel its jobs."""
        if self.session_id:
            close_and_cancel(self.hook, self.session_id, fast=fast)
