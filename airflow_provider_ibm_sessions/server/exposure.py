# SPDX-License-Identifier: Apache-2.0
"""The table of operations that REST, MCP and the command offer, and the words in which they do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from airflow_provider_ibm_sessions.client import operations
from airflow_provider_ibm_sessions.client.operations import Operation, Safety


@dataclass(frozen=True, slots=True)
class Exposure:
    """
    An operation as REST, MCP and the command offer it.

    :param operation: The operation of IBM's API.
    :param command: Its name on the command line.
    :param description: What a caller must know. An assistant decides by it whether to call.
    :param example: Arguments of the command, for its help.
    :param destructive: True if it removes something that cannot be restored.
    :param idempotent: True if a second call with the same arguments changes nothing more.
    :param compensation: The operation on the new id that is called when the client disconnects before it
        has the response.
    :param runs_to_completion: True if it continues when its client disconnects.
    :raises ValueError: If the operation cannot be offered.
    """

    operation: Operation[Any]
    command: str
    description: str
    example: str = ""
    destructive: bool = False
    idempotent: bool = False
    compensation: Operation[Any] | None = None
    runs_to_completion: bool = False

    def __post_init__(self) -> None:
        if self.operation.reader:
            raise ValueError(
                f"{self.operation.name}: an exposed operation needs a response model, or no body"
            )
        if self.operation.safety is Safety.NON_IDEMPOTENT and not self.compensation:
            raise ValueError(f"{self.operation.name}: a non-idempotent operation needs a compensation")

    @property
    def is_read_only(self) -> bool:
        """Return True if it changes nothing."""
        return self.operation.safety is Safety.SAFE


CREATE_SESSION: Final = Exposure(
    operations.CREATE_SESSION,
    command="create",
    description=(
        "Open a session or a batch on a QPU. COSTS MONEY: a dedicated session is billed by the second, idle "
        "time included, from the start of its first job until it closes or becomes inactive; max_ttl limits "
        "the bill. The request is sent once. If its outcome is unknown, the error lists the sessions that it "
        "may have opened; check them before trying again. Close the session when you are done, or drain it "
        "with an update."
    ),
    example="--mode batch --backend ibm_fez --max-ttl 10m",
    compensation=operations.CLOSE_SESSION,
)
GET_SESSION: Final = Exposure(
    operations.GET_SESSION,
    command="get",
    description=(
        "Read a session or batch: its state (open, active, inactive or closed; only closed is final), "
        "whether it accepts jobs, its limits, and the seconds it has used. Changes nothing and is free."
    ),
    example="6f1c9c2e-0d0b-4b7e-9a52-3a6f6a1f3f10 --json",
    idempotent=True,
)
UPDATE_SESSION: Final = Exposure(
    operations.UPDATE_SESSION,
    command="update",
    description=(
        "Drain a session or batch, or let it accept jobs again. With accepting_jobs false it accepts no new "
        "job, queued jobs run, and the session closes itself after the last one. With true it accepts jobs "
        "again; a closed session stays closed."
    ),
    example="6f1c9c2e-0d0b-4b7e-9a52-3a6f6a1f3f10 --accepting-jobs false",
)
CLOSE_SESSION: Final = Exposure(
    operations.CLOSE_SESSION,
    command="close",
    description=(
        "Close a session or batch now. This is final. Running jobs finish; queued jobs NEVER RUN: they fail "
        "with IBM's code 1217. To let them run, update the session with accepting_jobs false instead: it "
        "then closes itself after the last job. Closing a closed session changes nothing."
    ),
    example="6f1c9c2e-0d0b-4b7e-9a52-3a6f6a1f3f10",
    destructive=True,
    idempotent=True,
    runs_to_completion=True,
)

EXPOSED: Final = (CREATE_SESSION, GET_SESSION, UPDATE_SESSION, CLOSE_SESSION)
"""Add an exposure here, and REST, MCP and the command offer it."""


def accept_strings(model: type[BaseModel]) -> type[BaseModel]:
    """Return a model that also reads strings, of a query or a command line: "5" for 5, JSON for a dict."""

    def convert(_: type[BaseModel], values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        fields = model.model_fields
        return {
            name: _from_string(fields[name], value) if name in fields and isinstance(value, str) else value
            for name, value in values.items()
        }

    # The order of the decorators is pydantic's: the class method is the inner one.
    validators: Any = {"_convert": model_validator(mode="before")(classmethod(convert))}  # type: ignore[arg-type]
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, __validators__=validators)


def _from_string(field: FieldInfo, value: str) -> Any:
    kind: Any = Annotated[field.annotation, field]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for read in (adapter.validate_strings, adapter.validate_json):
        with suppress(ValidationError):
            return read(value)
    return value  # the model then says what is wrong with it
