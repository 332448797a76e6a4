# SPDX-License-Identifier: Apache-2.0
"""What a program gets from the REST service when all is not well."""

from __future__ import annotations

import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_ibm_sessions.server import service as service_module
from airflow_provider_ibm_sessions.server.mcp import mcp_app
from airflow_provider_ibm_sessions.server.rest import rest_app
from testing.fake_ibm import Fault
from tests.client.conftest import BRIEF, ONE_TRY, assert_hidden, credentials_for, free_port
from tests.server.conftest import BEARER, BODY, SECURED, TOKEN, factory_for, problem_in, serving, until


@pytest.fixture
def brief(ibm):
    """A service that gives up soon."""
    with serving(rest_app(factory_for(credentials_for(ibm), BRIEF))) as url:
        yield httpx.Client(base_url=url, timeout=60)


# -- IBM's failures come through -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 423, 429, 500, 503, 520])
def test_ibms_status_code_message_and_trace_come_through(ibm, brief, status):
    ibm.script(Fault("GET", "/v1/sessions/*", status=status, code=1234, message="So it is", times=None))
    problem = problem_in(reply := brief.get("/v1/sessions/x"))
    assert reply.status_code == status
    assert problem["code"] == "1234"
    assert "So it is" in problem["detail"]
    assert len(problem["trace"]) == 36
    assert ("www-authenticate" in reply.headers) == (status == 401)


def test_what_the_plan_forbids_is_told(ibm, rest):
    ibm.settings.plan = "open"
    reply = rest.post("/v1/sessions", json=BODY | {"mode": "dedicated"})
    problem = problem_in(reply)
    assert (reply.status_code, problem["code"]) == (400, "1352")
    assert problem["type"].endswith(":plan")


def test_the_time_to_wait_comes_through(ibm, brief):
    ibm.script(Fault("GET", "/v1/sessions/*", status=429, headers={"Retry-After": "7"}, times=None))
    reply = brief.get("/v1/sessions/x")
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"drop": True}, 502),
        ({"html": True}, 502),
        ({"truncate": True}, 502),
        ({"status": 404, "body": "nothing here"}, 502),
        ({"delay": 10}, 504),
    ],
    ids=str,
)
def test_no_answer_or_an_unreadable_one_is_a_bad_gateway(ibm, fault, status):
    ibm.script(Fault("GET", "/v1/sessions/*", times=None, **fault))
    credentials = credentials_for(ibm, timeout=0.5)
    with serving(rest_app(factory_for(credentials, ONE_TRY))) as url:
        reply = httpx.get(f"{url}/v1/sessions/x", timeout=30)
    assert reply.status_code == status
    problem_in(reply)


def test_ibm_out_of_reach_is_a_bad_gateway(ibm):
    credentials = credentials_for(ibm, url=f"http://127.0.0.1:{free_port()}/api")
    with serving(rest_app(factory_for(credentials, BRIEF))) as url:
        reply = httpx.get(f"{url}/v1/sessions/x", timeout=30)
        health = httpx.get(f"{url}/health", timeout=30)
    assert reply.status_code == 502
    assert "ConnectError" in problem_in(reply)["detail"]
    assert (health.status_code, health.json()) == (503, {"live": True, "ready": False})


def test_a_key_that_iam_refuses_is_our_failure(ibm):
    with serving(rest_app(factory_for(credentials_for(ibm, api_key="not-the-key"), BRIEF))) as url:
        reply = httpx.get(f"{url}/v1/sessions/x", timeout=30)
    problem = problem_in(reply)
    assert reply.status_code == 502
    assert problem["type"].endswith(":authentication")
    assert "API key" in problem["detail"]
    assert "not-the-key" not in reply.text


def test_an_open_outcome_says_so(ibm, brief):
    ibm.script(Fault("POST", "/v1/sessions", status=504, phase="after"))
    problem = problem_in(brief.post("/v1/sessions", json=BODY))
    assert problem["status"] == 504
    assert problem["type"].endswith(":outcome-unknown")
    assert "may have been carried out" in problem["detail"]
    assert len(ibm.requests("POST", "/v1/sessions")) == 1
    assert problem["candidates"] == list(ibm.sessions)


@pytest.mark.parametrize("phase", ["before", "after"])
def test_what_may_have_been_opened_is_named_and_left_as_it_is(ibm, brief, phase):
    """Others may have asked for the same; what is used, older or otherwise made is surely not ours."""
    ibm.add_session(mode="batch", max_ttl=600, age=3600)
    ibm.add_session(mode="batch", max_ttl=601)
    ibm.add_session(mode="batch", max_ttl=600, user="somebody")
    twin = ibm.add_session(mode="batch", max_ttl=600).id
    before = set(ibm.sessions) - {twin}
    ibm.script(Fault("POST", "/v1/sessions", status=504, phase=phase))
    problem = problem_in(brief.post("/v1/sessions", json=BODY))
    assert set(problem["candidates"]) == set(ibm.sessions) - before
    assert all(name in problem["detail"] for name in problem["candidates"])
    assert len(ibm.state()["accepting"]) == len(ibm.sessions)


