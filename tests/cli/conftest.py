# SPDX-License-Identifier: Apache-2.0
"""The command in the test's own process, which costs no start of another."""

from __future__ import annotations

import pytest

from airflow_provider_ibm_sessions.cli.main import main
from testing.connections import connection_to


@pytest.fixture
def environment(ibm):
    return {"AIRFLOW_CONN_QUANTUM": connection_to(ibm)}


@pytest.fixture
def run(environment, monkeypatch, capsys, root_handlers):
    """Run the command in this process; returns its exit code, its output and its complaints."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run(*arguments, conn_id="quantum"):
        try:
            code = main(arguments, conn_id=conn_id)
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
