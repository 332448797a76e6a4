# SPDX-License-Identifier: Apache-2.0
"""Command-line arguments of an operation, read off its models."""

from __future__ import annotations

import argparse
from typing import Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo

from airflow_provider_ibm_sessions.client.operations import Operation, validate
from airflow_provider_ibm_sessions.client.validation import to_seconds
from airflow_provider_ibm_sessions.server.exposure import accept_strings

_MAX_TTL: Final = "max_ttl"


def add_fields(command: argparse.ArgumentParser, operation: Operation[Any]) -> None:
    """Add an argument for the id, and an option for each field."""
    if operation.has_id:
        command.add_argument("id", metavar=operation.id_field.upper(), help=operation.id_description)
    for name, field in _fields(operation).items():
        text = field.description or ""
        if name == _MAX_TTL:
            text += "; also a duration such as '2h 30m'"
        kinds = (field.annotation, *get_args(field.annotation))
        takes_several = any(get_origin(kind) is list for kind in kinds)
        command.add_argument(
            "--" + name.replace("_", "-"),
            required=field.is_required(),
            action="append" if takes_several else "store",
            metavar=name.upper(),
            help=text if field.is_required() else f"{text} (default: {field.default})",
        )


def arguments_from(options: argparse.Namespace, operation: Operation[Any]) -> dict[str, Any]:
    """
    Return the given arguments in the form of ``Operation.parse_arguments``.

    :raises ConfigurationError: Naming the option that cannot be read.
    """
    strings = {name: getattr(options, name) for name in _fields(operation)}
    given: dict[str, Any] = {name: value for name, value in strings.items() if value is not None}
    if _MAX_TTL in given:
        given[_MAX_TTL] = to_seconds(given[_MAX_TTL], _MAX_TTL)
    model = operation.body or operation.query
    values = validate(accept_strings(model), given).model_dump(exclude_none=True) if model else {}
    arguments = {"body": values} if operation.body else values
    return {"id": options.id, **arguments} if operation.has_id else arguments


def _fields(operation: Operation[Any]) -> dict[str, FieldInfo]:
    model = operation.body or operation.query
    return dict(model.model_fields) if model else {}
