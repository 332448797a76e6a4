# SPDX-License-Identifier: Apache-2.0
"""
Sessions, workloads, backends and versions, under the field names of IBM's REST reference.

Times are UTC, lengths of time are seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import ConfigDict, Field, StrictBool, StrictInt
from pydantic.config import JsonDict

from airflow_provider_ibm_sessions.client.bases import Part, Reply, Request
from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.values import (
    BACKEND_PATTERN,
    DEFAULT_MAX_TTL,
    SessionMode,
    SessionState,
)

_MAX_CURSOR = 1000
_SESSION: JsonDict = {
    "id": "6f1c9c2e-0d0b-4b7e-9a52-3a6f6a1f3f10",
    "backend_name": "ibm_fez",
    "mode": "batch",
    "state": "open",
    "accepting_jobs": True,
    "max_ttl": 600,
}


class CreateSession(Request):
    """What to open. IBM silently lowers ``max_ttl`` to what the plan allows."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"mode": "batch", "backend": "ibm_fez", "max_ttl": 600}]}
    )

    mode: SessionMode = Field(
        description="dedicated: the QPU is held for the session, and billed while it is active; "
        "batch: billed for the jobs' QPU time only"
    )
    backend: str = Field(pattern=f"^{BACKEND_PATTERN}$", description="Name of the QPU, such as ibm_fez")
    # Always sent: it is the one bound on the bill that holds when everybody has gone.
    max_ttl: StrictInt = Field(
        default=DEFAULT_MAX_TTL, ge=1, le=2**31 - 1, description="Seconds from the first job's start, at most"
    )


class UpdateSession(Request):
    """What to change. ``false`` drains: queued jobs run, then the session closes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"accepting_jobs": False}]})

    accepting_jobs: StrictBool = Field(description="Whether the session takes new jobs; false drains it")


class StateChange(Part):
    """One entry of a session's ``timestamps``."""

    status: str | None = None
    timestamp: datetime | None = None


class Session(Reply):
    """A session or a batch, as IBM describes it. Times are UTC, lengths of time are seconds."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SESSION]})

    id: str = Field(min_length=1, description="IBM's name for it")
    backend_name: str | None = Field(default=None, description="Name of the QPU; IBM may tell it late")
    mode: str | None = Field(default=None, description="dedicated or batch")
    state: str | None = Field(
        default=None, description="open, active, inactive or closed; IBM may send others, which are not final"
    )
    state_reason: str | None = Field(default=None, description="Why it is in this state")
    accepting_jobs: bool | None = Field(default=None, description="Whether it takes new jobs")
    max_ttl: int | None = Field(default=None, description="Longest life from the first job's start")
    interactive_ttl: int | None = Field(default=None, description="Idle time after which it goes inactive")
    active_ttl: int | None = Field(default=None, description="What is left of its active time")
    started_at: datetime | None = Field(default=None, description="When its first job started")
    activated_at: datetime | None = Field(default=None, description="When it last got the QPU")
    closed_at: datetime | None = Field(default=None, description="When it closed")
    last_job_started: datetime | None = Field(default=None, description="When its last job started")
    last_job_completed: datetime | None = Field(default=None, description="When its last job ended")
    elapsed_time: float | None = Field(default=None, description="What is billed of it so far")
    user_id: str | None = Field(default=None, description="Who opened it")
    timestamps: list[StateChange] | None = Field(default=None, description="Its states so far")

    @property
    def is_closed(self) -> bool:
        """Whether the session has ended. ``closed`` is the only state known to be final."""
        return self.state == SessionState.CLOSED

    @property
    def takes_jobs(self) -> bool:
        """Whether a job may be submitted to it, as far as IBM tells."""
        return not self.is_closed and self.accepting_jobs is not False

    def to_json(self) -> dict[str, Any]:
        """The fields above, as plain values, for XCom and trigger events."""
        return self.model_dump(mode="json", exclude_none=True, include=set(type(self).model_fields))


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

    must_be_read = frozenset({"next"})  # without it, the list would seem to be at its end

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

    def turn(self, page: WorkloadPage) -> None:
        """Go on to the page after this one."""
        cursor = page.next_cursor
        if cursor is None or cursor in self._seen or self.query is None:
            self.query = None
            return
        self._seen.add(cursor)
        self.query = self.query.model_copy(update={"next": cursor})
