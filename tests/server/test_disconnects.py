# SPDX-License-Identifier: Apache-2.0
"""Callers who go away before they have their answer, and callers who are many."""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_ibm_sessions.server import run as serving_module
from airflow_provider_ibm_sessions.server import service as service_module
from airflow_provider_ibm_sessions.server.mcp import mcp_app
from airflow_provider_ibm_sessions.server.rest import rest_app
from airflow_provider_ibm_sessions.server.security import DisconnectMiddleware, connection_in
from airflow_provider_ibm_sessions.server.service import MAX_IN_FLIGHT
from testing.fake_ibm import Fault
from tests.client.conftest import ONE_TRY, credentials_for, exchanges
from tests.server.conftest import BODY, factory_for, mcp_client, problem_in, request_of, serving, until

SLOW = 2.0


@pytest.fixture
def rest(ibm):
    """A REST service that gives IBM a minute for each request, as a busy machine may need."""
    app = rest_app(factory_for(credentials_for(ibm, timeout=60)))
    with serving(app) as url, httpx.Client(base_url=url, timeout=300) as client:
        yield client


def leave(service, method, path, body=None, *, once):
    """Send a request, and hang up as soon as something has come about."""
    place = urlsplit(str(service.base_url))
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(request_of(place, method, path, body))
        until(once)


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_session_whose_caller_hangs_up_is_closed(ibm, rest, phase):
    ibm.script(Fault("POST", "/v1/sessions", delay=SLOW, phase=phase))
    leave(rest, "POST", "/v1/sessions", BODY, once=lambda: ibm.requests("POST", "/v1/sessions"))
    until(lambda: ibm.sessions and not ibm.state()["accepting"])
    assert len(ibm.requests("POST", "/v1/sessions")) == 1
    assert len(ibm.requests("DELETE", "*")) == 1


def test_closing_it_is_tried_until_it_is_done(ibm, rest):
    ibm.script(Fault("POST", "/v1/sessions", delay=SLOW), *[Fault("DELETE", "*", status=503)] * 3)
    leave(rest, "POST", "/v1/sessions", BODY, once=lambda: ibm.requests("POST", "/v1/sessions"))
    until(lambda: ibm.sessions and not ibm.state()["accepting"])
    assert len(ibm.requests("DELETE", "*")) == 4


def test_it_is_tried_for_longer_than_one_window(ibm, monkeypatch, caplog):
    monkeypatch.setattr(service_module, "COMPENSATION_DELAYS", (0.05,))
    ibm.script(Fault("POST", "/v1/sessions", delay=SLOW), *[Fault("DELETE", "*", status=503)] * 8)
    with (
        serving(rest_app(factory_for(credentials_for(ibm), ONE_TRY))) as url,
        httpx.Client(base_url=url) as rest,
    ):
        leave(rest, "POST", "/v1/sessions", BODY, once=lambda: ibm.requests("POST", "/v1/sessions"))
        until(lambda: ibm.sessions and not ibm.state()["accepting"])
    assert len(ibm.requests("DELETE", "*")) == 9


def test_a_service_that_cannot_close_it_before_it_ends_says_so(ibm, monkeypatch, caplog):
    monkeypatch.setattr(service_module, "SHUTDOWN_TIMEOUT", 0.5)
    ibm.script(Fault("POST", "/v1/sessions", delay=SLOW), Fault("DELETE", "*", status=503, times=None))
    with serving(rest_app(factory_for(credentials_for(ibm)))) as url, httpx.Client(base_url=url) as rest:
        leave(rest, "POST", "/v1/sessions", BODY, once=lambda: ibm.requests("POST", "/v1/sessions"))
        until(lambda: ibm.requests("DELETE", "*"))
    [name] = ibm.sessions
    assert f"session {name} is still open. Close it manually" in caplog.text


def test_who_waits_when_a_service_has_to_end_is_told(ibm, monkeypatch):
    monkeypatch.setattr(serving_module, "GRACE_SECONDS", 1)
    ibm.script(Fault("POST", "/v1/sessions", delay=3, phase="after"))
    with serving(rest_app(factory_for(credentials_for(ibm)))) as url:
        place = urlsplit(url)
        caller = socket.create_connection((place.hostname, place.port), timeout=30)
        caller.sendall(request_of(place, "POST", "/v1/sessions", BODY))
        until(lambda: ibm.sessions)
    with caller, caller.makefile("rb") as answer:
        head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert "The service shuts down" in json.loads(body)["detail"]
    assert ibm.state()["accepting"] == []


