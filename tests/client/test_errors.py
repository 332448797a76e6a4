# SPDX-License-Identifier: Apache-2.0
"""Errors: what IBM's replies become, and what they may say."""

from __future__ import annotations

import copy
import pickle

import pytest

from airflow_provider_ibm_sessions.client import IBMQuantumError, errors
from airflow_provider_ibm_sessions.client.error_hints import ERROR_HINTS
from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    PlanError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    SessionClosedError,
    TransportError,
)
from airflow_provider_ibm_sessions.exceptions import job_error
from testing.fake_ibm import Fault
from tests.client.conftest import ONE_TRY, canned_server, fake_ibm, http

ERRORS = [
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, IBMQuantumError)
]


ibm = pytest.fixture(fake_ibm, scope="module")
canned = pytest.fixture(canned_server, scope="module")


def failing(ibm, api, **fault):
    """The error that a call ends in when it gets this reply."""
    ibm.script(Fault("GET", "/v1/sessions/*", **fault))
    with pytest.raises(IBMQuantumError) as caught:
        api.get_session("some-id")
    return caught.value


@pytest.fixture
def api(connect):
    return connect(ONE_TRY)


# -- shapes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["errors", "singular", "iam"])
@pytest.mark.parametrize("code", [4711, "not_found"])
def test_every_shape_with_a_code_is_read(ibm, api, shape, code):
    error = failing(ibm, api, status=400, error_shape=shape, code=code, message="The reason is this.")
    assert type(error) is RequestRejectedError
    assert (error.status, error.code) == (400, str(code))
    assert "Get a session: The reason is this" in error.message
    assert bool(error.trace) == (shape != "singular")
    for fact in (f"code {code}", "HTTP 400", "The reason is this", error.trace or ""):
        assert fact in str(error)


def test_a_solution_is_told(ibm, api):
    error = failing(ibm, api, status=400, message="Broken.")
    assert "Broken. Correct the request and try again" in str(error)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"message": "bare"}, "bare", None),
        ({"message": "bare", "code": 5}, "bare", "5"),
        ({"errorCode": "BXNIM0415E", "errorMessage": "unknown key"}, "unknown key", "BXNIM0415E"),
        ({"error": "text"}, "text", None),
        ({"error": {"message": "inner"}}, "inner", None),
        ({"errors": ["text"]}, "text", None),
        ({"errors": [{"code": 0}]}, "no message", "0"),
        ({"errors": [], "message": "beside"}, "beside", None),
        ({"errors": {"a": 1}}, "no explanation", None),
        ({"error": None}, "no explanation", None),
        ({}, "no explanation", None),
        ([], "no explanation", None),
        (None, "no explanation", None),
        ("plain text", "no explanation", None),
        (b"\xff\xfe", "no explanation", None),
    ],
    ids=str,
)
def test_other_bodies_of_errors(ibm, api, body, message, code):
    error = failing(ibm, api, status=400, body=body)
    assert message in str(error)
    assert (error.status, error.code) == (400, code)


# -- kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 1352, PlanError),
        (400, 1217, SessionClosedError),
        (404, 1279, PermissionDeniedError),
        (400, "1279", PermissionDeniedError),
        (400, 1241, RequestRejectedError),
        (404, "not_found", NotFoundError),
        (403, None, PermissionDeniedError),
        (409, None, ConflictError),
        (423, None, ConflictError),
        (409, 1217, SessionClosedError),
        (429, None, RateLimitedError),
        (408, None, ServerError),
        (500, 1217, ServerError),
        (503, 1999, ServerError),
        (599, None, ServerError),
        (410, None, RequestRejectedError),
    ],
)
def test_status_and_code_decide_the_kind(ibm, api, status, code, kind):
    error = failing(ibm, api, status=status, code=code)
    assert type(error) is kind
    assert error.retryable == (kind in (ServerError, RateLimitedError))


def test_a_plan_that_has_no_dedicated_sessions(ibm, api, monkeypatch):
    monkeypatch.setattr(ibm.settings, "plan", "open")
    with pytest.raises(PlanError, match="mode='batch'") as caught:
        api.create_session(backend="ibm_fez", max_ttl=60)
    assert (caught.value.code, caught.value.status) == ("1352", 400)
    assert api.create_session(backend="ibm_fez", max_ttl=28_800, mode="batch").max_ttl == 600


