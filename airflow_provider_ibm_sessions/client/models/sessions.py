# SPDX-License-Identifier: Apache-2.0
"""
Sessions, under the field names of IBM's REST reference.

Times are UTC, durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, StrictBool, StrictInt
from pydantic.config import JsonDict

from airflow_provider_ibm_sessions.client.enums import SessionMode, SessionState
from airflow_provider_ibm_sessions.client.models.base import (
    WORD,
    BackendName,
    Line,
    Measure,
    Number,
    RequestModel,
    ResourceId,
    ResponseModel,
    ResponsePart,
    Text,
    Time,
)
from airflow_provider_ibm_sessions.client.validation import DEFAULT_MAX_TTL

_MAX_TIMESTAMPS = 10_000
_SESSION: JsonDict = {
    "id": "6f1c9c2e-0d0b-4b7e-9a52-3a6f6a1f3f10",
    "backend_name": "ibm_fez",
    "mode": "batch",
    "state": "open",
    "accepting_jobs": True,
    "max_ttl": 600,
}


class CreateSession(RequestModel):
    """Body of ``POST /v1/sessions``. IBM silently lowers ``max_ttl`` to what the plan allows."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"mode": "batch", "backend": "ibm_fez", "max_ttl": 600}]}
    )

    mode: Annotated[SessionMode, WORD] = Field(
        description="dedicated: the QPU is held for the session, and billed while it is active; "
        "batch: billed for the jobs' QPU time only"
    )
    backend: BackendName = Field(description="Name of the QPU, such as ibm_fez")
    # Always sent: it bounds the bill even if nobody is left to close the session.
    max_ttl: StrictInt = Field(
        default=DEFAULT_MAX_TTL, ge=1, le=2**31 - 1, description="Seconds from the first job's start, at most"
    )


class UpdateSession(RequestModel):
    """Body of ``PATCH /v1/sessions/{id}``. ``false`` drains: queued jobs run, then the session closes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"accepting_jobs": False}]})

    accepting_jobs: StrictBool = Field(description="Whether the session takes new jobs; false drains it")


class StateChange(ResponsePart):
    """One entry of a session's ``timestamps``."""

    status: Line | None = None
    timestamp: Time | None = None


class Session(ResponseModel):
    """A session or a batch, as IBM describes it. Times are UTC, durations are seconds."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SESSION]})

    id: ResourceId = Field(min_length=1, description="IBM's name for it")
    backend_name: Line | None = Field(default=None, description="Name of the QPU; IBM may fill it in late")
    mode: Line | None = Field(default=None, description="dedicated or batch")
    state: Line | None = Field(
        default=None, description="open, active, inactive or closed; IBM may send others, which are not final"
    )
    state_reason: Line | None = Field(default=None, description="Why it is in this state")
    accepting_jobs: bool | None = Field(default=None, description="Whether it takes new jobs")
    max_ttl: Number | None = Field(default=None, description="Longest life from the first job's start")
    interactive_ttl: Number | None = Field(default=None, description="Idle time after which it goes inactive")
    active_ttl: Number | None = Field(default=None, description="What is left of its active time")
    started_at: Time | None = Field(default=None, description="When its first job started")
    activated_at: Time | None = Field(default=None, description="When it last got the QPU")
    closed_at: Time | None = Field(default=None, description="When it closed")
    last_job_started: Time | None = Field(default=None, description="When its last job started")
    last_job_completed: Time | None = Field(default=None, description="When its last job ended")
    elapsed_time: Measure | None = Field(default=None, description="What is billed of it so far")
    user_id: Text | None = Field(default=None, description="Who opened it")
    timestamps: list[StateChange] | None = Field(
        default=None, max_length=_MAX_TIMESTAMPS, description="Its states so far"
    )

    @property
    def is_closed(self) -> bool:
        """Return True if the session has ended. ``closed`` is the only state known to be final."""
        return self.state == SessionState.CLOSED

    @property
    def accepts_jobs(self) -> bool:
        """Return True if a job may be submitted to the session, as far as IBM tells."""
        return not self.is_closed and self.accepting_jobs is not False

    def to_json(self) -> dict[str, Any]:
        """Return the documented fields as plain JSON, for XCom and trigger events."""
        return self.model_dump(mode="json", exclude_none=True, include=set(type(self).model_fields))
