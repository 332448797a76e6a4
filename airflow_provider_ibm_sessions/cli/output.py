# SPDX-License-Identifier: Apache-2.0
"""Output for people, as tables, and for programs, as JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from typing import Any, Final, TextIO

from airflow_provider_ibm_sessions.client.usage import format_duration

_DURATIONS: Final = frozenset(
    {"age", "max_ttl", "interactive_ttl", "active_ttl", "elapsed_time", "wait_time"}
)
"""Fields in seconds."""


def log_to_stderr(level: int = logging.WARNING) -> None:
    """
    Log to standard error.

    :param level: That of the services; of all else, warnings and errors are logged.
    """
    form = (
        "%(levelname)s %(message)s" if level >= logging.WARNING else "%(asctime)s %(levelname)s %(message)s"
    )
    logging.basicConfig(level=logging.WARNING, format=form, stream=sys.stderr, force=True)
    logging.getLogger("airflow_provider_ibm_sessions.server").setLevel(level)


def stdout_to_stderr() -> AbstractContextManager[TextIO]:
    """Redirect what Airflow logs while it loads and works: standard output is for the command's results."""
    return redirect_stdout(sys.stderr)


def print_json(value: Any) -> None:
    """Print JSON. Durations are seconds there."""
    print(json.dumps(value, indent=2))


def print_fields(value: Mapping[str, Any]) -> None:
    """Print a line for each field that has a value."""
    rows = [(name, _format(name, field)) for name, field in value.items() if field is not None]
    width = max((len(name) for name, _ in rows), default=0)
    for name, field in rows:
        print(f"{name.ljust(width)}  {field}")


def print_rows(values: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print a line for each value, under a heading."""
    lines = [tuple(columns), *(tuple(_format(name, value.get(name)) for name in columns) for value in values)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def printable(text: str) -> str:
    """Return the text without what controls a terminal: IBM may send anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _format(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in _DURATIONS and isinstance(value, int | float) and 0 <= value < 1e9:
        return format_duration(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return printable(re.sub(r"\.\d+", "", text) if name == "created" else text)  # to the second
