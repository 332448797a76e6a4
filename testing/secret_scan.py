# SPDX-License-Identifier: Apache-2.0
"""Searches everything that an Airflow has written, files and database rows, for keys and tokens."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from testing.fake_ibm import FakeIBM

SECRETS: set[str] = set()
"""Every API key and token that the tests of this process have used."""


def remember_secrets(ibm: FakeIBM) -> None:
    """Add the fake's API key and its tokens to :data:`SECRETS`."""
    SECRETS.add(ibm.api_key)
    SECRETS.update(token.value for token in ibm.tokens)


def written(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below Airflow's home, and every row of its databases as a string."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()
        if path.suffix == ".db":
            yield from rows(path)


def rows(database: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each row of each table."""
    with sqlite3.connect(database) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield f"{database}:{table}", repr(row).encode()


def traces(secrets: set[str], root: Path) -> list[tuple[str, str]]:
    """Return where which of the secrets was written, as pairs of place and secret."""
    wanted = [secret.encode() for secret in secrets]
    return [(place, secret.decode()) for place, text in written(root) for secret in wanted if secret in text]
