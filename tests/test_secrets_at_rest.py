# SPDX-License-Identifier: Apache-2.0
"""The last test of a run: all that Airflow has written is searched for every key and token it was given."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import AIRFLOW_HOME, SECRETS


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


def find(needles: set[str], root: Path = AIRFLOW_HOME) -> list[tuple[str, str]]:
    wanted = [needle.encode() for needle in needles]
    return [(place, needle.decode()) for place, text in written(root) for needle in wanted if needle in text]


def test_no_key_and_no_token_is_anywhere(airflow_db):
    if not SECRETS:
        pytest.skip("no other test has used a key")
    assert find(SECRETS) == []


def test_the_search_finds_what_is_there(airflow_db):
    """The search itself can fail: it finds a word in a row of the database, and one in a plain file."""
    (AIRFLOW_HOME / "planted.log").write_text("a-planted-word")
    assert [place for place, _ in find({"a-planted-word"})] == [str(AIRFLOW_HOME / "planted.log")]
    assert any(":job" in place or ":log" in place or ":alembic" in place for place, _ in find({version()}))


def version() -> str:
    """What Airflow has surely written: the revision of its database."""
    with sqlite3.connect(AIRFLOW_HOME / "airflow.db") as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
