# SPDX-License-Identifier: Apache-2.0
"""What is needed to repeat a job: the ``provenance`` in its report."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

log = logging.getLogger(__name__)

_PACKAGES: Final = ("airflow-provider-ibm-sessions", "apache-airflow", "qiskit", "qiskit-ibm-runtime")
_MAX_DEPTH: Final = 20


class Provenance:
    """
    Facts that are needed to repeat jobs: added to their reports, and kept in a folder for each.

    Errors are logged: the results are what was paid for.

    :param path: The folder of the folders as ``ObjectStoragePath`` takes it; None: nothing is kept.
    """

    def __init__(self, hook: IBMQuantumHook, path: str | None) -> None:
        self._hook = hook
        self._path = path
        self._properties: dict[tuple[Any, Any], Any] = {}

    def add(
        self,
        context: Context,
        jobs: Sequence[Mapping[str, Any]],
        submitted: Mapping[str, Mapping[str, Any]],
        session: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """
        Return jobs with ``provenance``; keep it, the parameters of jobs that are not private, and properties.

        :param jobs: The jobs as ``Job.to_json`` returns them.
        :param submitted: The fields of each as they were submitted, by its id.
        :param session: The session that most were in, as ``Session.to_json`` returns it, if it is known.
        """
        from airflow_provider_ibm_sessions.client.results import to_strict_json

        found = [dict(job) for job in jobs]
        for job in found:
            fields = submitted.get(job["id"]) or {}
            try:
                own = session if session and job.get("session_id") in (None, session.get("id")) else {}
                # What IBM takes as options need not be what Airflow's database takes.
                job["provenance"] = to_strict_json(_provenance(context, job, fields, own))
            except Exception:  # whatever IBM has sent, and Airflow's context holds
                log.warning("The report of job %s carries no provenance", job.get("id"), exc_info=True)
            if self._path is not None:
                if "provenance" in job:
                    if named := self._read_qiskit_version(job["id"]):
                        job["provenance"]["qiskit_version"] = named
                    self._write(job["id"], "provenance", job.get, "provenance")
                self._write(job["id"], "backend-properties", self._read_properties, job, fields)
                if "params" in fields and not fields.get("private"):
                    self._write(job["id"], "params", fields.get, "params")
        return found

    def keep_raw(self, job_id: str, raw: Any) -> None:
        """Keep a job's results as IBM has sent them."""
        from airflow_provider_ibm_sessions.client.results import to_strict_json

        if self._path is not None:
            self._write(job_id, "results", to_strict_json, raw)

    def _read_qiskit_version(self, job_id: str) -> str | None:
        """Return the version of Qiskit that IBM names among a job's metrics. It takes a request."""
        from airflow_provider_ibm_sessions.client.models.base import single_line

        try:
            named = self._hook.get_conn().job_metrics(job_id).qiskit_version
        except IBMQuantumError as error:
            log.warning("The metrics of job %s were not read: %s", job_id, error)
            return None
        return single_line(named) if isinstance(named, str) else None

    def _read_properties(self, job: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
        """Return the properties as of the job's calibration, or else as of its submission."""
        calibration_id = fields.get("calibration_id")
        backend = job.get("backend")
        key = (backend, calibration_id)
        if key not in self._properties:
            query = {"calibration_id": calibration_id} if calibration_id else {}
            if not query and job.get("created"):
                query = {"updated_before": datetime.fromisoformat(job["created"])}
            self._properties[key] = self._hook.backend_properties(str(backend), **query)
        return self._properties[key]

    def _write(self, job_id: str, name: str, read: Callable[..., Any], *args: Any) -> None:
        """Write what a function returns as ``<name>.json`` into the job's folder."""
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        try:
            folder = ObjectStoragePath(str(self._path)) / job_id
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.json").write_text(json.dumps(read(*args)))
        except Exception:  # each file system has errors of its own
            log.warning("%s of job %s was not kept in %s", name, job_id, self._path, exc_info=True)


def sha256_of(params: Any) -> str:
    """Return the SHA-256 of a job's parameters as JSON with sorted keys and without spaces."""
    return hashlib.sha256(json.dumps(params, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _provenance(
    context: Context, job: Mapping[str, Any], fields: Mapping[str, Any], session: Mapping[str, Any]
) -> dict[str, Any]:
    ti: Any = context["ti"]
    params = fields.get("params") or {}
    # IBM hides the input of a private job, and so does its report.
    options = None if fields.get("private") else params.get("options")
    facts = {
        "versions": _versions(),
        "backend": job.get("backend"),
        "calibration_id": fields.get("calibration_id"),
        "session_id": job.get("session_id"),
        "session_timestamps": session.get("timestamps"),
        "options": options,
        "seeds": dict(_seeds(options)) or None,
        "params_sha256": sha256_of(params) if params else None,
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": -1 if ti.map_index is None else ti.map_index,
        "try_number": ti.try_number,
    }
    return {name: value for name, value in facts.items() if value is not None}


@cache
def _versions() -> dict[str, str]:
    """Return the versions of what is installed here."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _seeds(options: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    """Yield the seeds among the options, by their path."""
    if not isinstance(options, Mapping) or depth > _MAX_DEPTH:
        return
    for name, value in options.items():
        if "seed" in str(name) and isinstance(value, int) and not isinstance(value, bool):
            yield f"{path}{name}", value
        yield from _seeds(value, f"{path}{name}.", depth + 1)