def test_a_service_that_ends_closes_what_it_has_opened_for_those_who_left(ibm):
    ibm.script(Fault("POST", "/v1/sessions", delay=SLOW))
    with serving(rest_app(factory_for(credentials_for(ibm)))) as url:
        service = httpx.Client(base_url=url)
        leave(service, "POST", "/v1/sessions", BODY, once=lambda: ibm.requests("POST", "/v1/sessions"))
    assert len(ibm.sessions) == 1
    assert ibm.state()["accepting"] == []


def test_closing_goes_on_without_its_caller(ibm, rest):
    name = ibm.add_session().id
    ibm.script(Fault("DELETE", "*", status=503, delay=0.3))
    leave(rest, "DELETE", f"/v1/sessions/{name}/close", once=lambda: ibm.requests("DELETE", "*"))
    until(lambda: ibm.sessions[name].state == "closed")


def test_all_else_ends_with_its_caller(ibm, rest):
    """The fake does the work after its delay, unless the one who asked has hung up meanwhile: so have we."""
    name = ibm.add_session().id
    ibm.script(Fault("PATCH", "*", delay=SLOW), Fault("GET", "*", delay=SLOW))
    leave(
        rest,
        "PATCH",
        f"/v1/sessions/{name}",
        {"accepting_jobs": False},
        once=lambda: ibm.requests("PATCH"),
    )
    leave(rest, "GET", f"/v1/sessions/{name}", once=lambda: ibm.requests("GET"))
    time.sleep(2 * SLOW)
    assert ibm.sessions[name].accepting_jobs
    assert [entry.status for entry in ibm.requests("PATCH") + ibm.requests("GET")] == [None, None]


def test_a_session_whose_tool_call_is_cancelled_is_closed(ibm, mcp):
    """Protocol 2026-07-28: to cancel is to close the response stream. Older ones send a message."""
    ibm.script(Fault("POST", "/v1/sessions", delay=SLOW, phase="after"))

    async def work():
        async with mcp_client(mcp) as client:
            creating = asyncio.create_task(client.call_tool("ibm-quantum-create-session", {"body": BODY}))
            await asyncio.to_thread(until, lambda: ibm.sessions)
            creating.cancel()
            await asyncio.wait([creating])
            await asyncio.to_thread(until, lambda: not ibm.state()["accepting"])

    asyncio.run(work())
    assert len(ibm.requests("POST", "/v1/sessions")) == 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_session_whose_assistant_is_gone_is_closed(ibm, mode):
    ibm.script(Fault("POST", "/v1/sessions", delay=SLOW, phase="after"))
    with serving(mcp_app(factory_for(credentials_for(ibm)))) as url:

        async def work():
            async with mcp_client(url, mode=mode) as client:
                call = client.call_tool("ibm-quantum-create-session", {"body": BODY})
                creating = asyncio.create_task(call)
                await asyncio.to_thread(until, lambda: ibm.sessions)
            creating.cancel()
            await asyncio.wait([creating])

        asyncio.run(work())
        until(lambda: not ibm.state()["accepting"])


# -- the response is on its way ------------------------------------------------------------------------------


def respond(*, disconnects):
    """Answer one request that opens something; return True if that was compensated."""
    compensated = []

    async def app(scope, receive, send):
        connection_in(scope).compensate_unless_delivered(lambda: compensated.append(True))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def work():
        gone = asyncio.Event()
        news, sent = [{"type": "http.request", "body": b""}], []

        async def receive():
            if news:
                return news.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)
            if len(sent) > disconnects:
                gone.set()
                await asyncio.sleep(0.01)

        await DisconnectMiddleware(app)({"type": "http", "path": "/", "headers": []}, receive, send)

    asyncio.run(work())
    return bool(compensated)


def test_a_written_response_is_not_compensated():
    assert not respond(disconnects=3)


@pytest.mark.parametrize("messages", [0, 1])
def test_a_disconnect_before_the_response_is_written_is_compensated(messages):
    assert respond(disconnects=messages)


