# SPDX-License-Identifier: Apache-2.0
"""
Workloads, backends, usage and versions of an instance, under the field names of IBM's REST reference.

Times are UTC, durations are seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, StrictInt

from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.models.base import (
    MAX_ROWS_PER_PAGE,
    BackendName,
    Line,
    Measure,
    Number,
    RequestModel,
    RequestTime,
    ResponseModel,
    ResponsePart,
    Tags,
    Text,
    Time,
    Whole,
    validated_by,
)
from airflow_provider_ibm_sessions.client.usage import format_seconds
from airflow_provider_ibm_sessions.client.validation import validate_string

_MAX_CURSOR = 1000
_MAX_SEARCH = 500

SearchText = Annotated[str, validated_by(lambda value, field: validate_string(value, field, _MAX_SEARCH))]
Cursor = Annotated[str, validated_by(lambda value, field: validate_string(value, field, _MAX_CURSOR))]


class Usage(ResponsePart):
    """Cost of a workload: seconds of QPU time, provisional until ``status`` is ``complete``."""

    qpu_charge_time_seconds: Measure | None = None
    status: Line | None = None


class Workload(ResponseModel):
    """A job, a session or a batch in the list of workloads."""

    id: str = Field(min_length=1)
    mode: Line | None = None
    status: Line | None = None
    status_reason: Line | None = None
    backend: Line | None = None
    created: Time | None = None
    ended: Time | None = None
    accepting_jobs: bool | None = None
    instance: Text | None = None
    user_id: Text | None = None
    tags: list[Text] | None = None
    usage: Usage | None = None


class PageLink(ResponsePart):
    """Link to a neighbouring page. By IBM's schema it may be empty."""

    href: str | None = None


class WorkloadPage(ResponseModel):
    """One page of ``GET /v1/workloads``."""

    strict_fields = frozenset({"next"})  # an unreadable link would pass for the end of the list

    workloads: list[Workload] = Field(max_length=MAX_ROWS_PER_PAGE)
    total_count: Whole | None = None
    limit: Whole | None = None
    next: PageLink | str | None = None
    previous: PageLink | str | None = None

    @property
    def has_next(self) -> bool:
        """Return True if the page links to a next one, with a cursor or without."""
        return self.next is not None and self.next not in ("", PageLink(href=""))

    @property
    def next_cursor(self) -> str | None:
        """
        Return the cursor of the next page, or None if the page names none.

        Nothing else of the link is used: it could point at another host.

        :raises BadResponseError: If the cursor is longer than any of IBM's, or cannot be sent.
        """
        link = self.next.href if isinstance(self.next, PageLink) else self.next
        try:
            [cursor] = parse_qs(urlsplit(link or "").query)["next"]
        except (KeyError, ValueError):
            return None
        if len(cursor) > _MAX_CURSOR or not cursor.isprintable():
            raise BadResponseError(
                "List workloads: the cursor of the next page is too long, or holds control characters"
            )
        return cursor


class Version(ResponseModel):
    """One version of the API: a date, ``live`` or ``deprecated``, and when it ends."""

    version: Line
    status: Line | None = None
    sunset_date: Line | None = None


class Versions(ResponseModel):
    """Response of ``GET /v1/versions``."""

    versions: list[Version] = Field(max_length=MAX_ROWS_PER_PAGE)


class BackendStatus(ResponsePart):
    """State of a QPU: ``online``, ``paused`` or ``offline``."""

    name: Line | None = None
    reason: Line | None = None


class ProcessorType(ResponsePart):
    """Generation of a QPU, such as the family ``Heron`` in revision 2."""

    family: Line | None = None
    revision: Number | Line | None = None
    segment: Line | None = None


class Speed(ResponsePart):
    """CLOPS of a QPU: circuit layers that it runs per second."""

    type: Line | None = None
    value: Measure | None = None


class Metric(ResponsePart):
    """One figure of a calibration; an error rate is a probability."""

    value: Measure | None = None


class PerformanceMetrics(ResponsePart):
    """Error rates of a QPU, as of its last calibration."""

    two_q_error_best: Metric | None = None
    two_q_error_layered: Metric | None = None
    two_q_error_median: Metric | None = None
    readout_error_median: Metric | None = None


class WaitTime(ResponsePart):
    """Seconds that jobs wait in a QPU's queue."""

    average: Measure | None = None
    p50: Measure | None = None
    p95: Measure | None = None


