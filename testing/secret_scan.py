# SPDX-License-Identifier: Apache-2.0
"""Searches all that an Airflow has written: its files, and the rows of its databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path


def written(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below Airflow's home, and every row of its databases as text."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()
        if path.suffix == ".db":
            yield from rows(path)


def rows(database: Path) -> Iterator[tuple[str, bytes]]:
    with sqlite3.connect(database) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield f"{database}:{table}", repr(row).encode()


def traces(needles: set[str], root: Path) -> list[tuple[str, str]]:
    """Where each of the needles is."""
    wanted = [needle.encode() for needle in needles]
    return [(place, needle.decode()) for place, text in written(root) for needle in wanted if needle in text]
