# SPDX-License-Identifier: Apache-2.0
"""Prints answers for people, or as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

_COLUMNS: Final = ("id", "mode", "status", "backend", "created", "accepting_jobs", "user_id")


def show_json(answer: Any) -> None:
    """Print JSON."""
    print(json.dumps(answer, indent=2))


def show_fields(answer: Mapping[str, Any]) -> None:
    """Print one thing: a line for each field that says something."""
    rows = [(name, _text(value)) for name, value in answer.items() if value is not None]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name.ljust(width)}  {value}")


def show_rows(things: Sequence[Mapping[str, Any]], columns: Sequence[str] = _COLUMNS) -> None:
    """Print many things: a line for each, under a heading."""
    lines = [tuple(columns), *(tuple(_text(thing.get(name)) for name in columns) for thing in things)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    # What IBM sends must not steer the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in text)
