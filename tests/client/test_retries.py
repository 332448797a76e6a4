# SPDX-License-Identifier: Apache-2.0
"""When a request is sent again: operation by operation, fault by fault, counted in the fake's journal."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from tenacity import RetryCallState

from airflow_provider_ibm_sessions.client import IBMQuantumClient, RetryPolicy
from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConflictError,
    IBMQuantumError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    TransportError,
)
from airflow_provider_ibm_sessions.client.operations import GET_SESSION
from testing.fake_ibm import FakeIBM, Fault
from tests.client.conftest import BRIEF, ONE_TRY, QUICK, assert_hidden, credentials_for, free_port


@dataclass(frozen=True)
class Call:
    """An operation and what it asks for."""

    method: str
    path: str
    do: Any

    def __call__(self, api, session_id="some-id"):
        return self.do(api, session_id)

    def fault(self, **kind):
        return Fault(self.method, self.path, **kind)

    def seen(self, ibm):
        return len(ibm.requests(self.method, self.path))


CREATE = Call("POST", "/v1/sessions", lambda api, _: api.create_session(backend="ibm_fez", max_ttl=60))
GET = Call("GET", "/v1/sessions/*", lambda api, name: api.get_session(name))
UPDATE = Call("PATCH", "/v1/sessions/*", lambda api, name: api.update_session(name, accepting_jobs=False))
CLOSE = Call("DELETE", "/v1/sessions/*/close", lambda api, name: api.close_session(name))
WORKLOADS = Call("GET", "/v1/workloads", lambda api, _: api.list_workloads())
BACKENDS = Call("GET", "/v1/backends", lambda api, _: api.list_backends())
VERSIONS = Call("GET", "/v1/versions", lambda api, _: api.list_versions())

REPEATABLE = {"get": GET, "update": UPDATE, "close": CLOSE}
LISTS = {"workloads": WORKLOADS, "backends": BACKENDS, "versions": VERSIONS}
ALL = {"create": CREATE} | REPEATABLE | LISTS

PASSING = {
    "500": ({"status": 500}, ServerError),
    "502": ({"status": 502, "body": "<b>Bad gateway</b>"}, ServerError),
    "503": ({"status": 503}, ServerError),
    "504 after": ({"status": 504, "phase": "after"}, ServerError),
    "520": ({"status": 520}, ServerError),
    "drop": ({"drop": True}, TransportError),
    "drop after": ({"drop": True, "phase": "after"}, TransportError),
    "reset after": ({"drop": "rst", "phase": "after"}, TransportError),
    "cut short": ({"truncate": "length", "phase": "after"}, TransportError),
}
LIMITED = {
    "429": ({"status": 429}, RateLimitedError),
    "429 at once": ({"status": 429, "headers": {"Retry-After": "0"}}, RateLimitedError),
}
ODD = {
    "html": {"html": True},
    "list": {"json": [{"id": "x"}]},
    "number": {"json": 7},
    "text": {"status": 200, "body": "fine"},
    "error in 200": {"json": {"errors": [{"code": 7, "message": "no"}]}},
    "message in 200": {"json": {"message": "no"}},
    "50 MB": {"huge": 50_000_000},
    "redirect": {"status": 302, "headers": {"Location": "https://example.org/"}},
}
BROKEN = {"garbage": {"garbage": True}, "broken JSON": {"truncate": True}}
"""Cut or spoilt on their way, in contrast to the odd ones."""
EMPTY = {"empty": {"empty": True}}
NOTHING = {"204": {"no_content": True}}
REFUSED = {
    "400": ({"status": 400}, RequestRejectedError),
    "403": ({"status": 403}, PermissionDeniedError),
    "404": ({"status": 404}, NotFoundError),
    "409": ({"status": 409}, ConflictError),
    "418": ({"status": 418}, RequestRejectedError),
    "423": ({"status": 423}, ConflictError),
    "501": ({"status": 501}, RequestRejectedError),
}


def cases(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


def calls(table):
    return pytest.mark.parametrize("call", table.values(), ids=table)


@pytest.fixture
def name(ibm):
    return ibm.add_session().id


# -- what passes ---------------------------------------------------------------------------------------------


@cases(PASSING | LIMITED | {name: (fault, None) for name, fault in BROKEN.items()})
def test_passing_trouble_is_seen_out(ibm, api, name, case):
    for call in REPEATABLE.values():
        ibm.script(call.fault(times=2, **case[0]))
        call(api, name)
        assert call.seen(ibm) == 3


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop": True}], ids=str)
def test_lists_are_asked_for_again_too(ibm, api, fault):
    for call in LISTS.values():
        ibm.script(call.fault(**fault))
        call(api)
        assert call.seen(ibm) == 2


@calls(REPEATABLE)
def test_a_reply_that_does_not_come_is_asked_for_again(ibm, connect, name, call):
    ibm.script(call.fault(delay=10))
    call(connect(timeout=1.5), name)
    assert call.seen(ibm) == 2


def test_a_later_page_is_asked_for_again_alone(ibm, api):
    names = [ibm.add_session(age=age).id for age in range(4)]
    ibm.script(WORKLOADS.fault(status=503, skip=1))
    assert [each.id for each in api.list_workloads(limit=2)] == names
    assert WORKLOADS.seen(ibm) == 3


# -- what is sent once ---------------------------------------------------------------------------------------


@cases(PASSING)
def test_a_post_that_may_have_been_carried_out_is_not_sent_again(ibm, api, case):
    fault, kind = case
    ibm.script(CREATE.fault(**fault))
    with pytest.raises(OutcomeUnknownError, match="may have been carried out") as caught:
        CREATE(api)
    assert type(caught.value.__cause__) is kind
    assert (caught.value.sent, caught.value.retryable, caught.value.candidates) == (True, False, ())
    assert caught.value.status == fault.get("status")
    assert CREATE.seen(ibm) == 1
    assert len(ibm.sessions) == (fault.get("phase") == "after")


@cases(ODD | BROKEN | EMPTY | NOTHING)
def test_a_post_answered_with_nonsense_is_not_sent_again(ibm, api, case):
    ibm.script(CREATE.fault(**case))
    with pytest.raises(OutcomeUnknownError) as caught:
        CREATE(api)
    assert type(caught.value.__cause__) is BadResponseError
    assert CREATE.seen(ibm) == 1


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_post_without_a_reply_in_time_is_not_sent_again(ibm, connect, phase):
    ibm.script(CREATE.fault(delay=10, phase=phase))
    with pytest.raises(OutcomeUnknownError):
        CREATE(connect(timeout=1.5))
    assert CREATE.seen(ibm) == 1
    assert len(ibm.sessions) == (phase == "after")


@cases(LIMITED)
def test_a_post_that_was_turned_away_is_sent_again(ibm, api, case):
    fault, _ = case
    ibm.script(CREATE.fault(times=2, **fault))
    CREATE(api)
    assert CREATE.seen(ibm) == 3
    assert len(ibm.sessions) == 1


def test_a_post_that_never_left_is_sent_when_the_service_is_back(ibm, api):
    api.list_backends()
    ibm.stop()
    back = threading.Timer(0.15, ibm.start)
    back.start()
    CREATE(api)
    back.join()
    assert CREATE.seen(ibm) == 1
    assert len(ibm.sessions) == 1


# -- what lasts ----------------------------------------------------------------------------------------------


@cases(PASSING | LIMITED | {name: (fault, BadResponseError) for name, fault in BROKEN.items()})
def test_lasting_trouble_ends_in_its_own_error(ibm, connect, name, case):
    fault, kind = case
    for call in REPEATABLE.values() if fault.get("status") == 503 else [GET]:
        ibm.script(call.fault(times=None, **fault))
        with pytest.raises(IBMQuantumError) as caught:
            call(connect(BRIEF), name)
        assert type(caught.value) is kind
        assert caught.value.retryable
        assert caught.value.status == fault.get("status", 200 if kind is BadResponseError else None)
        assert call.seen(ibm) < 40
        assert_hidden(ibm, str(caught.value))


def test_a_post_that_is_turned_away_for_ever_is_not_of_unknown_outcome(ibm, connect):
    ibm.script(CREATE.fault(status=429, times=None))
    with pytest.raises(RateLimitedError):
        CREATE(connect(BRIEF))
    assert ibm.sessions == {}


def test_a_service_that_refuses_connections(ibm, connect):
    api = connect(BRIEF, url=f"http://127.0.0.1:{free_port()}/api")
    for call in ALL.values():
        with pytest.raises(TransportError, match="ConnectError at") as caught:
            call(api)
        assert (caught.value.sent, caught.value.retryable) == (False, True)


def test_one_attempt_is_one_attempt(ibm, connect):
    api = connect(ONE_TRY)
    for call in ALL.values():
        ibm.clear_faults()
        ibm.script(call.fault(drop=True, times=None))
        with pytest.raises(IBMQuantumError):
            call(api)
        assert call.seen(ibm) == 1


@cases(REFUSED)
def test_a_refusal_is_final(ibm, api, case):
    fault, kind = case
    for call in ALL.values():
        ibm.clear_faults()
        ibm.script(call.fault(times=None, **fault))
        with pytest.raises(kind) as caught:
            call(api)
        assert type(caught.value) is kind
        assert not caught.value.retryable
        assert call.seen(ibm) == 1


@cases(ODD | NOTHING)
def test_a_reply_that_is_none_is_a_bad_response(ibm, api, case):
    for call in (GET, WORKLOADS, BACKENDS):
        ibm.script(call.fault(times=None, **case))
        with pytest.raises(BadResponseError) as caught:
            call(api)
        assert not caught.value.retryable
        assert call.seen(ibm) == 1
        assert len(str(caught.value)) < 1000


def test_an_empty_reply_is_a_bad_response(ibm, connect):
    ibm.script(GET.fault(times=None, empty=True))
    with pytest.raises(BadResponseError):
        GET(connect(BRIEF))


@cases(ODD)
def test_nonsense_does_not_pass_for_a_closed_session(ibm, api, case):
    for call in (UPDATE, CLOSE):
        ibm.script(call.fault(times=None, **case))
        with pytest.raises(BadResponseError):
            call(api)
        assert call.seen(ibm) == 1


@cases(EMPTY | NOTHING | {"empty object": {"json": {}}})
def test_no_answer_is_expected_where_none_is_documented(ibm, api, case):
    for call in (UPDATE, CLOSE):
        ibm.script(call.fault(**case))
        assert call(api) is None


# -- how long ------------------------------------------------------------------------------------------------


@calls({"get": GET, "create": CREATE})
def test_a_body_that_drips_ends(ibm, connect, call):
    ibm.script(call.fault(drip=0.02, times=None))
    with pytest.raises(IBMQuantumError) as caught:
        call(connect(ONE_TRY, timeout=0.2), ibm.add_session().id)
    assert type(caught.value) is (OutcomeUnknownError if call is CREATE else TransportError)


def test_a_head_that_drips_ends(ibm, connect):
    """Each byte comes in time for a read timeout, yet the whole does not."""
    ibm.script(GET.fault(drip=0.01, drip_headers=True, status=503, body="x"))
    with pytest.raises(TransportError):
        GET(connect(ONE_TRY, timeout=0.3))


def test_retry_after_is_obeyed(ibm, api, name):
    ibm.clock.frozen = False
    ibm.script(GET.fault(status=429, headers={"Retry-After": "1"}))
    GET(api, name)
    first, second = ibm.requests("GET")
    assert second.time - first.time > 0.95


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("written", ["seconds", "date"])
def test_a_pause_longer_than_the_window_is_not_begun(ibm, connect, name, status, written):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    ibm.script(GET.fault(status=status, headers={"Retry-After": "300" if written == "seconds" else date}))
    with pytest.raises((RateLimitedError, ServerError)) as caught:
        GET(connect(QUICK), name)
    assert 200 < caught.value.retry_after <= 300
    assert GET.seen(ibm) == 1


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "9" * 40,
        "Wed, 21 Oct 2015 07:28:00",
        "Wed, 99 Oct 2015 07:28:00 GMT",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "Wed, 21 Oct 2026 07:28:00 +9999",
        "Wed, 21 Oct 2026 07:28:00 +99999999999999999999",
    ],
)
def test_a_retry_after_that_says_nothing_is_passed_over(ibm, api, name, value):
    ibm.script(GET.fault(status=429, headers={"Retry-After": value}))
    assert GET(api, name).id == name
    assert GET.seen(ibm) == 2


def test_a_retry_after_in_the_past_means_now(ibm, api, name):
    ibm.script(GET.fault(status=503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}))
    assert GET(api, name).id == name


def test_a_retry_after_of_nothing_does_not_keep_delays_from_growing():
    """Ten thousand that wait would send hundreds of requests a second to an IBM that has too many."""
    error = RateLimitedError("Too many requests", retry_after=0.0)
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})
    state.attempt_number = 10
    state.set_exception((RateLimitedError, error, None))
    wait = RetryPolicy(initial_backoff=0.5).tenacity_options(GET_SESSION)["wait"]
    assert max(wait(state) for _ in range(100)) > 0.5


# -- redirects -----------------------------------------------------------------------------------------------


def test_a_redirect_is_not_followed(ibm, api):
    with FakeIBM() as other:
        for status in (301, 302, 303, 307, 308):
            redirected(ibm, api, other, status)
        assert other.journal == []


def redirected(ibm, api, other, status):
    before = len(ibm.requests(path="/v1/*"))
    ibm.clear_faults()
    where = {"Location": f"{other.url}/v1/backends"}
    ibm.script(Fault(path="/v1/*", status=status, headers=where, times=None))
    with pytest.raises(BadResponseError) as caught:
        BACKENDS(api)
    assert caught.value.status == status
    with pytest.raises(IBMQuantumError):
        CREATE(api)
    assert len(ibm.requests(path="/v1/*")) == before + 2


def test_the_time_of_the_token_is_not_taken_from_the_request(ibm, connect):
    """Else a slow IAM would leave a session behind whose reply nobody waits for."""
    ibm.script(Fault(path="/identity/token", delay=3), CREATE.fault(delay=3, phase="after"))
    assert CREATE(connect(ONE_TRY, timeout=5.5), None).id in ibm.sessions


def test_a_token_for_somebody_else_is_not_waited_for_longer(ibm):
    ibm.script(Fault(path="/identity/token", drip=0.05, times=None))
    with (
        IBMQuantumClient(credentials_for(ibm, timeout=0.3), ONE_TRY) as client,
        pytest.raises(TransportError),
    ):
        client.authorization()


@pytest.mark.parametrize("status", [423, 400, 409])
def test_a_reserved_qpu_is_free_again_later(ibm, connect, status):
    """IBM's code 1233. Nothing was carried out, so that a POST may be sent again as well."""
    busy = {"errors": [{"code": 1233, "message": "Backend is reserved"}]}
    for call in (CREATE, GET):
        ibm.script(call.fault(status=status, json=busy, times=2))
    session = CREATE(connect(QUICK), None)
    assert (CREATE.seen(ibm), len(ibm.sessions)) == (3, 1)
    assert GET(connect(QUICK), session.id).id == session.id
    ibm.script(CREATE.fault(status=status, json=busy, times=None))
    with pytest.raises(RequestRejectedError, match="the QPU is reserved for somebody else now") as caught:
        CREATE(connect(BRIEF))
    assert (caught.value.retryable, caught.value.code, caught.value.status) == (True, "1233", status)
    assert not isinstance(caught.value, ConflictError), "which would mean that it has ended already"
