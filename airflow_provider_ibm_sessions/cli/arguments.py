# SPDX-License-Identifier: Apache-2.0
"""An operation's arguments on a command line, read off its models."""

from __future__ import annotations

import argparse
from typing import Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo

from airflow_provider_ibm_sessions.client.operations import Operation, validate
from airflow_provider_ibm_sessions.client.validation import to_seconds
from airflow_provider_ibm_sessions.server.texts import reading_texts

_MAX_TTL: Final = "max_ttl"


def add_fields(command: argparse.ArgumentParser, operation: Operation[Any]) -> None:
    """Add an argument for the id, and an option for each field."""
    if operation.has_id:
        command.add_argument("id", metavar=operation.id_field.upper(), help=operation.id_description)
    for name, field in _fields(operation).items():
        command.add_argument(
            "--" + name.replace("_", "-"),
            required=field.is_required(),
            action="append" if _is_list(field) else "store",
            metavar=name.upper(),
            help=_help(name, field),
        )


def arguments_from(options: argparse.Namespace, operation: Operation[Any]) -> dict[str, Any]:
    """
    What was given, as ``Operation.parse_arguments`` wants it.

    :raises ConfigurationError: Naming the option that cannot be read.
    """
    texts = {name: getattr(options, name) for name in _fields(operation)}
    given: dict[str, Any] = {name: text for name, text in texts.items() if text is not None}
    if _MAX_TTL in given:
        given[_MAX_TTL] = to_seconds(given[_MAX_TTL], _MAX_TTL)
    model = operation.body or operation.query
    values = validate(reading_texts(model), given).model_dump(exclude_none=True) if model else {}
    arguments = {"body": values} if operation.body else values
    return {"id": options.id, **arguments} if operation.has_id else arguments


def _fields(operation: Operation[Any]) -> dict[str, FieldInfo]:
    model = operation.body or operation.query
    return dict(model.model_fields) if model else {}


def _is_list(field: FieldInfo) -> bool:
    """Whether it takes several values: then its option may be given several times."""
    kinds = (field.annotation, *get_args(field.annotation))
    return any(get_origin(kind) is list for kind in kinds)


def _help(name: str, field: FieldInfo) -> str:
    text = field.description or ""
    if name == _MAX_TTL:
        text += "; also as text, such as 2h 30m"
    return text if field.is_required() else f"{text} (default: {field.default})"
