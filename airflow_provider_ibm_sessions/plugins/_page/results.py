# SPDX-License-Identifier: Apache-2.0
"""What of a task's results is sent to the browser: enough for a picture, and never all of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from heapq import nlargest
from typing import Any

MAX_REPORTS = 50
MAX_PUBS = 20
MAX_OUTCOMES = 32
MAX_POINTS = 200
MAX_BYTES = 100_000

_PARAMETER = re.compile(r"([A-Za-z_][\w.-]*)[=:]\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")
_JOB_FIELDS = ("id", "state", "program_id", "backend", "session_id", "created", "format", "error")


def shown_reports(value: Any) -> dict[str, Any]:
    """
    Return the job reports in a task's return value, cut down to what the page draws.

    What exceeds :data:`MAX_BYTES` is left out job by job, from the end; ``left_out`` says how many.

    :param value: What the task has returned: a report, a list of them, or anything else.
    """
    reports = [each for each in (value if isinstance(value, list) else [value]) if _is_report(each)]
    shown: list[dict[str, Any]] = []
    size = 0
    for report in reports[:MAX_REPORTS]:
        job = _report(report)
        size += len(json.dumps(job))
        if size > MAX_BYTES:
            break
        shown.append(job)
    return {"reports": shown, "left_out": len(reports) - len(shown), "curve": _curve(shown)}


def _curve(reports: list[dict[str, Any]]) -> dict[str, Any] | None:
    """
    Return the points of a curve over estimator jobs with one value each; None if these are no such jobs.

    Its parameter is the one number in the tags that differs from job to job, such as ``theta=0.3``. Each job
    must have it once.
    """
    jobs = [each for each in reports if each.get("format") == "estimator"]
    pubs = [pub for job in jobs for pub in job.get("pubs", [])]
    if len(jobs) < 2 or any([len(pub.get("evs", [])) for pub in job.get("pubs", [])] != [1] for job in jobs):
        return None
    numbers: dict[str, list[list[float]]] = {}
    for index, job in enumerate(jobs):
        for match in filter(None, map(_PARAMETER.fullmatch, job.get("tags", []))):
            if math.isfinite(x := float(match[2])):
                numbers.setdefault(match[1], [[] for _ in jobs])[index].append(x)
    single = [
        (name, [x for [x] in each])
        for name, each in numbers.items()
        if all(len(of_job) == 1 for of_job in each)
    ]
    found = [each for each in single if len(set(each[1])) > 1]
    name, values = found[0] if len(found) == 1 else ("job", [float(index + 1) for index in range(len(jobs))])
    points = [
        {"x": x, "y": pub["evs"][0], "error": (pub["stds"] or [None])[0] or 0}
        for x, pub in zip(values, pubs, strict=True)
    ]
    return {"name": name, "points": sorted(points, key=lambda point: point["x"])}


def _is_report(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("id"), str) and "state" in value


def _report(report: Mapping[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = {name: _text(report[name]) for name in _JOB_FIELDS if report.get(name) is not None}
    if isinstance(tags := report.get("tags"), list):
        job["tags"] = [_text(tag) for tag in tags[:20]]
    if isinstance(usage := report.get("usage"), Mapping):
        job["qpu_seconds"] = finite_number(usage.get("qpu_charge_time_seconds"))
        job["usage_is_final"] = usage.get("status") == "complete"
    if isinstance(report.get("results_path"), str):
        job["results_path"] = _text(report["results_path"])
    pubs = report.get("results")
    if isinstance(pubs, list):
        job["pubs"] = [_pub(pub) for pub in pubs[:MAX_PUBS] if isinstance(pub, Mapping)]
        job["pubs_left_out"] = max(len(pubs) - MAX_PUBS, 0)
    return job


def _pub(pub: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"shots": finite_number(pub.get("num_shots"))}
    if isinstance(registers := pub.get("counts"), Mapping):
        joint = pub.get("joint_counts")
        shown["joint"] = _counts(joint)
        if len(registers) > 1:
            shown["registers"] = {_text(name): _counts(counts) for name, counts in registers.items()}
        else:
            shown["register"] = next((_text(name) for name in registers), None)
    if "evs" in pub:
        shown["evs"] = _points(pub["evs"])
        errors = pub.get("stds", pub.get("ensemble_standard_error"))
        shown["stds"] = _points(errors) if errors is not None else None
    if isinstance(pub.get("error"), str):
        shown["error"] = _text(pub["error"])
    return shown


def _counts(counts: Any) -> dict[str, Any] | None:
    """
    Return the most frequent outcomes and the sum of the others; None for what is no counts.

    Of a pub over an array of parameters, the first point is taken.
    """
    is_array = False
    while isinstance(counts, list) and counts:
        counts, is_array = counts[0], True
    if not isinstance(counts, Mapping):
        return None
    numbers = {bits: n for bits, n in counts.items() if isinstance(n, int) and finite_number(n) is not None}
    top = nlargest(MAX_OUTCOMES, numbers.items(), key=lambda item: item[1])
    total = sum(numbers.values())
    return {
        "top": [[_text(bits), n] for bits, n in top],
        "rest": total - sum(n for _, n in top),
        "rest_outcomes": len(numbers) - len(top),
        "total": total,
        "first_of_array": is_array,
    }


def _points(values: Any) -> list[float | None]:
    """Return the numbers of a nested list in one row."""
    flat: list[float | None] = []
    pending = [values]
    while pending and len(flat) < MAX_POINTS:
        value = pending.pop()
        if isinstance(value, list):
            pending += reversed(value)
        else:
            flat.append(finite_number(value))
    return flat


def finite_number(value: Any) -> float | None:
    """Return a number that a browser can read, else None: JSON has no infinity and no NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def _text(value: Any) -> str:
    return str(value)[:500]
