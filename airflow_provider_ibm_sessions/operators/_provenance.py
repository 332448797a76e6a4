# SPDX-License-Identifier: Apache-2.0
"""What is needed to repeat a job: the ``provenance`` in its report."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

_PACKAGES: Final = ("airflow-provider-ibm-sessions", "apache-airflow", "qiskit", "qiskit-ibm-runtime")
_MAX_DEPTH: Final = 20


def with_provenance(
    context: Context,
    jobs: Sequence[Mapping[str, Any]],
    submitted: Mapping[str, Mapping[str, Any]],
    session: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """
    Return jobs with ``provenance``. An error is logged: the results are what was paid for.

    :param jobs: The jobs as ``Job.to_json`` returns them.
    :param submitted: The fields of each as they were submitted, by its id.
    :param session: Their session as ``Session.to_json`` returns it, if they have one that is known.
    """
    found = [dict(job) for job in jobs]
    for job in found:
        try:
            job["provenance"] = _provenance(context, job, submitted.get(job["id"]) or {}, session or {})
        except Exception:
            log.warning("The report of job %s carries no provenance", job.get("id"), exc_info=True)
    return found


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
