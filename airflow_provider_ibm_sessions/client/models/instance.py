# SPDX-License-Identifier: Apache-2.0
"""
Workloads, backends, usage and versions of an instance, under the field names of IBM's REST reference.

Times are UTC, durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, StrictInt

from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.models.base import (
    MAX_ROWS_PER_PAGE,
    BackendName,
    Line,
    Number,
    RequestModel,
    RequestTime,
    ResponseModel,
    ResponsePart,
    Tags,
    Text,
    Time,
    validated_by,
)
from airflow_provider_ibm_sessions.client.validation import validate_string

_MAX_CURSOR = 1000
_MAX_SEARCH = 500

SearchText = Annotated[str, validated_by(lambda value, field: validate_string(value, field, _MAX_SEARCH))]


class Usage(ResponsePart):
    """What a workload cost: seconds of QPU time, provisional until ``status`` is ``complete``."""

    qpu_charge_time_seconds: float | None = None
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
    total_count: int | None = None
    limit: int | None = None
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

        :raises BadResponseError: If the cursor is longer than any of IBM's.
        """
        link = self.next.href if isinstance(self.next, PageLink) else self.next
        try:
            [cursor] = parse_qs(urlsplit(link or "").query)["next"]
        except (KeyError, ValueError):
            return None
        if len(cursor) > _MAX_CURSOR:
            raise BadResponseError("List workloads: the cursor of the next page is too long")
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


class Backend(ResponseModel):
    """A QPU of the instance."""

    name: Line
    status: BackendStatus | Line | None = None
    qubits: Number | None = None
    queue_length: Number | None = None


class Backends(ResponseModel):
    """Response of ``GET /v1/backends`` from API version 2025-01-01 on."""

    devices: list[Backend] = Field(max_length=MAX_ROWS_PER_PAGE)


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
    next: str | None = None
