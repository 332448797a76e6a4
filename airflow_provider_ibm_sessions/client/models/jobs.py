# SPDX-License-Identifier: Apache-2.0
"""
Jobs, under the field names of IBM's REST reference.

Times are UTC, lengths of time are seconds.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import to_jsonable_python

from airflow_provider_ibm_sessions.client.enums import JobState
from airflow_provider_ibm_sessions.client.errors import JobFailedError
from airflow_provider_ibm_sessions.client.models.base import Part, Reply, Request
from airflow_provider_ibm_sessions.client.models.instance import Usage
from airflow_provider_ibm_sessions.client.validation import (
    BACKEND_PATTERN,
    MAX_COST,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    short_repr,
)

_PUB_SHAPES = {
    "sampler": "[circuit, parameters, shots]",
    "estimator": "[circuit, observables, parameters, precision]",
}
_SESSION_CLOSED = "1217"
_RAN_TOO_LONG = "1305"

Tag = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_TAG_LENGTH)]


class SubmitJob(Request):
    """Body of ``POST /v1/jobs``. Circuits must be compiled for the backend: IBM queues others, then fails."""

    program_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Such as sampler")
    backend: str = Field(pattern=f"^{BACKEND_PATTERN}$", description="Name of the QPU; the session's")
    session_id: str | None = Field(default=None, min_length=1, max_length=36, description="Session to run in")
    params: dict[str, Any] = Field(description="The program's input, such as {'pubs': [...]}")
    tags: list[Tag] | None = Field(default=None, max_length=MAX_TAGS, description="Labels to find it by")
    cost: StrictInt | None = Field(default=None, ge=0, le=MAX_COST, description="Longest QPU time in seconds")
    log_level: Literal["critical", "error", "warning", "info", "debug"] | None = None
    private: StrictBool | None = Field(default=None, description="Results can be read once only")
    calibration_id: str | None = Field(default=None, max_length=100)

    @field_validator("params")
    @classmethod
    def _can_be_run(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        program_id = info.data.get("program_id")
        if program_id in _PUB_SHAPES:
            _check_pubs(params.get("pubs"), program_id)
        try:
            json.dumps(params, allow_nan=False, ensure_ascii=False).encode()
            to_jsonable_python([params])  # what writes the request allows less depth than json
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"must be JSON ({error}): give circuits as OpenQASM 3 text, or encode them with Qiskit's "
                "RuntimeEncoder"
            ) from error
        return params


def _check_pubs(pubs: object, program_id: str) -> None:
    shape = _PUB_SHAPES[program_id]
    if not isinstance(pubs, list | tuple) or not pubs:
        raise ValueError(f"pubs must be a list with at least one {shape}, got {short_repr(pubs)}")
    for index, pub in enumerate(pubs):
        parts = pub if isinstance(pub, list | tuple) else [pub]
        if not parts or not isinstance(parts[0], str | dict) or not parts[0]:
            raise ValueError(
                f"pubs[{index}] must begin with a circuit, as OpenQASM 3 text or as Qiskit encodes it: "
                f"{shape}, got {short_repr(pub)}"
            )
        if program_id == "estimator" and len(parts) < 2:
            raise ValueError(f"pubs[{index}] must be {shape}, got {short_repr(pub)}")


class JobStateDetail(Part):
    """The ``state`` of a job: its status, and why it ended."""

    status: str | None = None
    reason: str | None = None
    reason_code: int | str | None = Field(
        default=None, validation_alias=AliasChoices("reason_code", "reasonCode")
    )
    reason_solution: str | None = None


class Program(Part):
    """The program that a job runs."""

    id: str | None = None


class Job(Reply):
    """A job, as ``GET /v1/jobs/{id}`` and the list of jobs describe it; ``POST`` tells less."""

    id: str = Field(min_length=1)
    backend: str | None = None
    state: JobStateDetail | str | None = None
    status: str | None = None
    program: Program | None = None
    session_id: str | None = None
    created: datetime | None = None
    cost: float | None = None
    tags: list[str] | None = None
    private: bool | None = None
    usage: Usage | None = None
    estimated_running_time_seconds: float | None = None

    @property
    def detail(self) -> JobStateDetail:
        """``state``, in whichever of its two forms it came."""
        if isinstance(self.state, JobStateDetail):
            return self.state
        return JobStateDetail(status=self.state)

    @property
    def final_status(self) -> str | None:
        """The state in IBM's words: ``state.status``, or ``status`` where only that is there or says more."""
        short, long = self.detail.status, self.status
        return long if long and (not short or long.startswith(f"{short} - ")) else short

    @property
    def is_final(self) -> bool:
        """Whether it has ended. A state never seen before has not."""
        outcome = self.final_status or ""
        return outcome.startswith(JobState.CANCELLED) or outcome in (JobState.COMPLETED, JobState.FAILED)

    @property
    def is_completed(self) -> bool:
        """Whether it has ended well."""
        return self.final_status == JobState.COMPLETED

    @property
    def is_void(self) -> bool:
        """Whether it is no result: somebody cancelled it, or its session closed before it ran."""
        code = str(self.detail.reason_code)
        if self.final_status == JobState.CANCELLED:
            return code != _RAN_TOO_LONG
        return self.final_status == JobState.FAILED and code == _SESSION_CLOSED

    def to_error(self) -> JobFailedError:
        """The error that a job stands for that ended, but not well."""
        detail = self.detail
        texts = [f"Job {self.id}: {self.final_status}", detail.reason, detail.reason_solution]
        code = None if detail.reason_code is None else str(detail.reason_code)
        return JobFailedError(". ".join(text.rstrip(".") for text in texts if text)[:1000], code=code)

    def to_json(self) -> dict[str, Any]:
        """What a person or the next task wants to know of it, as plain values; ``state`` is the outcome."""
        detail = self.detail
        facts = {
            "id": self.id,
            "state": self.final_status,
            "reason": detail.reason,
            "reason_code": detail.reason_code,
            "reason_solution": detail.reason_solution,
            "program_id": self.program.id if self.program else None,
            "backend": self.backend,
            "session_id": self.session_id,
            "created": self.created.isoformat() if self.created else None,
            "tags": self.tags,
            "private": self.private,
            "usage": self.usage.model_dump(exclude_none=True) if self.usage else None,
        }
        return {name: value for name, value in facts.items() if value is not None}


