# SPDX-License-Identifier: Apache-2.0
"""What the fake IBM has seen of jobs, and what reports say of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from testing.fake_ibm import FakeIBM

T = TypeVar("T")


def posts(ibm: FakeIBM) -> list[Any]:
    """Return the requests that the fake has seen for a new job."""
    return ibm.requests("POST", "/v1/jobs")


def statuses(ibm: FakeIBM) -> list[str]:
    """Return the status of each job, in the order of submission."""
    return [job.status for job in ibm.jobs.values()]


def only(found: Mapping[str, T]) -> T:
    """Return the only job or session of several by id; fail if there is another."""
    [one] = found.values()
    return one


def width(report: Mapping[str, Any]) -> int | None:
    """Return the width of the register ``meas`` in a report's first pub, or None without results."""
    counts = report["results"][0]["counts"]["meas"] if "results" in report else {}
    return next((len(bits) for bits in counts), None)


def widths(reports: Iterable[Mapping[str, Any]]) -> list[int | None]:
    """Return the widths of the registers, in the order of the reports."""
    return [width(report) for report in reports]
