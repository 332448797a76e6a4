# SPDX-License-Identifier: Apache-2.0
"""
Jobs, under the field names of IBM's REST reference.

Times are UTC, durations are seconds.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
    field_validator,
)
from pydantic_core import to_jsonable_python

from airflow_provider_ibm_sessions.client.enums import JobState, LogLevel
from airflow_provider_ibm_sessions.client.errors import SESSION_CLOSED_CODE, JobFailedError
from airflow_provider_ibm_sessions.client.models.base import (
    MAX_ROWS_PER_PAGE,
    WORD,
    BackendName,
    Line,
    Measure,
    Number,
    ProgramId,
    RequestId,
    RequestModel,
    RequestTime,
    ResourceId,
    ResponseModel,
    ResponsePart,
    Tags,
    Text,
    Time,
    Whole,
    validated_by,
)
from airflow_provider_ibm_sessions.client.models.instance import Usage
from airflow_provider_ibm_sessions.client.validation import (
    MAX_COST,
    short_repr,
    validate_id,
    validate_string,
)

_PUB_SHAPES = {
    "sampler": "[circuit, parameters, shots]",
    "estimator": "[circuit, observables, parameters, precision]",
}
_RAN_TOO_LONG = "1305"

MAX_JOB_BYTES = 300_000_000
"""Since 2026. IBM's documentation named 50 MB before, and names no number any more."""


class SubmitJob(RequestModel):
    """Body of ``POST /v1/jobs``. Circuits must be compiled for the backend: IBM queues others, then fails."""

    program_id: ProgramId = Field(description="Such as sampler")
    backend: BackendName = Field(description="Name of the QPU; the session's")
    session_id: Annotated[str, Field(max_length=36), validated_by(validate_id)] | None = Field(
        default=None, description="Session to run in"
    )
    params: dict[str, Any] = Field(description="The program's input, such as {'pubs': [...]}")
    tags: Tags | None = Field(default=None, description="Labels to find it by")
    cost: StrictInt | None = Field(default=None, ge=0, le=MAX_COST, description="Longest QPU time in seconds")
    log_level: Annotated[LogLevel, WORD] | None = None
    private: StrictBool | None = Field(default=None, description="Results can be read once only")
    calibration_id: Annotated[str, validated_by(validate_string)] | None = None

    @field_validator("params")
    @classmethod
    def _check_params(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        program_id = info.data.get("program_id")
        if program_id in _PUB_SHAPES:
            _check_pubs(params.get("pubs"), program_id)
        try:
            size = len(json.dumps(params, allow_nan=False, ensure_ascii=False).encode())
            to_jsonable_python([params])  # pydantic, which writes the request, allows less depth than json
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"must be JSON ({error}): give circuits as OpenQASM 3 strings, or encode them with Qiskit's "
                "RuntimeEncoder"
            ) from error
        if size > MAX_JOB_BYTES:
            raise ValueError(
                f"must be at most {MAX_JOB_BYTES / 1e6:g} MB of JSON, got {size / 1e6:.0f} MB: IBM refuses "
                "larger jobs. Spread its pubs over several jobs"
            )
        return params


def _check_pubs(pubs: object, program_id: str) -> None:
    shape = _PUB_SHAPES[program_id]
    if not isinstance(pubs, list | tuple) or not pubs:
        raise ValueError(f"pubs must be a list with at least one {shape}, got {short_repr(pubs)}")
    for index, pub in enumerate(pubs):
        parts = pub if isinstance(pub, list | tuple) else [pub]
        if not parts or not isinstance(parts[0], str | dict) or not parts[0]:
            raise ValueError(
                f"pubs[{index}] must begin with a circuit, as an OpenQASM 3 string or as Qiskit encodes it: "
                f"{shape}, got {short_repr(pub)}"
            )
        if program_id == "estimator" and len(parts) < 2:
            raise ValueError(f"pubs[{index}] must be {shape}, got {short_repr(pub)}")


class JobStateDetail(ResponsePart):
    """The ``state`` of a job: its status, and why it ended."""

    status: Line | None = None
    reason: Line | None = None
    reason_code: Whole | Line | None = Field(
        default=None, validation_alias=AliasChoices("reason_code", "reasonCode")
    )
    reason_solution: Line | None = None


class Program(ResponsePart):
    """The program that a job runs."""

    id: Text | None = None


