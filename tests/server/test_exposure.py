# SPDX-License-Identifier: Apache-2.0
"""An operation is described in one place; both faces and the command read it there."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx
import pytest

from airflow_provider_ibm_sessions.cli.main import main, parser
from airflow_provider_ibm_sessions.client import operations
from airflow_provider_ibm_sessions.client.exposure import Face
from airflow_provider_ibm_sessions.server.mcp import mcp_app
from airflow_provider_ibm_sessions.server.rest import rest_app
from testing.connections import connection_to
from tests.client.conftest import credentials_for
from tests.server.conftest import mcp_client, serving, source_for

NEW = replace(
    operations.LIST_WORKLOADS,
    face=Face(verb="workloads", description="Lists what there is.", repeatable=True),
)
TABLE = (*operations.PUBLIC, NEW)


def test_an_operation_that_is_added_to_the_table_is_in_rest(ibm):
    name = ibm.plant_session().id
    with serving(rest_app(source_for(credentials_for(ibm)), operations=TABLE)) as url:
        described = httpx.get(f"{url}/openapi.json").json()["paths"]["/v1/workloads"]["get"]
        for path in ("/v1/workloads", "/v1/v1/workloads"):
            reply = httpx.get(url + path, params={"mode": "session", "limit": 5})
            assert [workload["id"] for workload in reply.json()["workloads"]] == [name]
        wrong = httpx.get(f"{url}/v1/workloads", params={"limit": 51})
    assert described["operationId"] == "list-workloads"
    assert described["description"] == NEW.face.description
    assert (wrong.status_code, wrong.json()["field"]) == (422, "limit")


def test_and_in_mcp(ibm):
    name = ibm.plant_session().id

    async def work(url):
        async with mcp_client(url) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            call = client.call_tool("ibm-quantum-list-workloads", {"mode": "session"})
            return tools["ibm-quantum-list-workloads"], await call

    with serving(mcp_app(source_for(credentials_for(ibm)), operations=TABLE)) as url:
        tool, result = asyncio.run(work(url))
    assert tool.description == NEW.face.description
    assert tool.annotations.read_only_hint
    assert [each["id"] for each in result.structured_content["workloads"]] == [name]


def test_and_on_the_command_line(ibm, monkeypatch, capsys):
    monkeypatch.setattr("airflow_provider_ibm_sessions.cli.main.PUBLIC", TABLE)
    monkeypatch.setenv("AIRFLOW_CONN_QUANTUM", connection_to(ibm))
    name = ibm.plant_session().id
    with pytest.raises(SystemExit):
        parser().parse_args(["workloads", "--help"])
    shown = capsys.readouterr().out
    assert NEW.face.description in shown
    assert "--created-after" in shown
    query = ["--mode", "session", "--status", "pending", "--status", "in_progress", "--limit", "5"]
    assert main(["workloads", *query, "--json", "--conn-id", "quantum"]) == 0
    [found] = json.loads(capsys.readouterr().out)["workloads"]
    assert found["id"] == name


def test_its_id_is_called_what_it_is():
    job = replace(operations.GET_JOB, face=NEW.face)
    assert job.arguments.model_json_schema()["properties"]["id"]["description"] == "The job's id"


def test_one_that_must_not_be_repeated_cannot_be_offered_without_what_takes_it_back():
    with pytest.raises(ValueError, match="create-job"):
        replace(operations.SUBMIT_JOB, face=NEW.face)


def test_one_whose_answer_has_no_model_cannot_be_offered():
    with pytest.raises(ValueError, match="get-job-logs"):
        replace(operations.JOB_LOGS, face=NEW.face)
