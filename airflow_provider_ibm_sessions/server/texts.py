# SPDX-License-Identifier: Apache-2.0
"""Fields that come as text, in a query or on a command line, for models that want other things."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo


def reading_texts(model: type[BaseModel]) -> type[BaseModel]:
    """The same model, with all its rules, that reads ``"5"`` where it means 5, and JSON for a mapping."""

    def read(_: type[BaseModel], given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        fields = model.model_fields
        return {
            name: _read(fields[name], value) if name in fields else value for name, value in given.items()
        }

    # The order of decorators is pydantic's: it wants a class method inside.
    validators: Any = {"_read_texts": model_validator(mode="before")(classmethod(read))}  # type: ignore[arg-type]
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, __validators__=validators)


def _read(field: FieldInfo, value: Any) -> Any:
    """What the text means, or the text: the model then says what is wrong with it."""
    if not isinstance(value, str):
        return value
    kind: Any = Annotated[field.annotation, field]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for read in (adapter.validate_strings, adapter.validate_json):
        with suppress(ValidationError):
            return read(value)
    return value
