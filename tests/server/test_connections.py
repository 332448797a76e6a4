# SPDX-License-Identifier: Apache-2.0
"""Connections that are silent or send half a request: however many there are, others are served."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_ibm_sessions.server import run as run_module
from airflow_provider_ibm_sessions.server.mcp import PATH, mcp_app
from airflow_provider_ibm_sessions.server.rest import rest_app
from airflow_provider_ibm_sessions.server.run import BoundedH11Protocol
from testing.fake_ibm import Fault
from tests.client.conftest import credentials_for
from tests.server.conftest import BEARER, BODY, SECURED, factory_for, request_of, serving, until

LIMIT = 20


def connect(place):
    return socket.create_connection((place.hostname, place.port), timeout=60)


def half_head(place):
    return f"GET /v1/sessions/x HTTP/1.1\r\nHost: {place.netloc}\r\n".encode()


def half_body(place):
    return request_of(place, "POST", "/v1/sessions", BODY)[:-5]


def half_body_with_a_token(place):
    return half_body(place).replace(
        b"\r\n\r\n", f"\r\nAuthorization: {BEARER['Authorization']}\r\n\r\n".encode()
    )


def nothing(_):
    return b""


@pytest.mark.parametrize("sent", [nothing, half_head, half_body, half_body_with_a_token])
def test_many_half_requests_do_not_shut_out_others(ibm, monkeypatch, sent):
    monkeypatch.setattr(run_module, "MAX_CONNECTIONS", LIMIT)
    name = ibm.add_session().id
    with serving(rest_app(factory_for(credentials_for(ibm)), SECURED)) as url, ExitStack() as stack:
        place = urlsplit(url)
        opened = []
        for _ in range(3 * LIMIT):
            opened.append(stack.enter_context(connect(place)))
            opened[-1].sendall(sent(place))
        with httpx.Client(base_url=url, headers=BEARER, timeout=60) as client:
            assert client.get(f"/v1/sessions/{name}").status_code == 200
            assert client.delete(f"/v1/sessions/{name}/close").status_code == 204
        assert all(ended(each) for each in opened[:LIMIT])
    assert len(ibm.sessions) == 1


def ended(connection):
    """Wait for the other end to close, and return True if it sent no more than a refusal before."""
    received = b""
    try:
        while part := connection.recv(1_000):
            received += part
    except ConnectionResetError:
        pass
    return received == b"" or received.startswith(b"HTTP/1.1 401")


def test_a_request_in_work_is_not_given_up_for_a_silent_connection(ibm, monkeypatch):
    monkeypatch.setattr(run_module, "MAX_CONNECTIONS", 1)
    name = ibm.add_session().id
    ibm.script(Fault("GET", "/v1/sessions/*", delay=1.0))
    with serving(rest_app(factory_for(credentials_for(ibm)))) as url, ExitStack() as stack:
        place = urlsplit(url)
        busy = stack.enter_context(connect(place))
        busy.sendall(request_of(place, "GET", f"/v1/sessions/{name}"))
        until(lambda: ibm.requests("GET", f"/v1/sessions/{name}"))
        for _ in range(5):
            stack.enter_context(connect(place))
        assert busy.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [nothing, half_head])
def test_a_silent_connection_is_closed_after_a_while(ibm, monkeypatch, sent):
    monkeypatch.setattr(run_module, "HEAD_TIMEOUT", 0.2)
    with serving(rest_app(factory_for(credentials_for(ibm)))) as url:
        place = urlsplit(url)
        with connect(place) as connection:
            connection.sendall(sent(place))
            assert ended(connection)


def test_more_requests_than_can_be_queued_are_refused_and_closing_is_not(ibm, monkeypatch):
    monkeypatch.setattr("airflow_provider_ibm_sessions.server.service.MAX_IN_FLIGHT", 1)
    monkeypatch.setattr("airflow_provider_ibm_sessions.server.service.MAX_QUEUED", 1)
    name = ibm.add_session().id
    ibm.script(Fault("GET", "/v1/sessions/slow", delay=600, times=None))
    with serving(rest_app(factory_for(credentials_for(ibm)))) as url, ExitStack() as stack:
        place = urlsplit(url)
        for _ in range(3):
            stack.enter_context(connect(place)).sendall(request_of(place, "GET", "/v1/sessions/slow"))
        assert httpx.delete(f"{url}/v1/sessions/{name}/close", timeout=60).status_code == 204
        head = httpx.get(f"{url}/v1/sessions/other", timeout=60)
    assert (head.status_code, head.headers["retry-after"]) == (503, "1")


def test_many_mcp_handshakes_do_not_lock_out_others(ibm):
    name = ibm.add_session().id
    with serving(mcp_app(factory_for(credentials_for(ibm)))) as url, httpx.Client(timeout=60) as client:
        for _ in range(1_100):
            assert handshake(client, url).status_code == 200
        call = {"name": "ibm-quantum-get-session", "arguments": {"id": name}}
        response = message(client, url, {"id": 2, "method": "tools/call", "params": call})
    assert name in response.text


def handshake(client, url):
    params = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"},
    }
    return message(client, url, {"id": 1, "method": "initialize", "params": params})


def message(client, url, content):
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    return client.post(url + PATH, content=json.dumps({"jsonrpc": "2.0", **content}), headers=headers)


def test_the_parts_of_uvicorn_that_are_overridden_are_there():
    """``BoundedH11Protocol`` reads these; uvicorn does not document them."""
    base = BoundedH11Protocol.__mro__[1]
    assert {"connection_made", "connection_lost", "handle_events", "on_response_complete"} <= set(vars(base))
    assert base.__module__ == "uvicorn.protocols.http.h11_impl"
