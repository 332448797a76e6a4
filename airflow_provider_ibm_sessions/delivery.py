# SPDX-License-Identifier: Apache-2.0
"""Brings the results of jobs from IBM to XCom, or to an object storage where they are too large for that."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.errors import ConfigurationError, JobFailedError
from airflow_provider_ibm_sessions.client.results import decode, plain
from airflow_provider_ibm_sessions.client.values import checked_positive, shown

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_ibm_sessions.attempts import Attempt
    from airflow_provider_ibm_sessions.client.jobs import Job
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

XCOM_BYTES = 1_000_000
"""What XCom should carry at most, as JSON."""


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
        checked_positive(self.threshold, "results_threshold")
        if self.path is None:
            return
        if not isinstance(self.path, str) or not self.path:
            raise ConfigurationError(
                "results_path must be a path such as 's3://conn_id@bucket/folder' or 'file:///folder', "
                f"got {shown(self.path)}",
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


class Delivery:
    """
    Fetches results and reports on jobs.

    :param hook: The hook that reads them.
    :param attempt: Keeps the results of private jobs, which can be read once only.
    :param storage: Where results go that are too large for XCom.
    """

    def __init__(self, hook: IBMQuantumHook, attempt: Attempt, storage: Storage) -> None:
        self._hook = hook
        self._attempt = attempt
        self._storage = storage
        self.is_withheld = False
        """Whether results are there still that could not be brought: another attempt can."""

    def report(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """
        Report on jobs that have ended, in their order: what is known of each, with ``results``.

        Where all results together are too large for XCom, ``results_path`` says where they are instead. A
        job without results has an ``error``.
        """
        reports = [self._report(job) for job in jobs]
        if len(json.dumps(reports)) > self._storage.threshold:
            for report in reports:
                self._lighten(report)
        return reports

    def _report(self, job: Job) -> dict[str, Any]:
        report = job.to_json()
        try:
            if not job.is_completed:
                raise job.failure()
            report["results"] = self._results(job)
        except JobFailedError as error:
            report["error"] = str(error)
        return report

    def _results(self, job: Job) -> Any:
        if not job.private:
            return self._hook.job_results(job.id)
        kept = self._attempt.recall(job.id) or self._read_private(job)
        return plain(decode(kept["results"]))

    def _read_private(self, job: Job) -> dict[str, Any]:
        """Read what can be read once only, and keep it before anything else can fail."""
        kept = {"results": plain(self._hook.job_results(job.id, raw=True))}
        if kept["results"] is None:
            raise JobFailedError(
                f"Job {job.id}: its results have been read before, or were lost on their way. Those of a "
                "private job can be read once only"
            )
        self._attempt.remember(job.id, kept)
        return kept

    def _lighten(self, report: dict[str, Any]) -> None:
        if "results" not in report:
            return
        if self._storage.path is not None:
            report["results_path"] = self._storage.store(report["id"], report["results"])
        elif report.get("private"):
            self._hook.log.warning(
                "XCom carries all results of private job %s: no results_path", report["id"]
            )
            return
        else:
            self.is_withheld = True
            report["error"] = self._too_large(report["id"])
        del report["results"]

    def _too_large(self, job_id: str) -> str:
        again = " and clear the task, which does not run the job again" if self._attempt.can_remember else ""
        return (
            f"Job {job_id} is completed, but with its results XCom would carry more than "
            f"{self._storage.threshold:.0f} bytes: set results_path{again}, or read them with "
            f"IBMQuantumHook().job_results('{job_id}')"
        )


def failures_in(reports: Iterable[dict[str, Any]]) -> list[str]:
    """The errors among the reports."""
    return [report["error"] for report in reports if "error" in report]
