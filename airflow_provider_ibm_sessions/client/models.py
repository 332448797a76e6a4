# SPDX-License-Identifier: Apache-2.0
"""
What IBM Quantum's REST API takes and gives, under its own field names.

Requests are strict: an unknown field or a wrong type is an error before anything is sent. Replies are read
with patience: only an id is demanded, fields and states that are new are kept as they come. Times are UTC,
lengths of time are seconds. Field facts: IBM's REST reference (sessions, workloads, backends, versions).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.values import BACKEND_PATTERN, SessionMode, SessionState

_MAX_CURSOR = 1000


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Part(BaseModel):
    """Part of a reply. A field that cannot be read is as good as absent, unless nothing works without it."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)
    must_be_read: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="wrap")
    @classmethod
    def _lenient(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return read(value)
        except ValidationError:
            # Nothing costs more than a session that is lost because IBM wrote 59.5 where an int stood.
            name = str(info.field_name)
            if cls.model_fields[name].is_required() or name in cls.must_be_read:
                raise
            return None


class _Reply(_Part):
    model_config = ConfigDict(extra="allow")


class CreateSession(_Request):
    """Body of ``POST /v1/sessions``. IBM silently lowers ``max_ttl`` to what the plan allows."""

    mode: SessionMode = Field(description="dedicated: the QPU is held for the session; batch: job by job")
    backend: str = Field(pattern=f"^{BACKEND_PATTERN}$", description="Name of the QPU, such as ibm_fez")
    max_ttl: StrictInt = Field(ge=1, le=2**31 - 1, description="Seconds from the first job's start, at most")


class UpdateSession(_Request):
    """Body of ``PATCH /v1/sessions/{id}``. ``false`` drains: queued jobs run, then the session closes."""

    accepting_jobs: StrictBool = Field(description="Whether the session takes new jobs")


class StateChange(_Part):
    """One entry of a session's ``timestamps``."""

    status: str | None = None
    timestamp: datetime | None = None


class Session(_Reply):
    """A session or a batch, as ``POST`` and ``GET /v1/sessions`` describe it."""

    id: str = Field(min_length=1)
    backend_name: str | None = None
    mode: str | None = None
    state: str | None = None
    state_reason: str | None = None
    accepting_jobs: bool | None = None
    max_ttl: int | None = None
    interactive_ttl: int | None = None
    active_ttl: int | None = None
    started_at: datetime | None = None
    activated_at: datetime | None = None
    closed_at: datetime | None = None
    last_job_started: datetime | None = None
    last_job_completed: datetime | None = None
    elapsed_time: float | None = None
    user_id: str | None = None
    timestamps: list[StateChange] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the session has ended. ``closed`` is the only state known to be final."""
        return self.state == SessionState.CLOSED

    def to_json(self) -> dict[str, Any]:
        """The fields above, as plain values, for XCom and trigger events."""
        return self.model_dump(mode="json", exclude_none=True, include=set(type(self).model_fields))


class Usage(_Part):
    """What a workload cost: seconds of QPU time, provisional until ``status`` is ``complete``."""

    qpu_charge_time_seconds: float | None = None
    status: str | None = None


class Workload(_Reply):
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


class PageLink(_Part):
    """Where a neighbouring page is."""

    href: str


class WorkloadPage(_Reply):
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


class Version(_Reply):
    """One version of the API: a date, ``live`` or ``deprecated``, and when it ends."""

    version: str
    status: str | None = None
    sunset_date: str | None = None


class Versions(_Reply):
    """Reply of ``GET /v1/versions``."""

    versions: list[Version]


class BackendStatus(_Part):
    """Whether a QPU takes work: ``online``, ``paused`` or ``offline``."""

    name: str | None = None
    reason: str | None = None


class Backend(_Reply):
    """A QPU of the instance."""

    name: str
    status: BackendStatus | str | None = None
    qubits: int | None = None
    queue_length: int | None = None


class Backends(_Reply):
    """Reply of ``GET /v1/backends`` from API version 2025-01-01 on."""

    devices: list[Backend]


class WorkloadFilter(_Request):
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
