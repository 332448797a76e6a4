# SPDX-License-Identifier: Apache-2.0
"""
Workloads, backends, usage and versions of an instance, under the field names of IBM's REST reference.

Times are UTC, durations are seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, StrictInt

from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.models.base import Part, Reply, Request

_MAX_CURSOR = 1000


class Usage(Part):
    """What a workload cost: seconds of QPU time, provisional until ``status`` is ``complete``."""

    qpu_charge_time_seconds: float | None = None
    status: str | None = None


class Workload(Reply):
    """A job, a session or a batch in the list of workloads."""

    id: str = Field(min_length=1)
    mode: str | None = None
    status: str | None = None
    status_reason: str | None = None
    backend: str | None = None
    created: datetime | None = None
    ended: datetime | None = None
    accepting_jobs: bool | None = None
    instance: str | None = None
    user_id: str | None = None
    tags: list[str] | None = None
    usage: Usage | None = None


class PageLink(Part):
    """Where a neighbouring page is."""

    href: str


class WorkloadPage(Reply):
    """One page of ``GET /v1/workloads``."""

    strict_fields = frozenset({"next"})  # without it, the list would seem to be at its end

    workloads: list[Workload]
    total_count: int | None = None
    limit: int | None = None
    next: PageLink | str | None = None
    previous: PageLink | str | None = None

    @property
    def next_cursor(self) -> str | None:
        """
        The cursor of the next page. Only the cursor is used: a link could point at another host.

        :raises BadResponseError: If there is a link without one: the list would seem to be at its end.
        """
        href = self.next.href if isinstance(self.next, PageLink) else self.next
        if not href:
            return None
        try:
            [cursor] = parse_qs(urlsplit(href).query)["next"]
        except (KeyError, ValueError) as error:
            raise BadResponseError("List workloads: the link to the next page holds no cursor") from error
        if len(cursor) > _MAX_CURSOR:
            raise BadResponseError("List workloads: the cursor of the next page is too long")
        return cursor


class Version(Reply):
    """One version of the API: a date, ``live`` or ``deprecated``, and when it ends."""

    version: str
    status: str | None = None
    sunset_date: str | None = None


class Versions(Reply):
    """Reply of ``GET /v1/versions``."""

    versions: list[Version]


class BackendStatus(Part):
    """Whether a QPU takes work: ``online``, ``paused`` or ``offline``."""

    name: str | None = None
    reason: str | None = None


class Backend(Reply):
    """A QPU of the instance."""

    name: str
    status: BackendStatus | str | None = None
    qubits: int | None = None
    queue_length: int | None = None


class Backends(Reply):
    """Reply of ``GET /v1/backends`` from API version 2025-01-01 on."""

    devices: list[Backend]


class WorkloadFilter(Request):
    """Query of ``GET /v1/workloads``; what is left out does not filter."""

    user: Literal["me"] | None = None
    mode: Literal["job", "session", "batch"] | None = None
    status: list[Literal["pending", "in_progress", "completed", "failed", "canceled"]] | None = None
    backend: str | None = None
    search: str | None = Field(default=None, max_length=500)
    tags: list[str] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    sort: Literal["createdAt", "-createdAt"] = "-createdAt"
    limit: StrictInt = Field(default=50, ge=1, le=50)
    next: str | None = None


class Paging:
    """Which page comes next, until there is none, or a cursor comes round again."""

    def __init__(self, query: WorkloadFilter) -> None:
        self.query: WorkloadFilter | None = query
        self._seen = {query.next}

    def advance(self, page: WorkloadPage) -> None:
        """Go on to the page after this one."""
        cursor = page.next_cursor
        if cursor is None or cursor in self._seen or self.query is None:
            self.query = None
            return
        self._seen.add(cursor)
        self.query = self.query.model_copy(update={"next": cursor})