class Backend(ResponseModel):
    """A QPU of the instance. The wait time is null on the Open plan, and where it was not asked for."""

    name: Line
    status: BackendStatus | Line | None = None
    qubits: Number | None = None
    queue_length: Number | None = None
    processor_type: ProcessorType | None = None
    clops: Speed | None = None
    performance_metrics: PerformanceMetrics | None = None
    wait_time_seconds: WaitTime | None = None
    is_simulator: bool | None = None

    @property
    def state(self) -> str | None:
        """Return ``online``, ``paused`` or ``offline``, or None if IBM names no state."""
        return self.status.name if isinstance(self.status, BackendStatus) else self.status

    @property
    def processor_family(self) -> str | None:
        """Return the family of the processor, such as ``Heron``."""
        return self.processor_type.family if self.processor_type else None

    @property
    def wait_time(self) -> float | None:
        """Return the seconds that half of the jobs wait at most; where IBM leaves it out, the average."""
        wait = self.wait_time_seconds or WaitTime()
        return wait.average if wait.p50 is None else wait.p50

    @property
    def two_q_error(self) -> float | None:
        """Return the median error rate of the two-qubit gates."""
        return self._metric("two_q_error_median")

    @property
    def readout_error(self) -> float | None:
        """Return the median error rate of reading a qubit out."""
        return self._metric("readout_error_median")

    def summary(self) -> dict[str, Any]:
        """Return the figures that a QPU is chosen by, as plain JSON. Wait times are seconds."""
        return {
            "name": self.name,
            "state": self.state,
            "qubits": self.qubits,
            "processor_family": self.processor_family,
            "queue_length": self.queue_length,
            "wait_time": self.wait_time,
            "two_q_error": self.two_q_error,
            "readout_error": self.readout_error,
        }

    def _metric(self, name: str) -> float | None:
        metric: Metric | None = getattr(self.performance_metrics, name, None)
        return metric.value if metric else None


class Backends(ResponseModel):
    """Response of ``GET /v1/backends`` from API version 2025-01-01 on."""

    devices: list[Backend] = Field(max_length=MAX_ROWS_PER_PAGE)


class BackendPropertiesQuery(RequestModel):
    """Query of ``GET /v1/backends/{id}/properties``; without any, the latest calibration."""

    calibration_id: Annotated[str, validated_by(validate_string)] | None = None
    updated_before: RequestTime | None = None


class BackendQuery(RequestModel):
    """Query of ``GET /v1/backends``. IBM computes wait times only if it is asked for them."""

    fields: Literal["wait_time_seconds"] | None = None


class UsagePeriod(ResponsePart):
    """The time for which a usage limit holds."""

    start_time: Time | None = None
    end_time: Time | None = None


class InstanceUsage(ResponseModel):
    """
    Usage of an instance in the current period, and its limit, in seconds. The limit may be absent.

    :param usage_limit_seconds: The limit that the instance's owner has set.
    :param usage_allocation_seconds: The share that the plan gives the instance; the limit if none is set.
    """

    strict_fields = frozenset(  # an unreadable limit must not pass for an absent one
        {"usage_limit_seconds", "usage_allocation_seconds", "usage_limit_reached"}
    )

    usage_consumed_seconds: Measure
    usage_limit_seconds: Measure | None = None
    usage_allocation_seconds: Measure | None = None
    usage_limit_reached: bool | None = None
    usage_period: UsagePeriod | None = None
    instance_id: Text | None = None
    plan_id: Line | None = None

    @property
    def limit(self) -> float | None:
        """Return the limit in seconds, or None if the instance has none."""
        return self.usage_allocation_seconds if self.usage_limit_seconds is None else self.usage_limit_seconds

    @property
    def remaining(self) -> float | None:
        """Return the seconds that are left, or None if the instance has no limit."""
        if self.usage_limit_reached:
            return 0.0
        return None if self.limit is None else max(0.0, self.limit - self.usage_consumed_seconds)

    @property
    def period_end(self) -> datetime | None:
        """Return when the period ends, if IBM names a time."""
        return self.usage_period.end_time if self.usage_period else None

    def shortage(self, least: float) -> str | None:
        """
        Say that less than ``least`` seconds are left, or return None if they are.

        An instance without a limit is never short.
        """
        if self.remaining is None or self.remaining >= least:
            return None
        limit = "unknown" if self.limit is None else f"{format_seconds(self.limit)} s"
        used, left = format_seconds(self.usage_consumed_seconds), format_seconds(self.remaining)
        end = self.period_end.isoformat(timespec="seconds") if self.period_end else "an unknown time"
        return (
            f"The instance has {left} s of usage left, min_usage_remaining is {format_seconds(least)} s: "
            f"raise its limit, or set on_low_usage='wait'. Limit {limit}, used {used} s, "
            f"remaining {left} s; the period ends at {end}"
        )


class WorkloadFilter(RequestModel):
    """Query of ``GET /v1/workloads``; what is left out does not filter. Times need a time zone."""

    user: Literal["me"] | None = None
    mode: Literal["job", "session", "batch"] | None = None
    status: list[Literal["pending", "in_progress", "completed", "failed", "canceled"]] | None = None
    backend: BackendName | None = None
    search: SearchText | None = None
    tags: Tags | None = None
    created_after: RequestTime | None = None
    created_before: RequestTime | None = None
    sort: Literal["createdAt", "-createdAt"] = "-createdAt"
    limit: StrictInt = Field(default=50, ge=1, le=50)
    next: Cursor | None = None