class Job(ResponseModel):
    """A job, as ``GET /v1/jobs/{id}`` and the list of jobs describe it; ``POST`` answers with less."""

    id: ResourceId
    backend: Line | None = None
    state: JobStateDetail | Line | None = None
    status: Line | None = None
    program: Program | None = None
    session_id: Text | None = None
    created: Time | None = None
    cost: Measure | None = None
    tags: list[Text] | None = None
    private: bool | None = None
    usage: Usage | None = None
    estimated_running_time_seconds: Measure | None = None

    @property
    def detail(self) -> JobStateDetail:
        """Return ``state``, in whichever of its two forms it came."""
        if isinstance(self.state, JobStateDetail):
            return self.state
        return JobStateDetail(status=self.state)

    @property
    def final_status(self) -> str | None:
        """Return IBM's word for the state: ``state.status``, or ``status`` where that says more."""
        short, long = self.detail.status, self.status
        status = long if long and (not short or long.startswith(f"{short} - ")) else short
        return JobState.COMPLETED.value if _outcome(status) == JobState.COMPLETED else status

    @property
    def is_final(self) -> bool:
        """Return True if the job has ended. A state that is not documented is not final."""
        outcome = _outcome(self.final_status)
        return outcome.startswith(JobState.CANCELLED) or outcome in (JobState.COMPLETED, JobState.FAILED)

    @property
    def is_completed(self) -> bool:
        """Return True if the job has completed."""
        return self.final_status == JobState.COMPLETED

    @property
    def is_void(self) -> bool:
        """Return True if it never gave a result: it was cancelled, or its session closed before it ran."""
        code = str(self.detail.reason_code)
        if self.final_status == JobState.CANCELLED:
            return code != _RAN_TOO_LONG
        return _outcome(self.final_status) == JobState.FAILED and code == SESSION_CLOSED_CODE

    def to_error(self) -> JobFailedError:
        """Return the error for a job that failed or was cancelled."""
        detail = self.detail
        sentences = [f"Job {self.id}: {self.final_status}", detail.reason, detail.reason_solution]
        code = None if detail.reason_code is None else str(detail.reason_code)
        return JobFailedError(". ".join(each.rstrip(".") for each in sentences if each)[:1000], code=code)

    def to_json(self) -> dict[str, Any]:
        """Return what a person or the next task needs of it, as plain JSON; ``state`` is the final status."""
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


def _outcome(status: str | None) -> str:
    """Return the state without the reason that IBM may append, as in ``Cancelled - Ran too long``."""
    return (status or "").partition(" - ")[0]


class JobPage(ResponseModel):
    """One page of ``GET /v1/jobs``."""

    jobs: list[Job] = Field(max_length=MAX_ROWS_PER_PAGE)
    count: Whole | None = None
    offset: Whole | None = None
    limit: Whole | None = None


class GetJob(RequestModel):
    """Query of ``GET /v1/jobs/{id}``. By IBM's own default, each poll would carry all parameters."""

    exclude_params: StrictBool = True


class JobFilter(RequestModel):
    """
    Query of ``GET /v1/jobs``; what is left out does not filter. Times need a time zone.

    An unknown ``session_id`` gives an empty list, no error. All ``tags`` must match.
    """

    session_id: RequestId | None = None
    tags: Tags | None = None
    pending: StrictBool | None = Field(default=None, description="true: queued and running; false: final")
    program: ProgramId | None = None
    backend: BackendName | None = None
    created_after: RequestTime | None = None
    created_before: RequestTime | None = None
    # Oldest first: what is submitted meanwhile then moves nothing to another page.
    sort: Literal["ASC", "DESC"] = "ASC"
    exclude_params: StrictBool = True
    limit: StrictInt = Field(default=200, ge=1, le=200)
    offset: StrictInt = Field(default=0, ge=0, le=2**31 - 1)


class JobTimes(ResponsePart):
    """Times at which a job was created, started and ended."""

    created: Time | None = None
    running: Time | None = None
    finished: Time | None = None


class JobMetrics(ResponseModel):
    """Response of ``GET /v1/jobs/{id}/metrics``; ``usage`` is provisional until it is ``complete``."""

    timestamps: JobTimes | None = None
    usage: Usage | None = None
    caller: Text | None = None
    qiskit_version: Any = None
    circuits_execution_time_ns: Number | None = None