@pytest.mark.parametrize("code", ERROR_HINTS)
def test_what_to_do_stands_before_what_ibm_says(ibm, connect, code):
    ibm.script(Fault("GET", "/v1/sessions/*", status=400, code=int(code), message="ibm says " * 30))
    with pytest.raises(IBMQuantumError) as caught:
        connect(ONE_TRY).get_session("a-session")
    assert str(caught.value).startswith(f"Get a session: {ERROR_HINTS[code]}. IBM says: ibm says")


def test_a_crn_of_another_region_is_not_a_missing_session(ibm, connect):
    api = connect(ONE_TRY, crn=ibm.crn.replace("us-east", "eu-de"))
    name = ibm.add_session().id
    for call in (api.get_session, api.close_session):
        with pytest.raises(PermissionDeniedError, match="region") as caught:
            call(name)
        assert not isinstance(caught.value, NotFoundError)
        assert caught.value.code == "1279"


@pytest.mark.parametrize("fault", [{"html": True}, {"body": "not found"}, {"no_content": True}], ids=str)
def test_a_404_of_somebody_else_says_nothing_of_the_session(ibm, api, fault):
    error = failing(ibm, api, status=404, **fault)
    assert type(error) is BadResponseError
    assert error.status == 404


def test_a_web_page_hints_at_the_base_url(ibm, connect):
    with pytest.raises(BadResponseError, match=r"text/html instead of JSON.*ends in /api"):
        connect(url=f"{ibm.iam_url}/wrong").list_backends()


# -- text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["message", "code", "trace", "solution"])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
def test_the_text_is_bounded_and_on_one_line(connect, canned, place, status):
    entry = {"code": "5", "message": "no", "trace": "x"} | {place: "a\r\nb\x1b[31m\u2028" * 5000}
    canned.reply = http({"errors": [entry], "trace": entry["trace"]}, status=status)
    with pytest.raises(IBMQuantumError) as caught:
        connect(ONE_TRY, url=canned.url).get_session("some-id")
    assert len(str(caught.value)) < 2000
    assert str(caught.value).isprintable()


def test_a_content_type_without_end_is_cut(ibm, connect, canned):
    canned.reply = http(b"x", kind="text/" + "x" * 20_000)
    with pytest.raises(BadResponseError) as caught:
        connect(ONE_TRY, url=canned.url).get_session("some-id")
    assert len(str(caught.value)) < 2000


def test_a_status_line_without_end_is_cut(ibm, connect, canned):
    canned.reply = b"HTTP/9 " + b"y" * 20_000 + b"\r\n\r\n"
    with pytest.raises(TransportError) as caught:
        connect(ONE_TRY, url=canned.url).get_session("some-id")
    assert len(str(caught.value)) < 2000


# -- the classes ---------------------------------------------------------------------------------------------


def test_every_error_of_the_tree_is_caught_by_one_name():
    assert len(ERRORS) > 12
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(PlanError, PermissionDeniedError)
    assert issubclass(SessionClosedError, ConflictError)
    assert not issubclass(OutcomeUnknownError, TransportError)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"]
)
def test_errors_keep_their_facts_when_pickled(kind, again):
    if kind is ConfigurationError:
        error = kind("words", field="crn")
    else:
        error = kind("words", status=503, code="7", trace="t", retry_after=1.5, sent=False)
    error.retryable = True
    if kind is OutcomeUnknownError:
        error.candidates = ("a", "b")
    back = again(error)
    assert type(back) is kind
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_candidates():
    assert OutcomeUnknownError("words").candidates == ()
    assert OutcomeUnknownError("words", candidates=("a",), status=504).candidates == ("a",)


@pytest.mark.parametrize("code", sorted(ERROR_HINTS))
def test_the_remedy_is_read_in_the_first_hundred_characters(code):
    remedy = ERROR_HINTS[code].partition(":")[0]
    report = {"id": "d" * 20, "state": "Failed", "reason_code": int(code), "reason": "something of IBM's"}
    assert remedy in str(job_error(report, "https://page"))[:100]
    assert remedy in f"Submit a job: {ERROR_HINTS[code]}"[:100]
