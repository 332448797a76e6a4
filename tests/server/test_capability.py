# SPDX-License-Identifier: Apache-2.0
"""The operations table that this project was made from, by both services, before both counterparts."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_ibm_sessions.server.mcp import mcp_app
from airflow_provider_ibm_sessions.server.rest import rest_app
from tests.client.conftest import credentials_for
from tests.server.conftest import (
    BODY,
    McpClient,
    RestClient,
    credentials_of,
    factory_for,
    mcp_client,
    serving,
)

INTERFACES = {
    "rest": (rest_app, RestClient),
    "rest, doubled paths": (rest_app, lambda url: RestClient(url, "/v1")),
    "mcp": (mcp_app, lambda url: McpClient(url, "auto")),
    "mcp, handshake": (mcp_app, lambda url: McpClient(url, "legacy")),
}


@pytest.fixture(params=INTERFACES)
def interface(request):
    """Makes a service before a counterpart."""
    app, make = INTERFACES[request.param]
    opened = []

    def before(credentials):
        opened.append(serving(app(factory_for(credentials))))
        return make(opened[-1].__enter__())

    yield before
    for each in opened:
        each.__exit__(None, None, None)


def test_the_four_operations_before_the_strict_fake(ibm, interface):
    service = interface(credentials_for(ibm))
    created = service.create(BODY)
    name = created["id"]
    assert created["state"] == "open"
    assert ibm.sessions[name].max_ttl == 600
    assert service.get(name) == created
    service.update(name, {"accepting_jobs": False})
    assert service.get(name)["state"] == "closed"
    service.close(name)
    assert ibm.sessions[name].cancelled is False, "it had closed itself"
    other = service.create(BODY | {"mode": "dedicated"})["id"]
    service.close(other)
    assert ibm.sessions[other].state == "closed"
    assert ibm.state()["accepting"] == []
    assert ibm.state()["token_exchanges"] == 1


def test_the_four_operations_before_localqpu(localqpu, interface):
    service = interface(credentials_of(localqpu))
    name = service.create(BODY)["id"]
    assert service.get(name)["id"] == name
    service.update(name, {"accepting_jobs": False})
    other = service.create(BODY)["id"]
    service.close(other)
    for each in (name, other):
        assert service.get(each)["state"] == "closed"


def test_the_tools_are_the_seeds(mcp):
    async def listed():
        async with mcp_client(mcp) as client:
            return (await client.list_tools()).tools

    hints = {
        tool.name: (
            tool.annotations.read_only_hint,
            tool.annotations.destructive_hint,
            tool.annotations.idempotent_hint,
        )
        for tool in asyncio.run(listed())
    }
    assert hints == {
        "ibm-quantum-create-session": (False, False, False),
        "ibm-quantum-get-session": (True, False, True),
        "ibm-quantum-update-session": (False, False, False),
        "ibm-quantum-delete-session-close": (False, True, True),
    }


def test_the_operation_ids_and_paths_are_the_seeds(rest):
    paths = rest.get("/openapi.json").json()["paths"]
    found = {
        operation["operationId"]: (method, path)
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    assert found == {
        "create-session": ("post", "/v1/sessions"),
        "get-session": ("get", "/v1/sessions/{id}"),
        "update-session": ("patch", "/v1/sessions/{id}"),
        "delete-session-close": ("delete", "/v1/sessions/{id}/close"),
        "get-health": ("get", "/health"),
    }
