# SPDX-License-Identifier: Apache-2.0
"""An operation is exposed by one entry of a table; REST, MCP and the command read it there."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from airflow_provider_ibm_sessions.cli.main import main, parser
from airflow_provider_ibm_sessions.client import operations
from airflow_provider_ibm_sessions.server.exposure import EXPOSED, Exposure
from airflow_provider_ibm_sessions.server.mcp import mcp_app
from airflow_provider_ibm_sessions.server.rest import rest_app
from testing.connections import connection_to
from tests.client.conftest import credentials_for
from tests.server.conftest import factory_for, mcp_client, serving

NEW = Exposure(operations.LIST_WORKLOADS, command="workloads", description="List workloads.", idempotent=True)
TABLE = (*EXPOSED, NEW)


def test_an_operation_that_is_added_to_the_table_is_in_rest(ibm):
    name = ibm.add_session().id
    with serving(rest_app(factory_for(credentials_for(ibm)), exposed=TABLE)) as url:
        described = httpx.get(f"{url}/openapi.json").json()["paths"]["/v1/workloads"]["get"]
        for path in ("/v1/workloads", "/v1/v1/workloads"):
            reply = httpx.get(url + path, params={"mode": "session", "limit": 5})
            assert [workload["id"] for workload in reply.json()["workloads"]] == [name]
        wrong = httpx.get(f"{url}/v1/workloads", params={"limit": 51})
    assert described["operationId"] == "list-workloads"
    assert described["description"] == NEW.description
    assert (wrong.status_code, wrong.json()["field"]) == (422, "limit")


def test_and_in_mcp(ibm):
    name = ibm.add_session().id

    async def work(url):
        async with mcp_client(url) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            call = client.call_tool("ibm-quantum-list-workloads", {"mode": "session"})
            return tools["ibm-quantum-list-workloads"], await call

    with serving(mcp_app(factory_for(credentials_for(ibm)), exposed=TABLE)) as url:
        tool, result = asyncio.run(work(url))
    assert tool.description == NEW.description
    assert tool.annotations.read_only_hint
    assert [each["id"] for each in result.structured_content["workloads"]] == [name]


def test_and_on_the_command_line(ibm, monkeypatch, capsys, root_handlers):
    monkeypatch.setattr("airflow_provider_ibm_sessions.cli.sessions.EXPOSED", TABLE)
    monkeypatch.setenv("AIRFLOW_CONN_QUANTUM", connection_to(ibm))
    name = ibm.add_session().id
    with pytest.raises(SystemExit):
        parser().parse_args(["workloads", "--help"])
    shown = capsys.readouterr().out
    assert NEW.description in shown
    assert "--created-after" in shown
    query = ["--mode", "session", "--status", "pending", "--status", "in_progress", "--limit", "5"]
    assert main(["workloads", *query, "--json", "--conn-id", "quantum"]) == 0
    [found] = json.loads(capsys.readouterr().out)["workloads"]
    assert found["id"] == name


def test_its_id_is_called_what_it_is():
    assert (
        operations.GET_JOB.arguments.model_json_schema()["properties"]["id"]["description"] == "The job's id"
    )


def test_a_non_idempotent_operation_cannot_be_exposed_without_a_compensation():
    with pytest.raises(ValueError, match="create-job"):
        Exposure(operations.SUBMIT_JOB, command="submit", description="Submit a job.")


def test_an_operation_without_a_response_model_cannot_be_exposed():
    with pytest.raises(ValueError, match="get-job-logs"):
        Exposure(operations.JOB_LOGS, command="logs", description="Read a log.")
