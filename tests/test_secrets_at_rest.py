# SPDX-License-Identifier: Apache-2.0
"""The search for secrets, which ends every run of the tests, would find one."""

from __future__ import annotations

import sqlite3

from testing.airflow_home import AIRFLOW_HOME
from testing.secret_scan import traces


def test_the_search_finds_what_is_there(airflow_db):
    """A word in a row of the database, and one in a plain file."""
    (AIRFLOW_HOME / "planted.log").write_text("a-planted-word")
    assert [place for place, _ in traces({"a-planted-word"}, AIRFLOW_HOME)] == [
        str(AIRFLOW_HOME / "planted.log")
    ]
    assert any(
        ":job" in place or ":log" in place or ":alembic" in place
        for place, _ in traces({version()}, AIRFLOW_HOME)
    )


def version() -> str:
    """What Airflow has surely written: the revision of its database."""
    with sqlite3.connect(AIRFLOW_HOME / "airflow.db") as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