class JobPage(Reply):
    """One page of ``GET /v1/jobs``."""

    jobs: list[Job]
    count: int | None = None
    offset: int | None = None
    limit: int | None = None


class GetJob(Request):
    """Query of ``GET /v1/jobs/{id}``. By IBM's own default, each poll would carry all parameters."""

    exclude_params: StrictBool = True


class JobFilter(Request):
    """
    Query of ``GET /v1/jobs``; what is left out does not filter.

    An unknown ``session_id`` gives an empty list, no error. All ``tags`` must match.
    """

    session_id: str | None = Field(default=None, min_length=1)
    tags: list[str] | None = None
    pending: StrictBool | None = Field(default=None, description="true: queued and running; false: final")
    program: str | None = None
    backend: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    # Oldest first: what is submitted meanwhile then moves nothing to another page.
    sort: Literal["ASC", "DESC"] = "ASC"
    exclude_params: StrictBool = True
    limit: StrictInt = Field(default=200, ge=1, le=200)
    offset: StrictInt = Field(default=0, ge=0)


class JobPaging:
    """Which page comes next, until there is none."""

    def __init__(self, query: JobFilter) -> None:
        self.query: JobFilter | None = query
        self._first: set[str] = set()

    def advance(self, page: JobPage) -> None:
        """Go on to the page after this one; IBM falls back to the first page for an offset it dislikes."""
        first = {job.id for job in page.jobs[:1]}
        if self.query is None or first & self._first:
            self.query = None
            return
        self._first |= first
        offset = self.query.offset + len(page.jobs)
        more = offset < page.count if page.count is not None else len(page.jobs) >= self.query.limit
        self.query = self.query.model_copy(update={"offset": offset}) if page.jobs and more else None


class JobTimes(Part):
    """When a job was created, began and ended."""

    created: datetime | None = None
    running: datetime | None = None
    finished: datetime | None = None


class JobMetrics(Reply):
    """Reply of ``GET /v1/jobs/{id}/metrics``; ``usage`` is provisional until its status is ``complete``."""

    timestamps: JobTimes | None = None
    usage: Usage | None = None
    caller: str | None = None
    qiskit_version: Any = None
    circuits_execution_time_ns: int | None = None
