# SPDX-License-Identifier: Apache-2.0
"""Collect the results of jobs for XCom, or for an object storage where they are too large for that."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.enums import JobState
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    JobFailedError,
)
from airflow_provider_ibm_sessions.client.storable import RESERVED_KEYS
from airflow_provider_ibm_sessions.client.validation import validate_path
from airflow_provider_ibm_sessions.exceptions import job_error
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.hooks.qiskit_logs import quiet_chatty_loggers

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState

log = logging.getLogger(__name__)

MAX_XCOM_BYTES = 1_000_000
"""Bytes of JSON that XCom should carry at most."""

READS_AT_ONCE = 5
"""Results that are read at the same time: a worker slot is held while they are waited for."""

_SAVE_TRIES = 3


@dataclass
class ResultStorage:
    """
    The place of results that are too large for XCom.

    :param path: A folder as ``ObjectStoragePath`` takes it; None: there is none, and too large is an error.
    :param threshold: Bytes of JSON from which on results are too large.
    :param pushes_xcom: False if the task pushes no XCom, so that nothing is too large for it.
    :param has_stored: True if results were written there.
    """

    path: str | None
    threshold: int
    pushes_xcom: bool = True
    has_stored: bool = field(default=False, init=False)

    def validate(self, field: str = "results_path") -> None:
        """
        Find out what can be known before a job is paid for.

        :param field: The argument that names the folder.
        :raises ConfigurationError: If there is no such kind of storage, or its library is not installed.
        """
        if self.path is None:
            return
        validate_path(self.path, field)
        try:
            self._folder().fs  # noqa: B018
        except (ImportError, ValueError, OSError) as error:
            raise ConfigurationError(f"{field} {self.path} cannot be opened: {error}", field=field) from error

    def store(self, job_id: str, results: Any) -> str:
        """Write results as JSON, and return their path."""
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{job_id}.json"
        path.write_text(json.dumps(results))
        self.has_stored = True
        return str(path)

    def _folder(self) -> ObjectStoragePath:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        return ObjectStoragePath(str(self.path))


class JobResultCollector:
    """
    Fetch the results of jobs that are final, and report on the jobs.

    :param hook: The hook that reads them.
    :param state: Keeps the results of private jobs, which can be read once only.
    :param storage: The place of results that are too large for XCom.
    :param private: Ids of jobs that are known to be private; IBM's lists do not tell of each.
    :param detail: ``counts``, ``memory`` (also the bits of each shot) or ``raw`` (IBM's body).
    :param keep_raw: Called with a job's id and its results as IBM has sent them.
    """

    def __init__(
        self,
        hook: IBMQuantumHook,
        state: TaskState,
        storage: ResultStorage,
        *,
        private: Collection[str] = (),
        detail: str = "counts",
        keep_raw: Callable[[str, Any], None] | None = None,
    ) -> None:
        self._hook = hook
        self._state = state
        self._storage = storage
        self._private = private
        self._detail = detail
        self._keep_raw = keep_raw
        self.retryable_errors: list[str] = []
        """Errors of results that were not collected, and may be by another try."""
        self.jobs_without_results: list[str] = []
        """Ids of completed jobs of which IBM has no results: to run them again is the only way to get any."""
        self.results_omitted = False
        """True if results are too large: another try can collect them, once there is a ``results_path``."""

    def collect(self, jobs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """
        Report on jobs that are final, in their order: what is known of each, with ``results``.

        A job without results has an ``error``, and takes no other's report with it. Where all results
        together are too large for XCom, ``results_path`` says where the largest are instead.

        :param jobs: The jobs as ``Job.to_json`` returns them.
        """
        quiet_chatty_loggers()  # decoding may import Qiskit
        reports = [dict(job) for job in jobs]
        for first in range(0, len(reports), READS_AT_ONCE):
            some = reports[first : first + READS_AT_ONCE]
            reads = self._start_reading(some)
            for report in some:
                self._complete(report, reads.pop(report["id"], None))
        if not self._storage.pushes_xcom and self._storage.path is None:
            return reports
        sizes = [_fit_for_xcom(report) for report in reports]
        for size, report in sorted(zip(sizes, reports, strict=True), key=lambda pair: -pair[0]):
            if sum(sizes) <= self._storage.threshold:
                break
            self._offload(report)
            sizes[sizes.index(size)] = 0
        return reports

    def _start_reading(self, reports: Sequence[Mapping[str, Any]]) -> dict[str, Future[Any]]:
        """Start to read results in threads, and return them by their jobs' ids; none of private jobs."""
        job_ids = [
            report["id"]
            for report in reports
            if report.get("state") == JobState.COMPLETED and not self._is_private(report)
        ]
        if len(job_ids) < 2:
            return {}
        self._hook.get_conn()  # one client for all, made before the threads start
        pool = ThreadPoolExecutor(len(job_ids), thread_name_prefix="ibm-quantum-results")
        try:
            return {job_id: pool.submit(self._hook.job_results, job_id, raw=True) for job_id in job_ids}
        finally:
            pool.shutdown(wait=False)  # a task that is killed meanwhile does not wait for them

    def _complete(self, report: dict[str, Any], read: Future[Any] | None) -> None:
        """
        Add to a job's report its results, or an error.

        :param read: The results that are being read, if they are.
        """
        job_id = report["id"]
        if self._hook.credentials.emulator:
            report["emulator"] = True
        try:
            if report.get("state") != JobState.COMPLETED:
                raise job_error(report, self._hook.console_url(job_id))
            self._add_results(report, read)
        except JobFailedError as error:
            report["error"] = str(error)
            if report.get("state") == JobState.COMPLETED:
                self.jobs_without_results.append(job_id)
        except IBMQuantumError as error:
            report["error"] = f"{error}. Job {job_id} is completed; {self._how_to_fetch(job_id)}"
            if error.retryable:
                self.retryable_errors.append(report["error"])
        except Exception as error:  # a bug must not take the reports of other jobs with it
            log.exception("The results of job %s could not be decoded", job_id)
            report["error"] = (
                f"Job {job_id} is completed, but its results could not be decoded ({type(error).__name__}); "
                f"{self._how_to_fetch(job_id, raw=True)}"
            )

    def _add_results(self, report: dict[str, Any], read: Future[Any] | None) -> None:
        """Add the results to the report of a completed job, and in which ``format`` they are."""
        from airflow_provider_ibm_sessions.client.results import decode_results

        job_id = report["id"]
        if self._is_private(report):
            raw = (self._state.get_results(job_id) or self._read_private(job_id))["results"]
        else:
            raw = read.result() if read else self._hook.job_results(job_id, raw=True)
        if raw is None:
            raise JobFailedError(
                f"Job {job_id} is completed, but IBM has no results of it: {self._hook.console_url(job_id)}"
            )
        if self._keep_raw:
            self._keep_raw(job_id, raw)
        decoded = decode_results(raw, detail=self._detail)
        report.update(decoded.to_json())
        if problem := report.pop("error", None):
            report["results_error"] = problem
            log.warning("Some results of job %s are left as IBM sent them: %s", job_id, problem)

    def _is_private(self, report: Mapping[str, Any]) -> bool:
        return bool(report.get("private")) or report["id"] in self._private

    def _read_private(self, job_id: str) -> dict[str, Any]:
        """Read what can be read once only, and store it before anything else can fail."""
        from airflow_provider_ibm_sessions.client.results import to_strict_json

        with _defer_sigalrm():
            stored = {"results": to_strict_json(self._hook.job_results(job_id, raw=True))}
            if stored["results"] is not None:
                self._save(job_id, stored)
                return stored
        raise JobFailedError(
            f"Job {job_id} is private, and its results were read elsewhere or lost on their way: IBM gives "
            "those of a private job out once only"
        )

    def _save(self, job_id: str, stored: dict[str, Any]) -> None:
        """Store private results; if that fails, go on: they are in this process, and nowhere else."""
        for attempt in range(_SAVE_TRIES):
            try:
                self._state.save_results(job_id, stored)
            except Exception:  # whatever failed, the results are in this process only
                log.exception("The results of private job %s could not be stored", job_id)
                time.sleep(attempt)
            else:
                return

    def _offload(self, report: dict[str, Any]) -> None:
        """Move results out of a report into the storage, if there is one."""
        if "results" not in report:
            return
        job_id = report["id"]
        if self._storage.path is not None:
            try:
                report["results_path"] = self._storage.store(job_id, report["results"])
            except Exception as error:  # each file system has errors of its own
                log.exception("The results of job %s could not be written to results_path", job_id)
                if self._is_private(report):
                    log.warning("XCom carries the results of private job %s", job_id)
                    return
                report["error"] = (
                    f"Job {job_id} is completed, but its results could not be written to results_path "
                    f"{self._storage.path}: {error}; {self._how_to_fetch(job_id)}"
                )
                self.retryable_errors.append(report["error"])
        elif self._is_private(report):
            log.warning("XCom carries all results of private job %s: there is no results_path", job_id)
            return
        else:
            self.results_omitted = True
            report["error"] = (
                "Set results_path and clear the task, which does not run the job again: with the results of "
                f"job {job_id}, which is completed, XCom would carry more than {self._storage.threshold} "
                f"bytes. Or {self._how_to_fetch(job_id)}"
            )
        del report["results"]

    def _how_to_fetch(self, job_id: str, *, raw: bool = False) -> str:
        conn_id = self._hook.ibm_quantum_conn_id
        hook = f"IBMQuantumHook({'' if conn_id == DEFAULT_CONN_ID else repr(conn_id)})"
        return f"fetch them with {hook}.job_results('{job_id}'{', raw=True' if raw else ''})"


def _fit_for_xcom(report: dict[str, Any]) -> int:
    """Return the report's bytes of JSON; write the parts that XCom would refuse as strings of JSON."""
    text = json.dumps(report)
    if any(f'"{key}"' in text for key in RESERVED_KEYS):
        for name in report.keys() & {"results", "metadata", "provenance"}:
            report[name] = json.dumps(report[name])
        report["results_error"] = "Airflow reserves a key in these results: given as JSON strings"
        log.warning("Results of job %s: %s", report["id"], report["results_error"])
        text = json.dumps(report)
    return len(text)


def errors_in(reports: Iterable[dict[str, Any]]) -> list[str]:
    """Return the errors among the reports."""
    return [report["error"] for report in reports if "error" in report]


@contextmanager
def _defer_sigalrm() -> Iterator[None]:
    """Defer ``execution_timeout``, which Airflow makes a signal of, until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        if received and callable(before):
            before(*received[0])