# -- many at once --------------------------------------------------------------------------------------------


def test_two_hundred_callers_need_one_token_and_all_are_answered(ibm, rest):
    name = ibm.add_session().id

    async def work():
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=rest.base_url, timeout=60, limits=limits) as http:
            return await asyncio.gather(*[http.get(f"/v1/sessions/{name}") for _ in range(200)])

    assert {reply.status_code for reply in asyncio.run(work())} == {200}
    assert exchanges(ibm) == 1


@contextmanager
def stuck(ibm, rest, count, method, path, body=None, *, reach_ibm):
    """So many callers whom IBM does not answer."""
    ibm.script(Fault(method, path, delay=600, times=count))
    place = urlsplit(str(rest.base_url))
    with ExitStack() as stack:
        waiting = []
        for _ in range(count):
            waiting.append(stack.enter_context(socket.create_connection((place.hostname, place.port))))
            waiting[-1].sendall(request_of(place, method, path, body))
        until(lambda: len(ibm.requests(method, path)) == reach_ibm)
        yield
        with selectors.DefaultSelector() as selector:  # select() has no room for so many descriptors
            for connection in waiting:
                selector.register(connection, selectors.EVENT_READ)
            assert selector.select(0) == []


def test_two_hundred_who_wait_for_a_slow_ibm_keep_nobody_waiting(ibm, rest):
    slow, other = f"/v1/sessions/{ibm.add_session().id}", f"/v1/sessions/{ibm.add_session().id}"
    with stuck(ibm, rest, 200, "GET", slow, reach_ibm=200):
        assert rest.get(other).status_code == 200
        assert rest.patch(other, json={"accepting_jobs": True}).status_code == 204
        assert rest.post("/v1/sessions", json=BODY).status_code == 200
        assert rest.delete(f"{other}/close").status_code == 204


@pytest.mark.parametrize("method", ["GET", "PATCH", "POST", "DELETE"])
def test_who_waits_for_a_slow_ibm_keeps_nobody_from_closing(ibm, rest, method):
    """More callers ask than there are places, and IBM answers none of them; one who closes is done."""
    slow, other = ibm.add_session().id, ibm.add_session().id
    path, body = {
        "POST": ("/v1/sessions", BODY),
        "GET": (f"/v1/sessions/{slow}", None),
        "PATCH": (f"/v1/sessions/{slow}", {"accepting_jobs": False}),
        "DELETE": (f"/v1/sessions/{slow}/close", None),
    }[method]
    reach_ibm = 1 if method == "DELETE" else MAX_IN_FLIGHT
    with stuck(ibm, rest, MAX_IN_FLIGHT + 40, method, path, body, reach_ibm=reach_ibm):
        assert rest.delete(f"/v1/sessions/{other}/close").status_code == 204
    assert ibm.sessions[other].state == "closed"


@contextmanager
def one_place_taken(ibm, monkeypatch):
    """A service with one place, held by one who waits for IBM."""
    monkeypatch.setattr(service_module, "MAX_IN_FLIGHT", 1)
    ibm.script(Fault("GET", "/v1/sessions/slow", delay=600))
    with serving(rest_app(factory_for(credentials_for(ibm)))) as url, httpx.Client(base_url=url) as service:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.sendall(request_of(place, "GET", "/v1/sessions/slow"))
            until(lambda: ibm.requests("GET", "/v1/sessions/slow"))
            yield service
        assert service.get("/v1/sessions/x").status_code == 404  # the place is free again


def test_who_gets_no_place_in_time_is_sent_away(ibm, monkeypatch):
    monkeypatch.setattr(service_module, "QUEUE_TIMEOUT", 0.2)
    with one_place_taken(ibm, monkeypatch) as service:
        reply = service.post("/v1/sessions", json=BODY)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert problem_in(reply)["type"].endswith(":busy")
    assert ibm.sessions == {}


def test_who_leaves_before_there_is_a_place_opens_nothing(ibm, monkeypatch):
    with one_place_taken(ibm, monkeypatch) as service:
        leaving = time.monotonic() + 0.5
        leave(service, "POST", "/v1/sessions", BODY, once=lambda: time.monotonic() > leaving)
        time.sleep(0.2)
    assert ibm.requests("POST", "/v1/sessions") == []
