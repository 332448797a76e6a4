# SPDX-License-Identifier: Apache-2.0
"""Both services on real sockets, before both counterparts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, Credentials
from airflow_provider_ibm_sessions.server.mcp import PATH, mcp_app
from airflow_provider_ibm_sessions.server.rest import rest_app
from airflow_provider_ibm_sessions.server.run import bind
from airflow_provider_ibm_sessions.server.security import AccessPolicy
from airflow_provider_ibm_sessions.server.service import POOL_SHARDS
from testing.localqpu import CRN, running_localqpu
from testing.secret_scan import remember_secrets
from tests.client.conftest import QUICK, credentials_for, fake_ibm

TOKEN = "a-token-of-the-tests-own"
SECURED = AccessPolicy(token=TOKEN)
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PROBLEM = "application/problem+json"
BODY = {"mode": "batch", "backend": "ibm_fez", "max_ttl": 600}


@contextmanager
def serving(app) -> Iterator[str]:
    """Serve in a thread; yields the address."""
    server, listener = bind(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def factory_for(credentials, retry=QUICK):
    return partial(AsyncIBMQuantumClient, credentials, retry, pool_shards=POOL_SHARDS)


def problem_in(reply):
    assert reply.headers["content-type"] == PROBLEM
    problem = reply.json()
    assert problem["status"] == reply.status_code
    return problem


def request_of(place, method, path, body=None):
    """A request as it is on the wire."""
    content = json.dumps(body).encode() if body else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def until(condition, seconds=300.0):
    """Wait for what has to come about."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come about"
        time.sleep(0.02)


@asynccontextmanager
async def mcp_client(url, headers=None, mode="auto"):
    """The SDK's own client, over streamable HTTP."""
    async with (
        httpx2.AsyncClient(headers=headers or {}, timeout=60) as http,
        Client(streamable_http_client(url + PATH, http_client=http), mode=mode) as client,
    ):
        yield client


class RestClient:
    """The four operations by REST; each returns the reply, or raises with what was answered."""

    def __init__(self, url, prefix=""):
        self.http = httpx.Client(base_url=url + prefix, timeout=60)

    def _send(self, method, path, **rest):
        reply = self.http.request(method, path, **rest)
        assert reply.is_success, reply.text
        return reply.json() if reply.content else None

    def create(self, body):
        return self._send("POST", "/v1/sessions", json=body)

    def get(self, session):
        return self._send("GET", f"/v1/sessions/{session}")

    def update(self, session, body):
        return self._send("PATCH", f"/v1/sessions/{session}", json=body)

    def close(self, session):
        return self._send("DELETE", f"/v1/sessions/{session}/close")


class McpClient:
    """The same as tools."""

    def __init__(self, url, mode):
        self.url, self.mode = url, mode

    def _call(self, tool, arguments):
        async def work():
            async with mcp_client(self.url, mode=self.mode) as client:
                return await client.call_tool(f"ibm-quantum-{tool}", arguments)

        result = asyncio.run(work())
        assert not result.is_error, result.content
        return result.structured_content

    def create(self, body):
        return self._call("create-session", {"body": body})

    def get(self, session):
        return self._call("get-session", {"id": session})

    def update(self, session, body):
        return self._call("update-session", {"id": session, "body": body})

    def close(self, session):
        return self._call("delete-session-close", {"id": session})


@pytest.fixture
def ibm():
    for fake in fake_ibm():
        yield fake
        remember_secrets(fake)


@pytest.fixture(scope="session")
def localqpu():
    with running_localqpu() as emulator:
        yield emulator


def credentials_of(localqpu):
    return Credentials(
        api_key="a-key-for-localqpu",
        crn=CRN,
        url=f"{localqpu.root}/api",
        iam_url=localqpu.root,
        verify=False,
    )


@pytest.fixture
def rest(ibm):
    """A REST service before the fake."""
    with serving(rest_app(factory_for(credentials_for(ibm)))) as url:
        yield httpx.Client(base_url=url, timeout=60)


@pytest.fixture
def mcp(ibm):
    """The address of an MCP service before the fake."""
    with serving(mcp_app(factory_for(credentials_for(ibm)))) as url:
        yield url
