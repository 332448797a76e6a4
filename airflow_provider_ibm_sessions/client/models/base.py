# SPDX-License-Identifier: Apache-2.0
"""
What all models of IBM Quantum's REST API have in common.

Requests are strict: an unknown field or a wrong type is an error before anything is sent. Replies are read
with patience: only an id is demanded, fields and states that are new are kept as they come.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from airflow_provider_ibm_sessions.client.validation import ID_PATTERN, MAX_ID_LENGTH

PathId: TypeAlias = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_LENGTH, pattern=f"^{ID_PATTERN}$"),
]
"""An id in a path, with the rules of ``validate_id``."""


class Request(BaseModel):
    """What is sent."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Part(BaseModel):
    """Part of a reply. A field that cannot be read is as good as absent, unless nothing works without it."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)
    strict_fields: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="wrap")
    @classmethod
    def _lenient(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return read(value)
        except ValidationError:
            # Nothing costs more than a session that is lost because IBM wrote 59.5 where an int stood.
            name = str(info.field_name)
            if cls.model_fields[name].is_required() or name in cls.strict_fields:
                raise
            return None


class Reply(Part):
    """A thing of IBM's, or a page of them. Fields that are new are kept."""

    model_config = ConfigDict(extra="allow")
