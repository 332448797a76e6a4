# SPDX-License-Identifier: Apache-2.0
"""The MCP service, through the SDK's own client."""

from __future__ import annotations

import asyncio
import json

import httpx
import jsonschema
import pytest
from mcp.shared.exceptions import MCPError

from airflow_provider_ibm_sessions.server.mcp import PATH, mcp_app
from testing.fake_ibm import Fault
from tests.client.conftest import BRIEF, assert_hidden, credentials_for
from tests.server.conftest import BEARER, BODY, SECURED, TOKEN, factory_for, mcp_client, serving


def called(url, tool, arguments, headers=None, mode="auto"):
    """The result, or the protocol's error."""

    async def work():
        async with mcp_client(url, headers, mode) as client:
            try:
                return await client.call_tool(tool, arguments)
            except MCPError as error:
                return error

    return asyncio.run(work())


@pytest.fixture(params=["auto", "legacy"])
def call(request, mcp):
    """Call a tool, by either generation of the protocol."""
    return lambda tool, arguments: called(mcp, f"ibm-quantum-{tool}", arguments, mode=request.param)


def test_tools_say_what_they_take_and_give(mcp):
    async def listed():
        async with mcp_client(mcp) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    tools = asyncio.run(listed())
    for tool in tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)
        assert tool.input_schema["additionalProperties"] is False
    create = tools["ibm-quantum-create-session"].input_schema
    jsonschema.validate({"body": BODY}, create)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"body": BODY | {"tags": []}}, create)
    assert "NEVER RUN" in tools["ibm-quantum-delete-session-close"].description
    assert "COSTS MONEY" in tools["ibm-quantum-create-session"].description


def test_output_is_structured_and_text(ibm, call):
    name = ibm.add_session().id
    result = call("get-session", {"id": name})
    assert json.loads(result.content[0].text) == result.structured_content
    assert result.structured_content["id"] == name
    done = call("delete-session-close", {"id": name})
    assert done.structured_content == {"id": name, "done": True}
    assert ibm.sessions[name].state == "closed"


def test_ibms_refusal_is_a_tool_error(call):
    result = call("get-session", {"id": "unknown"})
    assert result.is_error
    assert "Session not found" in result.content[0].text
    assert "HTTP 404" in result.content[0].text
    assert result.structured_content is None
    assert result.meta["problem"]["code"] == "not_found"


def test_an_open_outcome_is_a_tool_error_that_says_so(ibm, call):
    ibm.script(Fault("POST", "/v1/sessions", status=500, phase="after"))
    result = call("create-session", {"body": BODY})
    assert result.is_error
    assert "may have been carried out" in result.content[0].text
    assert all(name in result.content[0].text for name in ibm.sessions)
    assert result.meta["problem"]["candidates"] == list(ibm.sessions)
    assert len(ibm.requests("POST", "/v1/sessions")) == 1


BAD_ARGUMENTS = {
    "nothing": ("create-session", None, "body"),
    "empty": ("create-session", {}, "body"),
    "fields without body": ("create-session", BODY, "body"),
    "body a list": ("create-session", {"body": []}, "body: must be a JSON object"),
    "unknown field": ("create-session", {"body": BODY | {"tags": []}}, "body.tags"),
    "unknown argument": ("get-session", {"id": "x", "verbose": True}, "verbose"),
    "wrong mode": ("create-session", {"body": BODY | {"mode": "fast"}}, "'dedicated' or 'batch'"),
    "max_ttl a text": ("create-session", {"body": BODY | {"max_ttl": "600"}}, "body.max_ttl"),
    "max_ttl true": ("create-session", {"body": BODY | {"max_ttl": True}}, "body.max_ttl"),
    "backend with NUL": (
        "create-session",
        {"body": BODY | {"backend": "ibm_fez\0"}},
        "body.backend: must be the name of a QPU",
    ),
    "backend rendered to nothing": (
        "create-session",
        {"body": BODY | {"backend": "None"}},
        "backend: is empty",
    ),
    "backend true": ("create-session", {"body": BODY | {"backend": True}}, "body.backend: must be the name"),
    "id with a line break": ("get-session", {"id": "a\n"}, "id"),
    "id with NUL": ("get-session", {"id": "a\0"}, "id"),
    "id rendered to nothing": ("get-session", {"id": "None"}, "session_id is empty"),
    "no id": ("get-session", {}, "id"),
    "id empty": ("delete-session-close", {"id": ""}, "id"),
    "id with a slash": ("delete-session-close", {"id": "a/b"}, "id"),
    "id that climbs": ("delete-session-close", {"id": ".."}, "id"),
    "id too long": ("get-session", {"id": "x" * 501}, "500"),
    "id a number": ("get-session", {"id": 7}, "id"),
    "accepting_jobs a text": (
        "update-session",
        {"id": "x", "body": {"accepting_jobs": "false"}},
        "body.accepting_jobs",
    ),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_wrong_arguments_are_named_and_ibm_hears_nothing(ibm, call, name):
    tool, arguments, named = BAD_ARGUMENTS[name]
    result = call(tool, arguments)
    assert result.is_error
    assert named in result.content[0].text
    assert ibm.journal == []


def test_an_unknown_tool_is_named(ibm, call):
    error = call("delete-everything", {})
    assert isinstance(error, MCPError)
    assert "delete-everything" in str(error)
    assert ibm.journal == []


@pytest.mark.parametrize("arguments", ['["x"]', '"x"', "7", "true"])
def test_arguments_that_are_no_object_are_refused(ibm, mcp, arguments):
    """No client of the SDK would send them."""
    reply = posted(mcp, '{"name": "ibm-quantum-get-session", "arguments": ' + arguments + "}")
    assert reply.status_code in (200, 400)
    assert reply.json()["error"]["code"] == -32602
    assert ibm.journal == []


def posted(url, params, **headers):
    version = "2026-07-28"
    body = json.loads(params)
    body["_meta"] = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": body}
    sent = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": version,
        "Mcp-Method": "tools/call",
        "Mcp-Name": body["name"],
        **headers,
    }
    return httpx.post(url + PATH, json=request, headers=sent, timeout=30)