def test_where_ibm_lists_nothing_the_open_outcome_is_told_all_the_same(ibm, brief):
    ibm.script(
        Fault("POST", "/v1/sessions", status=504, phase="after"),
        Fault("GET", "/v1/workloads", status=503, times=None),
    )
    problem = problem_in(brief.post("/v1/sessions", json=BODY))
    assert problem["type"].endswith(":outcome-unknown")
    assert "candidates" not in problem


def test_closing_is_sent_until_it_is_done(ibm, rest):
    name = ibm.add_session().id
    ibm.script(*[Fault("DELETE", "*", status=503), Fault("DELETE", "*", drop=True)])
    assert rest.delete(f"/v1/sessions/{name}/close").status_code == 204
    assert ibm.sessions[name].state == "closed"


def test_a_reply_of_ibms_with_odd_fields_is_passed_on(ibm, rest):
    """Half a character has no place in JSON; the rest does."""
    odd = {"id": "x", "state": "hibernating", "brand_new": {"a": [1]}, "torn": "\ud800", "closed_at": None}
    ibm.script(Fault("GET", "/v1/sessions/*", json=odd))
    assert rest.get("/v1/sessions/x").json() == {**odd, "torn": "?"}


def test_no_secret_is_in_an_answer_or_a_log(ibm, caplog):
    caplog.set_level(logging.DEBUG)
    ibm.script(*[Fault(path="/v1/*", echo=True, times=2), Fault(path="/identity/token", echo=True)])
    with serving(rest_app(factory_for(credentials_for(ibm), BRIEF), SECURED)) as url:
        service = httpx.Client(base_url=url, headers=BEARER, timeout=30)
        replies = [service.get("/v1/sessions/x"), service.post("/v1/sessions", json=BODY)]
        replies += [service.get("/health"), service.get("/openapi.json"), httpx.get(f"{url}/v1/sessions/x")]
    said = "".join(reply.text + str(reply.headers) for reply in replies)
    ours = "".join(
        r.getMessage() for r in caplog.records if r.name.split(".")[0] not in ("httpx", "httpcore")
    )
    for text in (said, ours):
        assert_hidden(ibm, text)
        assert TOKEN not in text


# -- who may call --------------------------------------------------------------------------------------------


@pytest.fixture
def secured(ibm):
    with serving(rest_app(factory_for(credentials_for(ibm)), SECURED)) as url:
        yield httpx.Client(base_url=url, timeout=30)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", "Bearer é"],
)
def test_without_the_token_nobody_gets_in(ibm, secured, header):
    headers = {} if header is None else {"Authorization": header.encode()}
    for path in ("/v1/sessions/x", "/v1/v1/sessions/x", "/openapi.json", "/nothing"):
        reply = secured.get(path, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert "bearer token" in problem_in(reply)["detail"]
    assert ibm.journal == []


def test_with_the_token_one_gets_in_and_health_is_for_all(ibm, secured):
    assert secured.post("/v1/sessions", json=BODY, headers=BEARER).status_code == 200
    assert secured.get("/health").json() == {"live": True, "ready": True}


@pytest.mark.parametrize("app", [rest_app, mcp_app])
def test_health_takes_nothing_from_those_who_have_a_token(ibm, app):
    """It is for clients without one: no body of theirs is waited for."""
    with serving(app(factory_for(credentials_for(ibm)))) as url:
        assert httpx.get(f"{url}/health").status_code == 200
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
            connection.sendall(
                f"GET /health HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 9\r\n\r\n".encode()
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_health_waits_for_ibm_in_one_place_only(ibm, rest, monkeypatch):
    monkeypatch.setattr(service_module, "PROBE_TIMEOUT", 60.0)
    ibm.script(Fault("GET", "/v1/backends", delay=10))
    with ThreadPoolExecutor() as pool:
        first = pool.submit(rest.get, "/health")
        until(lambda: ibm.requests("GET", "/v1/backends"))
        assert rest.get("/health").json() == {"live": True, "ready": False}
        assert not first.done()


def test_a_probe_without_an_answer_is_told(ibm, rest, monkeypatch, caplog):
    monkeypatch.setattr(service_module, "PROBE_TIMEOUT", 0.2)
    ibm.script(Fault("GET", "/v1/backends", delay=600))
    assert rest.get("/health").status_code == 503
    assert "no response within 0.2 s" in caplog.text


def test_health_asks_ibm_once_in_a_while(ibm, rest):
    for _ in range(20):
        assert rest.get("/health").status_code == 200
    assert len(ibm.requests("GET", "/v1/backends")) == 1
