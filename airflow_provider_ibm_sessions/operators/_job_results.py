# SPDX-License-Identifier: Apache-2.0
"""Brings the results of jobs from IBM to XCom, or to an object storage where they are too large for that."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    JobFailedError,
)
from airflow_provider_ibm_sessions.client.results import decode_results, to_strict_json
from airflow_provider_ibm_sessions.client.validation import short_repr, validate_seconds

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from airflow_provider_ibm_sessions.lifecycle.task_state import Attempt

XCOM_BYTES = 1_000_000
"""What XCom should carry at most, as JSON."""

_KEEPING_TRIES = 3


@dataclass(frozen=True)
class Storage:
    """
    Where results go that are too large for XCom.

    :param path: A folder as ``ObjectStoragePath`` takes it; None: nowhere, and too large is an error.
    :param threshold: Bytes of JSON from which on results are too large.
    """

    path: str | None
    threshold: float

    def check(self) -> None:
        """
        Find out what can be known before a job is paid for.

        :raises ConfigurationError: If there is no such kind of storage, or its library is not installed.
        """
        validate_seconds(self.threshold, "results_threshold")
        if self.path is None:
            return
        if not isinstance(self.path, str) or not self.path:
            raise ConfigurationError(
                "results_path must be a path such as 's3://conn_id@bucket/folder' or 'file:///folder', "
                f"got {short_repr(self.path)}",
                field="results_path",
            )
        try:
            self._folder().fs  # noqa: B018
        except (ImportError, ValueError, OSError) as error:
            raise ConfigurationError(f"results_path {self.path}: {error}", field="results_path") from error

    def store(self, job_id: str, results: Any) -> str:
        """Write results as JSON; returns their path."""
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{job_id}.json"
        path.write_text(json.dumps(results))
        return str(path)

    def _folder(self) -> ObjectStoragePath:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        return ObjectStoragePath(str(self.path))


class JobResultCollector:
    """
    Fetches results and reports on jobs.

    :param hook: The hook that reads them.
    :param attempt: Keeps the results of private jobs, which can be read once only.
    :param storage: Where results go that are too large for XCom.
    :param private: Ids of jobs that are known to be private; IBM's lists do not tell of each.
    """

    def __init__(
        self, hook: IBMQuantumHook, attempt: Attempt, storage: Storage, private: Collection[str] = ()
    ) -> None:
        self._hook = hook
        self._attempt = attempt
        self._storage = storage
        self._private = private
        self.results_omitted = False
        """Whether results are there still that could not be brought: another attempt can."""

    def report(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """
        Report on jobs that have ended, in their order: what is known of each, with ``results``.

        Where all results together are too large for XCom, ``results_path`` says where the largest are
        instead. A job without results has an ``error``.
        """
        reports = [self._report(job) for job in jobs]
        sizes = [len(json.dumps(report)) for report in reports]
        for size, report in sorted(zip(sizes, reports, strict=True), key=lambda pair: -pair[0]):
            if sum(sizes) <= self._storage.threshold:
                break
            self._lighten(report)
            sizes[sizes.index(size)] = 0
        return reports

    def _report(self, job: Job) -> dict[str, Any]:
        report = job.to_json()
        try:
            if not job.is_completed:
                raise job.to_error()
            report["results"] = self._results(job)
        except IBMQuantumError as error:
            if error.retryable:
                raise
            report["error"] = str(error)
        return report

    def _results(self, job: Job) -> Any:
        if job.private or job.id in self._private:
            kept = self._attempt.recall(job.id) or self._read_private(job)
            return decode_results(kept["results"]).results
        results = self._hook.job_results(job.id)
        if results is None:
            raise JobFailedError(f"Job {job.id} is {job.final_status}, but IBM has no results of it")
        return results

    def _read_private(self, job: Job) -> dict[str, Any]:
        """Read what can be read once only, and keep it before anything else can fail."""
        with _undisturbed():
            kept = {"results": to_strict_json(self._hook.job_results(job.id, raw=True))}
            if kept["results"] is not None:
                self._keep(job.id, kept)
                return kept
        raise JobFailedError(
            f"Job {job.id}: its results have been read before, or were lost on their way. Those of a "
            "private job can be read once only"
        )

    def _keep(self, job_id: str, kept: dict[str, Any]) -> None:
        """If it cannot be kept, go on: it is in this process still, and nowhere else."""
        for attempt in range(_KEEPING_TRIES):
            try:
                self._attempt.remember(job_id, kept, for_ever=False)
            except Exception:
                self._hook.log.exception("Cannot keep the results of private job %s", job_id)
                time.sleep(attempt)
            else:
                return

    def _lighten(self, report: dict[str, Any]) -> None:
        """Take results out of a report: into the storage, if there is one."""
        if "results" not in report:
            return
        job_id, is_private = report["id"], report.get("private") or report["id"] in self._private
        if self._storage.path is not None:
            try:
                report["results_path"] = self._storage.store(job_id, report["results"])
            except Exception:
                if not is_private:
                    raise
                self._hook.log.exception("XCom carries the results of private job %s", job_id)
                return
        elif is_private:
            self._hook.log.warning("XCom carries all results of private job %s: no results_path", job_id)
            return
        else:
            self.results_omitted = True
            report["error"] = self._too_large(job_id)
        del report["results"]

    def _too_large(self, job_id: str) -> str:
        again = " and clear the task, which does not run the job again" if self._attempt.can_remember else ""
        return (
            f"Job {job_id} is completed, but with its results XCom would carry more than "
            f"{self._storage.threshold:.0f} bytes: set results_path{again}, or read them with "
            f"IBMQuantumHook().job_results('{job_id}')"
        )


def errors_in(reports: Iterable[dict[str, Any]]) -> list[str]:
    """The errors among the reports."""
    return [report["error"] for report in reports if "error" in report]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let ``execution_timeout``, which Airflow makes a signal of, strike after this and not inside of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    struck: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: struck.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        if struck and callable(before):
            before(*struck[0])