@pytest.mark.parametrize("headers", [{}, {"Last-Event-ID": "1"}, {"Mcp-Session-Id": "x"}], ids=str)
def test_there_is_no_stream_to_resume(mcp, headers):
    for method in ("GET", "DELETE"):
        reply = httpx.request(
            method, mcp + PATH, headers={"Accept": "text/event-stream", **headers}, timeout=30
        )
        assert (reply.status_code, reply.headers["allow"]) == (405, "POST")


def test_a_repeated_key_is_named(ibm, mcp):
    body = '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "method": "tools/list"}'
    reply = httpx.post(mcp + PATH, content=body, headers={"Content-Type": "application/json"}, timeout=30)
    assert (reply.status_code, reply.json()["field"]) == (422, "method")


def test_a_longer_max_ttl_than_is_served_is_named(ibm, call):
    result = call("create-session", {"body": BODY | {"max_ttl": 28_801}})
    assert result.is_error
    assert "28800" in result.content[0].text
    assert ibm.journal == []


def test_a_body_over_the_bound_is_refused(ibm, mcp):
    arguments = json.dumps({"name": "ibm-quantum-get-session", "arguments": {"id": "x" * 70_000}})
    assert posted(mcp, arguments).status_code == 413
    assert ibm.journal == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403)],
    ids=str,
)
def test_who_comes_by_another_name_is_refused(ibm, mcp, headers, status):
    reply = posted(mcp, '{"name": "ibm-quantum-get-session", "arguments": {"id": "x"}}', **headers)
    assert reply.status_code == status
    assert ibm.journal == []


def test_without_the_token_nobody_gets_in(ibm):
    name = ibm.add_session().id
    with serving(mcp_app(factory_for(credentials_for(ibm)), SECURED)) as url:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}):
            reply = posted(url, '{"name": "ibm-quantum-get-session", "arguments": {"id": "x"}}', **headers)
            assert reply.status_code == 401
            with pytest.raises(BaseException):  # noqa: B017 - the SDK's own, of any kind
                called(url, "ibm-quantum-get-session", {"id": name}, headers)
        assert ibm.journal == []
        result = called(url, "ibm-quantum-get-session", {"id": name}, BEARER)
        assert result.structured_content["id"] == name
        assert httpx.get(f"{url}/health").json() == {"live": True, "ready": True}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_bug_of_ours_tells_nothing(ibm, mcp, mode, monkeypatch):
    async def broken(*_):
        raise RuntimeError("Authorization: Bearer abc")

    monkeypatch.setattr("airflow_provider_ibm_sessions.server.service.SessionService.call", broken)

    async def work():
        async with mcp_client(mcp, mode=mode) as client:
            return await client.call_tool("ibm-quantum-get-session", {"id": "x"})

    result = asyncio.run(work())
    assert result.is_error
    assert result.content[0].text == "The service failed; its log has the details"


def test_no_secret_is_in_an_answer(ibm):
    ibm.script(Fault(path="/v1/*", echo=True, times=None))
    with serving(mcp_app(factory_for(credentials_for(ibm), BRIEF))) as url:
        result = called(url, "ibm-quantum-get-session", {"id": "x"})
    assert "Cannot process" in result.content[0].text
    assert_hidden(ibm, result.model_dump_json())
