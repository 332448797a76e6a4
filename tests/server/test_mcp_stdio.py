# SPDX-License-Identifier: Apache-2.0
"""The MCP service over standard input and output, through the SDK's own client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from airflow_provider_ibm_sessions.cli.main import INTERRUPTED
from testing.connections import connection_to
from testing.fake_ibm import Fault
from testing.mcp_stdio_server import environment_for
from tests.client.conftest import credentials_for
from tests.server.conftest import BODY, credentials_of, until

ROOT = Path(__file__).parents[2]
COMMAND = ["-m", "airflow_provider_ibm_sessions.cli.main", "serve", "mcp", "--stdio"]
CREATING = [
    {
        "id": 0,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "a test", "version": "1"},
        },
    },
    {"method": "notifications/initialized"},
    {
        "id": 1,
        "method": "tools/call",
        "params": {"name": "ibm-quantum-create-session", "arguments": {"body": BODY}},
    },
]


@asynccontextmanager
async def stdio_client(credentials, mode="auto"):
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "testing.mcp_stdio_server"],
        env=environment_for(credentials),
        cwd=ROOT,
    )
    async with Client(parameters, mode=mode) as client:
        yield client


async def the_four(client):
    """Call each tool; returns the session's states as they go."""
    call = client.call_tool
    name = (await call("ibm-quantum-create-session", {"body": BODY})).structured_content["id"]
    states = [(await call("ibm-quantum-get-session", {"id": name})).structured_content["state"]]
    for tool, more in (("update-session", {"body": {"accepting_jobs": False}}), ("delete-session-close", {})):
        result = await call(f"ibm-quantum-{tool}", {"id": name, **more})
        assert result.structured_content == {"id": name, "done": True}
    states.append((await call("ibm-quantum-get-session", {"id": name})).structured_content["state"])
    return states


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_four_operations(ibm, mode):
    async def work():
        async with stdio_client(credentials_for(ibm), mode) as client:
            return await the_four(client)

    assert asyncio.run(work()) == ["open", "closed"]
    assert ibm.state()["token_exchanges"] == 1


def test_the_four_operations_before_localqpu(localqpu):
    async def work():
        async with stdio_client(credentials_of(localqpu)) as client:
            return (await the_four(client))[-1]

    assert asyncio.run(work()) == "closed"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_failures_are_tool_errors(ibm, mode):
    async def work():
        async with stdio_client(credentials_for(ibm), mode) as client:
            wrong = await client.call_tool("ibm-quantum-get-session", {"id": "a/b"})
            assert ibm.journal == []
            return wrong, await client.call_tool("ibm-quantum-get-session", {"id": "unknown"})

    wrong, unknown = asyncio.run(work())
    assert wrong.is_error
    assert unknown.is_error
    assert "Session not found" in unknown.content[0].text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("leaving", ["cancels", "ends the input"])
def test_a_session_whose_caller_leaves_is_closed(ibm, mode, leaving):
    """The SDK's client closes the input, sends SIGTERM 2 s later, and SIGKILL after 2 s more."""
    ibm.script(Fault("POST", "/v1/sessions", delay=3.0, phase="after"))

    async def work():
        async with stdio_client(credentials_for(ibm), mode) as client:
            creating = asyncio.create_task(client.call_tool("ibm-quantum-create-session", {"body": BODY}))
            await asyncio.to_thread(until, lambda: ibm.sessions)
            if leaving == "cancels":
                creating.cancel()
                await asyncio.wait([creating])
                await asyncio.to_thread(until, lambda: not ibm.state()["accepting"])
        creating.cancel()
        await asyncio.wait([creating])

    asyncio.run(work())
    until(lambda: not ibm.state()["accepting"])
    assert len(ibm.requests("POST", "/v1/sessions")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_closes_the_session_and_ends_it_though_the_input_stays_open(ibm, number):
    ibm.script(Fault("POST", "/v1/sessions", delay=1.0, phase="after"))
    process = subprocess.Popen(
        [sys.executable, "-m", "testing.mcp_stdio_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment_for(credentials_for(ibm))},
        cwd=ROOT,
    )
    with process:
        for message in CREATING:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        process.stdin.flush()
        until(lambda: ibm.sessions)
        process.send_signal(number)
        try:
            assert process.wait(300) == INTERRUPTED
        finally:
            process.kill()
    assert ibm.state()["accepting"] == []


def test_a_session_whose_answer_nobody_takes_is_closed(ibm):
    """The other end closes our output, and keeps our input open."""
    ibm.script(Fault("POST", "/v1/sessions", delay=1.0, phase="after"))
    process = subprocess.Popen(
        [sys.executable, "-m", "testing.mcp_stdio_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment_for(credentials_for(ibm))},
        cwd=ROOT,
    )
    with process:
        try:
            for message in CREATING:
                process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            process.stdin.flush()
            until(lambda: ibm.sessions)
            process.stdout.close()
            assert process.wait(300) == INTERRUPTED
        finally:
            process.kill()
        said = process.stderr.read().decode()
    assert ibm.state()["accepting"] == []
    assert "Standard output is closed" in said
    assert next(iter(ibm.sessions)) in said


def test_the_command_serves_an_airflow_connection(ibm):
    """As an assistant's configuration starts it; nothing but the protocol is on its output."""

    async def work():
        parameters = StdioServerParameters(
            command=sys.executable,
            args=[*COMMAND, "--conn-id", "quantum"],
            env={"AIRFLOW_CONN_QUANTUM": connection_to(ibm)},
        )
        async with Client(parameters) as client:
            return await the_four(client)

    assert asyncio.run(work()) == ["open", "closed"]
