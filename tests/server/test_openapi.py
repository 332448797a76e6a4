# SPDX-License-Identifier: Apache-2.0
"""The REST service keeps what its description promises, whatever it is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import httpx
import pytest

from airflow_provider_ibm_sessions.server.rest import rest_app
from tests.client.conftest import credentials_for
from tests.server.conftest import SECURED, TOKEN, factory_for, serving

EXAMPLES = 25


@pytest.fixture
def counted(ibm):
    """A service that counts its answers by status."""
    app, statuses = rest_app(factory_for(credentials_for(ibm)), SECURED), Counter()

    async def counting(scope, receive, send):
        async def note(message):
            if message["type"] == "http.response.start":
                statuses[int(message["status"])] += 1
            await send(message)

        await app(scope, receive, note if scope["type"] == "http" else send)

    with serving(counting) as url:
        yield url, statuses, app.openapi()


def test_schemathesis_finds_no_server_error_and_no_undeclared_answer(counted, tmp_path):
    url, statuses, schema = counted
    # With "any other answer" declared, as it has to be for IBM's, none would be undeclared.
    for operation in (each for path in schema["paths"].values() for each in path.values()):
        operation["responses"].pop("default", None)
    (tmp_path / "openapi.json").write_text(json.dumps(schema))
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(tmp_path / "openapi.json"), "--url", url]
    command += ["--header", f"Authorization: Bearer {TOKEN}", "--max-examples", str(EXAMPLES)]
    command += ["--seed", "1", "--generation-deterministic", "--no-color"]
    # Which QPUs there are, no description knows; and 600.0, to JSON Schema an integer, is none to us.
    command += ["--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    print(done.stdout[-1500:], sorted(statuses.items()))
    assert done.returncode == 0, done.stdout
    assert statuses.total() > 200
    assert {200, 204, 401, 404, 422} <= set(statuses)
    assert max(statuses) < 500


def test_the_doubled_paths_are_not_described(rest):
    assert not [path for path in rest.get("/openapi.json").json()["paths"] if path.startswith("/v1/v1")]


def test_it_is_described_wherever_it_is_served(rest):
    assert [server["url"] for server in rest.get("/openapi.json").json()["servers"]] == ["/"]


def test_a_token_is_described_where_one_is_needed(ibm, counted, rest):
    assert counted[2]["security"] == [{"bearer": []}]
    assert counted[2]["paths"]["/health"]["get"]["security"] == []
    assert "security" not in rest.get("/openapi.json").json()


def test_every_operation_is_explained_with_an_example(rest):
    schema = rest.get("/openapi.json").json()
    for path in schema["paths"].values():
        for operation in path.values():
            assert len(operation["description"]) > 20
            assert operation["tags"]
            assert {"421", "403"} <= set(operation["responses"])
    for name in ("CreateSession", "UpdateSession", "Session", "Problem", "Health"):
        assert schema["components"]["schemas"][name]["examples"]


def test_no_page_of_elsewhere_is_loaded(rest):
    """FastAPI's own pages fetch scripts from a public server."""
    assert [rest.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]
    assert httpx.get(rest.base_url.join("/openapi.json")).headers["content-type"] == "application/json"
