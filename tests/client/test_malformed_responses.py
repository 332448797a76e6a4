# SPDX-License-Identifier: Apache-2.0
"""Whatever the bytes of a reply are: an answer or an error of our tree, and nothing else."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from testing.result_payloads import strict
from tests.client.conftest import ONE_TRY, canned_server, fake_ibm, http

NAMES = ["id", "state", "max_ttl", "timestamps", "started_at", "elapsed_time", "accepting_jobs", "status"]
NAMES += ["workloads", "next", "href", "devices", "versions", "name", "version", "usage", "tags"]
NAMES += ["errors", "error", "message", "code", "trace", "solution", "errorMessage", "errorCode"]
ODD = [
    float("nan"),
    float("inf"),
    -float("inf"),
    10**400,
    -(10**30),
    1e308,
    0.5,
    "",
    "\ud800",
    "x" * 2000,
    "\x00",
]
ODD += ["a\r\nb", "2026-13-45T99:99:99Z", "http://[", "?next=%ff%00", "?next=same"]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(ODD)
)
FIELDS = st.sampled_from(NAMES) | st.text(max_size=5)
BODIES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=6),
    max_leaves=15,
)
RAW = {
    "nothing": b"",
    "no text": b"\xff\xfe\x00\x01",
    "lone NaN": b"NaN",
    "number of 5000 digits": b'{"id":"x","max_ttl":' + b"9" * 5000 + b"}",
    "lists in lists": b"[" * 100_000,
    "objects in objects": b'{"a":' * 100_000,
    "closed lists in lists": b"[" * 50_000 + b"]" * 50_000,
    "many keys": json.dumps({"id": "x"} | {f"k{n}": n for n in range(20_000)}).encode(),
    "same key": b'{"id":"x","id":5}',
    "byte order mark": b'\xef\xbb\xbf{"id":"x"}',
    "UTF-16": '{"id":"x"}'.encode("utf-16"),
    "half a surrogate": rb'{"id":"\ud800","state":"\udfff"}',
    "half a surrogate in a key": rb'{"id":"x","\ud800":1}',
}
STATUSES = st.sampled_from(
    ["200 OK", "201 Created", "400 Bad", "404 None", "409 Conflict", "429 Slow", "500 Oops"]
)


ibm = pytest.fixture(fake_ibm, scope="module")
canned = pytest.fixture(canned_server, scope="module")


def try_all(api):
    """Call everything; errors of our tree are fine."""
    for call in (
        lambda: api.get_session("x"),
        lambda: api.create_session(backend="ibm_fez", max_ttl=60),
        lambda: api.update_session("x", accepting_jobs=False),
        api.list_workloads,
        api.list_backends,
        api.list_versions,
    ):
        try:
            call()
        except IBMQuantumError as error:
            assert len(str(error)) < 3000
            assert str(error).isprintable()


@pytest.fixture
def api(ibm, connect, canned):
    return connect(ONE_TRY, url=canned.url)


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_odd_bytes(api, canned, raw, status):
    canned.reply = http(raw, status)
    try_all(api)


def test_any_json(api, canned):
    @given(BODIES, STATUSES)
    def check(body, status):
        canned.reply = http(body, status)
        try_all(api)

    check()


@pytest.mark.parametrize("where", ["message", "code", "extra", "id"])
def test_nesting_near_the_limit_of_recursion(api, canned, where):
    for depth in range(900, 1000, 4):
        nested = "[" * depth + "]" * depth
        body = f'{{"id":"x","extra":{nested}}}' if where == "extra" else f'{{"id":{nested}}}'
        if where in ("message", "code"):
            body = f'{{"errors":[{{"{where}":{nested}}}]}}'
        canned.reply = http(body.encode(), "400 Bad Request" if where in ("message", "code") else "200 OK")
        with contextlib.suppress(IBMQuantumError):
            api.get_session("x")


def test_any_header(api, canned):
    printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)

    @given(printable, printable, STATUSES)
    def check(kind, retry_after, status):
        canned.reply = http({"id": "x"}, status, kind, Retry_After=retry_after)
        try:
            api.get_session("x")
        except IBMQuantumError as error:
            assert error.retry_after is None or error.retry_after >= 0

    check()


def test_any_bytes_at_all(api, canned):
    @given(
        st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
    )
    def check(raw, head):
        canned.reply = head + raw
        with contextlib.suppress(IBMQuantumError):
            api.get_session("x")

    check()


@pytest.mark.parametrize(
    "odd",
    [
        b'{"id":"x","elapsed_time":NaN}',
        b'{"id":"x","elapsed_time":Infinity}',
        b'{"id":"x","new":NaN}',
        rb'{"id":"x","new":"\ud800"}',
        rb'{"id":"x","\ud800":1}',
        b'{"id":"x","new":' + b"[" * 400 + b"]" * 400 + b"}",
    ],
    ids=["NaN", "Infinity", "NaN in a new field", "surrogate", "surrogate in a key", "deep"],
)
def test_a_session_that_was_read_can_be_written_as_json(api, canned, odd):
    """For XCom and trigger events: JSON of the standard, in UTF-8."""
    canned.reply = http(odd)
    try:
        session = api.get_session("x")
    except IBMQuantumError:
        return
    assert json.dumps(session.to_json(), allow_nan=False, ensure_ascii=False).encode()


def test_booleans_are_no_numbers_and_numbers_are_no_times(connect, canned):
    """``true`` would be a second that is billed, and 5 a time in 1970."""
    usage = {"qpu_charge_time_seconds": True}
    canned.reply = http(
        {
            "id": "x",
            "elapsed_time": True,
            "max_ttl": True,
            "started_at": 5,
            "closed_at": "1767225600",
            "activated_at": -1e9,
            "last_job_started": True,
            "cost": False,
            "created": 1_767_225_600_000,
            "usage": usage,
            "estimated_running_time_seconds": True,
            "state": {"status": "Failed", "reason_code": True},
        }
    )
    api = connect(ONE_TRY, url=canned.url)
    assert api.get_session("x").to_json() == {"id": "x"}
    job = api.get_job("x")
    assert job.to_json() == {"id": "x", "state": "Failed", "usage": {}}
    assert (job.cost, job.created, job.estimated_running_time_seconds) == (None, None, None)


@pytest.mark.parametrize("odd", [2**64, -(10**30), 10**400])
def test_integers_that_xcom_cannot_hold_lose_no_session_and_no_job(connect, canned, odd):
    """What is pushed to XCom is sent to Airflow in 64 bits."""
    canned.reply = http({"id": "x", "max_ttl": odd, "state": {"status": "Failed", "reason_code": odd}})
    api = connect(ONE_TRY, url=canned.url)
    assert strict(api.get_session("x").to_json())["id"] == "x"
    assert strict(api.get_job("x").to_json()) == {"id": "x", "state": "Failed"}


def test_tags_with_nul_and_half_characters_can_be_stored(connect, canned):
    canned.reply = http({"id": "x", "tags": ["a\x00b", "\ud800"], "session_id": "s\x00"})
    assert strict(connect(ONE_TRY, url=canned.url).get_job("x").to_json())["tags"] == ["a?b", "?"]
