# SPDX-License-Identifier: Apache-2.0
"""The log: one line for each request that changes something, and one for each refusal."""

from __future__ import annotations

import logging
import re

import httpx
import pytest

from airflow_provider_ibm_sessions.server.mcp import mcp_app
from airflow_provider_ibm_sessions.server.rest import rest_app
from tests.client.conftest import credentials_for
from tests.server.conftest import BEARER, BODY, SECURED, TOKEN, McpClient, factory_for, serving

LOGGER = "airflow_provider_ibm_sessions.server"
FROM = r"from 127\.0\.0\.1:\d+: "


@pytest.fixture
def lines(caplog):
    """What the service has logged so far."""
    caplog.set_level(logging.INFO, LOGGER)

    def read():
        found = [record.getMessage() for record in caplog.records if record.name.startswith(LOGGER)]
        assert TOKEN not in "".join(found)
        return found

    return read


def test_each_change_by_rest_is_one_line(ibm, lines):
    with serving(rest_app(factory_for(credentials_for(ibm)), SECURED)) as url:
        client = httpx.Client(base_url=url, headers=BEARER, timeout=60)
        name = client.post("/v1/sessions", json=BODY).json()["id"]
        client.get(f"/v1/sessions/{name}")
        client.get("/v1/sessions/unknown")
        client.patch(f"/v1/sessions/{name}", json={"accepting_jobs": False})
        client.delete(f"/v1/sessions/{name}/close")
        client.delete("/v1/sessions/unknown/close")
    expected = [
        f"POST create-session {name} {FROM}200",
        f"PATCH update-session {name} {FROM}204",
        f"DELETE delete-session-close {name} {FROM}204",
        f"DELETE delete-session-close unknown {FROM}404",
    ]
    assert len(lines()) == len(expected), lines()
    assert all(re.fullmatch(*pair) for pair in zip(expected, lines(), strict=True)), lines()


def test_each_change_by_mcp_is_one_line(ibm, lines):
    with serving(mcp_app(factory_for(credentials_for(ibm)))) as url:
        client = McpClient(url, "auto")
        name = client.create(BODY)["id"]
        client.get(name)
        client.close(name)
    expected = [f"POST create-session {name} {FROM}200", f"DELETE delete-session-close {name} {FROM}204"]
    assert len(lines()) == len(expected), lines()
    assert all(re.fullmatch(*pair) for pair in zip(expected, lines(), strict=True)), lines()


@pytest.mark.parametrize(
    ("headers", "method", "path", "status"),
    [
        ({}, "POST", "/v1/sessions", 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, "GET", "/v1/sessions/x", 401),
        (BEARER | {"Host": "evil.example"}, "GET", "/v1/sessions/x", 421),
        (BEARER | {"Origin": "http://evil.example"}, "DELETE", "/v1/sessions/x/close", 403),
        (BEARER, "POST", "/v1/sessions?a=%0Ab", 422),
        (BEARER, "GET", "/v1/sessions/%0Aforged", 422),
        (BEARER, "PUT", "/nothing", 404),
    ],
)
def test_each_refusal_is_one_line(ibm, lines, headers, method, path, status):
    with serving(rest_app(factory_for(credentials_for(ibm)), SECURED)) as url:
        assert httpx.request(method, url + path, headers=headers, json={}).status_code == status
    [line] = lines()
    assert re.fullmatch(rf"Refused {method} {re.escape(path.partition('?')[0])} {FROM}{status}", line)
    assert ibm.journal == []
