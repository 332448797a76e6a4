# SPDX-License-Identifier: Apache-2.0
"""Wrong requests end at the REST service, with a problem that names what is wrong; IBM hears nothing."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_ibm_sessions.server.rest import rest_app
from airflow_provider_ibm_sessions.server.security import MAX_BODY_BYTES
from tests.client.conftest import credentials_for, fake_ibm
from tests.server.conftest import BODY, PROBLEM, factory_for, problem_in, serving

# These tests leave nothing behind, so they share a fake and a service.
ibm = pytest.fixture(scope="module")(fake_ibm)


@pytest.fixture(scope="module")
def rest(ibm):
    with serving(rest_app(factory_for(credentials_for(ibm)))) as url:
        yield httpx.Client(base_url=url, timeout=60)


@pytest.fixture(autouse=True)
def _ibm_hears_nothing(ibm):
    yield
    assert [entry for entry in ibm.journal if entry.operation not in ("token", "list_backends")] == []


BAD_BODIES = {
    "nothing": (b"", 422, "body"),
    "no JSON": (b"{", 400, None),
    "cut JSON": (b'{"mode": "bat', 400, None),
    "two values": (b"{} {}", 400, None),
    "a list": (b"[]", 422, "body"),
    "a text": (b'"mode"', 422, "body"),
    "null": (b"null", 422, "body"),
    "no UTF-8": (b"\xff", 400, None),
    "a very long number": (b"9" * 5000, 400, None),
    "deep": (b"[" * 50_000, 400, None),
    "too long": (b" " * (MAX_BODY_BYTES + 1), 413, None),
    "unknown field": (json.dumps(BODY | {"tags": []}).encode(), 422, "tags"),
    "broken field name": (b'{"mode": "batch", "backend": "ibm_fez", "\\ud800": 1}', 422, "body"),
    "field missing": (b'{"mode": "batch"}', 422, "backend"),
    "wrong mode": (json.dumps(BODY | {"mode": "fast"}).encode(), 422, "mode"),
    "wrong backend": (json.dumps(BODY | {"backend": "../x"}).encode(), 422, "backend"),
    "backend with NUL": (json.dumps(BODY | {"backend": "ibm_fez\0"}).encode(), 422, "backend"),
    "backend of two lines": (json.dumps(BODY | {"backend": "ibm\nfez"}).encode(), 422, "backend"),
    "backend true": (json.dumps(BODY | {"backend": True}).encode(), 422, "backend"),
    "backend a number": (json.dumps(BODY | {"backend": 5}).encode(), 422, "backend"),
    "backend rendered to nothing": (json.dumps(BODY | {"backend": "None"}).encode(), 422, "backend"),
    "mode true": (json.dumps(BODY | {"mode": True}).encode(), 422, "mode"),
    "mode with NUL": (json.dumps(BODY | {"mode": "batch\0"}).encode(), 422, "mode"),
    "max_ttl a fraction": (json.dumps(BODY | {"max_ttl": 1.5}).encode(), 422, "max_ttl"),
    "max_ttl nothing": (json.dumps(BODY | {"max_ttl": None}).encode(), 422, "max_ttl"),
    "max_ttl a text": (json.dumps(BODY | {"max_ttl": "600"}).encode(), 422, "max_ttl"),
    "max_ttl 0": (json.dumps(BODY | {"max_ttl": 0}).encode(), 422, "max_ttl"),
    "max_ttl true": (json.dumps(BODY | {"max_ttl": True}).encode(), 422, "max_ttl"),
    "max_ttl not finite": (b'{"mode": "batch", "backend": "ibm_fez", "max_ttl": NaN}', 422, "max_ttl"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_wrong_body_is_named_and_ibm_hears_nothing(rest, name):
    body, status, field = BAD_BODIES[name]
    reply = rest.post("/v1/sessions", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == status
    problem = problem_in(reply)
    assert problem.get("field") == field
    if field == "backend" and "missing" not in name:
        assert "must be the name of a QPU" in problem["detail"] or "is empty" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"mode": "batch", "backend": "a", "backend": "b"}', "backend"),
        (b'{"mode": "batch", "backend": "a", "max_ttl": 60, "max_ttl": 28800}', "max_ttl"),
        (b'{"mode": "batch", "mod\\u0065": "dedicated", "backend": "a"}', "mode"),
        (b'{"mode": "batch", "backend": "a", "x": [{"y": 1, "y": 2}]}', "y"),
        (b"{" + b",".join(b'"%d": 1' % n for n in range(5_000)) + b', "7": 2}', "7"),
    ],
)
def test_a_repeated_key_is_named_and_ibm_hears_nothing(rest, body, key):
    reply = rest.post("/v1/sessions", content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, problem_in(reply)["field"]) == (422, key)
    assert key in problem_in(reply)["detail"]


def test_several_host_headers_are_refused(rest):
    place = urlsplit(str(rest.base_url))
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(f"GET /health HTTP/1.1\r\nHost: {place.netloc}\r\nHost: evil.com\r\n\r\n".encode())
        assert connection.recv(100).split()[1] in (b"400", b"421")


def test_a_longer_max_ttl_than_is_served_is_named_and_ibm_hears_nothing(rest):
    problem = problem_in(rest.post("/v1/sessions", json=BODY | {"max_ttl": 2**31 - 1}))
    assert (problem["status"], problem["field"]) == (422, "max_ttl")
    assert "28800" in problem["detail"]


@pytest.mark.parametrize(
    "body", [{}, {"accepting_jobs": "false"}, {"accepting_jobs": 0}, {"state": "closed"}]
)
def test_a_wrong_update_is_named_and_ibm_hears_nothing(rest, body):
    problem = problem_in(rest.patch("/v1/sessions/x", json=body))
    assert (problem["status"], problem["field"]) == (422, "accepting_jobs")


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/plain; x=application/json"]
)
def test_a_body_that_is_not_declared_as_json_is_refused(rest, kind):
    """A web page may send such a body to another origin without asking. No FastAPI is relied on for this."""
    headers = {} if kind is None else {"Content-Type": kind}
    reply = rest.post("/v1/sessions", content=json.dumps(BODY), headers=headers)
    assert (reply.status_code, problem_in(reply)["field"]) == (422, "Content-Type")


@pytest.mark.parametrize("prefix", ["", "/v1"], ids=["path", "doubled path"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/sessions", BODY),
        ("GET", "/v1/sessions/x", None),
        ("PATCH", "/v1/sessions/x", {"accepting_jobs": False}),
        ("DELETE", "/v1/sessions/x/close", None),
    ],
)
def test_a_field_in_a_query_that_has_none_is_named_and_ibm_hears_nothing(rest, prefix, method, path, body):
    reply = rest.request(method, prefix + path, params={"max_ttl": 60}, json=body)
    assert (reply.status_code, problem_in(reply)["field"]) == (422, "max_ttl")


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/sessions/x"), ("DELETE", "/v1/sessions/x/close")])
def test_a_body_where_there_is_none_is_named_and_ibm_hears_nothing(rest, method, path):
    reply = rest.request(method, path, json={"reason": "a mistake"})
    assert (reply.status_code, problem_in(reply)["field"]) == (422, "body")


@pytest.mark.parametrize(
    "name",
    ["a%2Fb", "..%2Fx", "a%252Fb", "%2E%2E", "x" * 501, "a%20b", "%00", "%C3%A9", "a%3Fb", "a;b", "%ZZ"],
)
@pytest.mark.parametrize("prefix", ["", "/v1"], ids=["path", "doubled path"])
def test_a_wrong_id_is_named_and_ibm_hears_nothing(rest, name, prefix):
    for method, path in (("GET", ""), ("DELETE", "/close")):
        problem = raw(rest, f"{method} {prefix}/v1/sessions/{name}{path}")
        assert (problem["status"], problem["field"]) == (422, "id")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("GET /v1/sessions/", 404),
        ("GET /nothing", 404),
        ("GET /v1/sessions/a/b", 404),
        ("PUT /v1/sessions/a", 405),
    ],
)
def test_a_wrong_path_is_a_problem(rest, path, status):
    assert raw(rest, path)["status"] == status


def raw(service, line):
    """Send a request line as it stands, which HTTP libraries would tidy up; returns the problem."""
    place = urlsplit(str(service.base_url))
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = reply.partition(b"\r\n\r\n")
    assert PROBLEM.encode() in head
    return json.loads(body)


def test_what_a_path_allows_is_told(rest):
    assert rest.put("/v1/sessions/x").headers["allow"] == "GET, PATCH"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[", "10.0.0.1"]
)
def test_a_wrong_host_is_refused(rest, host):
    reply = rest.post("/v1/sessions", json=BODY, headers={"Host": host})
    assert reply.status_code == 421
    assert "Host" in problem_in(reply)["detail"]


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[", "", "//"]
)
def test_a_web_page_of_elsewhere_is_refused(rest, origin):
    reply = rest.post("/v1/sessions", json=BODY, headers={"Origin": origin})
    assert reply.status_code == 403
    assert problem_in(reply)["field"] == "Origin"


def test_all_names_of_the_loopback_are_known(rest):
    for host in ("localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST"):
        assert rest.get("/health", headers={"Host": host}).status_code == 200
    assert rest.get("/health", headers={"Origin": str(rest.base_url).rstrip("/")}).status_code == 200
