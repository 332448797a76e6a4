# SPDX-License-Identifier: Apache-2.0
"""
Base classes and field types of all models of IBM Quantum's REST API.

Requests are strict: an unknown field or a wrong type is an error before anything is sent. Responses are read
leniently: only an id is required, and fields and states that are new are kept as they came.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from airflow_provider_ibm_sessions.client.storable import STORABLE_INTS, storable_text
from airflow_provider_ibm_sessions.client.validation import (
    BACKEND_PATTERN,
    ID_PATTERN,
    MAX_ID_LENGTH,
    PROGRAM_PATTERN,
    short_repr,
    validate_backend,
    validate_datetime,
    validate_id,
    validate_program_id,
    validate_tags,
)

MAX_LINE_LENGTH = 4000
_MAX_MEASURE = 1e15
MAX_ROWS_PER_PAGE = 1000
"""Rows that a page may have. IBM sends at most 200; a page of a million would cost its reader gigabytes."""


def single_line(text: str) -> str:
    """Return the text on one line, without control characters, cut at 4,000 characters: it will be logged."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * MAX_LINE_LENGTH])
    return re.sub(r"\s+", " ", printable).strip()[:MAX_LINE_LENGTH]


def as_utc(time: datetime) -> datetime:
    """Return the time with its zone; one without is UTC, as all of IBM's are."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic wants a ValueError
    return value


def _refuse_long(value: int) -> int:
    if value not in STORABLE_INTS:
        raise ValueError("must have 64 bits at most")
    return value


def _refuse_huge(value: float) -> float:
    if abs(value) > _MAX_MEASURE:
        raise ValueError(f"must be at most {_MAX_MEASURE:g}")
    return value


def _refuse_number(value: object) -> object:
    if not isinstance(value, str | datetime) or (isinstance(value, str) and "-" not in value.strip("-")):
        raise ValueError("must be an ISO 8601 time")
    return value


PathId: TypeAlias = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_LENGTH, pattern=f"^{ID_PATTERN}$"),
]
"""An id in a path, with the rules of ``validate_id``."""

ResourceId: TypeAlias = Annotated[str, AfterValidator(lambda value: validate_id(value, "id"))]
"""
An id that IBM has given to a session or a job.

One that no later request could name is refused when it is read: the outcome of the request that brought it
is then reported as unknown, with the id in the message, in place of a session that nobody can close.
"""


def validated_by(validate: Callable[[object, str], Any]) -> BeforeValidator:
    """Return a validator of a request's field that names the field in its error."""
    return BeforeValidator(lambda value, info: validate(value, str(info.field_name)))


WORD = BeforeValidator(lambda value: value if isinstance(value, str) else short_repr(value))
"""Before an enum: what is no string is refused without its own methods, such as a repr that never ends."""

RequestId: TypeAlias = Annotated[str, validated_by(validate_id)]
"""The id of a session, in a body or a query."""

BackendName: TypeAlias = Annotated[str, Field(pattern=f"^{BACKEND_PATTERN}$"), validated_by(validate_backend)]
ProgramId: TypeAlias = Annotated[
    str, Field(pattern=f"^{PROGRAM_PATTERN}$"), validated_by(validate_program_id)
]
Tags: TypeAlias = Annotated[list[str], validated_by(validate_tags)]
RequestTime: TypeAlias = Annotated[datetime, validated_by(validate_datetime)]
"""A point in time with a zone; one without is refused, as IBM would read it as UTC."""

Line: TypeAlias = Annotated[str, AfterValidator(single_line)]
"""A string of IBM's that ends up in log lines and errors: a state, a reason."""

Text: TypeAlias = Annotated[str, AfterValidator(storable_text)]
"""A string of IBM's for programs."""

Time: TypeAlias = Annotated[datetime, BeforeValidator(_refuse_number), AfterValidator(as_utc)]
"""A point in time, always with a zone. A number is none: it may be seconds or milliseconds."""

Whole: TypeAlias = Annotated[int, BeforeValidator(_refuse_bool), AfterValidator(_refuse_long)]
"""A whole number that XCom can hold."""

Number: TypeAlias = Annotated[Whole | float, BeforeValidator(_refuse_bool)]
"""A number that IBM documents as whole, but which is worth reading with a fraction too."""

Measure: TypeAlias = Annotated[float, BeforeValidator(_refuse_bool), AfterValidator(_refuse_huge)]
"""A number to compute with: seconds, rates. Never infinite, nor too large to be multiplied by a price."""


class RequestModel(BaseModel):
    """Body or query of a request."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ResponsePart(BaseModel):
    """Part of a response. Optional fields that fail validation become None; required ones raise."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)
    strict_fields: ClassVar[frozenset[str]] = frozenset()
    """Optional fields that raise as well, because an unreadable one must not pass for an absent one."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _read_leniently(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return read(value)
        except ValidationError:
            # Nothing costs more than a session that is lost because one field of its description is odd.
            name = str(info.field_name)
            if cls.model_fields[name].is_required() or name in cls.strict_fields:
                raise
            return None


class ResponseModel(ResponsePart):
    """A resource of IBM's, or a page of them. Fields that are new are kept."""

    model_config = ConfigDict(extra="allow")
