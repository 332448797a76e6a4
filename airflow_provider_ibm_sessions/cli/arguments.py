# SPDX-License-Identifier: Apache-2.0
"""Command-line arguments: those that commands share, and those of an operation, read off its models."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo

from airflow_provider_ibm_sessions.cli.connection import add_connection
from airflow_provider_ibm_sessions.client.operations import Operation, validate
from airflow_provider_ibm_sessions.client.validation import to_seconds
from airflow_provider_ibm_sessions.server.exposure import accept_strings

WIDTH: Final = 79
"""Characters in a line of help."""
Parser: Final[Any] = partial(
    argparse.ArgumentParser, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
)
"""``--clo`` is not ``--close``."""

EXAMPLE_JOB: Final = "d2rkgo8r9c6s73a1qd0g"
EXAMPLE_SESSION: Final = "6f1c9c2e-0d0b-4b7e-9a52-3a6f6a1f3f10"

_MAX_LIMIT: Final = 10_000
_MAX_TTL: Final = "max_ttl"


@dataclass(frozen=True, slots=True)
class Commands:
    """
    The subcommands of the command line. Each module adds its own.

    :param program: The command's name in its help.
    :param conn_id: The Airflow connection if none is named. None: the environment's variables.
    """

    subparsers: Any
    program: str
    conn_id: str | None

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], None],
        summary: str,
        description: str,
        *arguments: str,
    ) -> argparse.ArgumentParser:
        """
        Add a subcommand, and return its parser.

        :param arguments: Those of each example.
        """
        command: argparse.ArgumentParser = self.subparsers.add_parser(
            name,
            help=summary,
            description=textwrap.fill(description, WIDTH),
            epilog=examples(self.program, *(f"{name} {each}".strip() for each in arguments)),
        )
        command.set_defaults(run=run)
        return command


def examples(program: str, *commands: str) -> str:
    """Return the end of a command's help."""
    return "Examples:\n" + "\n".join(f"  {program} {command}" for command in commands)


def limit(text: str) -> int:
    """Read the value of ``--limit``."""
    if text.isascii() and text.isdigit() and 0 < int(text) <= _MAX_LIMIT:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MAX_LIMIT}")


def add_common(command: argparse.ArgumentParser, conn_id: str | None) -> None:
    """Add the options of the commands that ask IBM and print a result."""
    add_json(command)
    add_connection(command, conn_id)


def add_json(command: argparse.ArgumentParser, forms: Any = None) -> None:
    """
    Add the option of the commands that print a result.

    :param forms: The group of options of which it is one, if there are others.
    """
    text = "print JSON in place of a table"
    (forms or command).add_argument("--json", action="store_true", help=text)
    command.set_defaults(prints=True)


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
        option: Any = command.add_argument(
            "--" + name.replace("_", "-"),
            required=field.is_required(),
            action="append" if takes_several else "store",
            metavar=name.upper(),
            help=text if field.is_required() else f"{text} (default: {field.default})",
        )
        # Shell completion offers them. They are no choices of argparse: the model says what is wrong.
        words = [
            word.value
            for kind in kinds
            if isinstance(kind, type) and issubclass(kind, StrEnum)
            for word in kind
        ]
        option.completer = partial(_complete, words or (["true", "false"] if bool in kinds else []))


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


def _complete(words: list[str], **_: Any) -> list[str]:
    return words
