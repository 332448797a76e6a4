# SPDX-License-Identifier: Apache-2.0
"""The IAM token: one exchange for all, renewed ahead of time, once more after a 401; the key stays hidden."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, IBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import (
    AuthenticationError,
    BadResponseError,
    IBMQuantumError,
    OutcomeUnknownError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from testing.fake_ibm import FakeIBM, Fault
from tests.client.conftest import (
    BRIEF,
    ONE_TRY,
    QUICK,
    TOKEN,
    assert_hidden,
    credentials_for,
    exchanges,
    free_port,
    http,
)


@pytest.fixture
def name(ibm):
    return ibm.add_session().id


def in_threads(count, call):
    """Run the call in so many threads at once; their results."""
    gate = threading.Barrier(count)

    def run(_):
        gate.wait(60)
        return call()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def wait_for(condition):
    """Wait until it holds."""
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def ask(credentials, name):
    with IBMQuantumClient(credentials, QUICK) as client:
        return client.get_session(name).id


async def ask_async(credentials, name, times):
    async with AsyncIBMQuantumClient(credentials, QUICK) as client:
        return [each.id for each in await asyncio.gather(*[client.get_session(name) for _ in range(times)])]


# -- one exchange for all ------------------------------------------------------------------------------------


def test_one_exchange_for_all_threads_and_tasks(ibm, name):
    ibm.script(Fault(path=TOKEN, delay=0.2))
    credentials = credentials_for(ibm)

    async def many():
        answers = await asyncio.gather(*[ask_async(credentials, name, 10) for _ in range(5)])
        return list(chain.from_iterable(answers))

    with ThreadPoolExecutor(1) as pool:
        tasks = pool.submit(asyncio.run, many())
        answers = in_threads(20, lambda: ask(credentials, name))
        answers += tasks.result(60)
    assert answers == [name] * 70
    assert exchanges(ibm) == 1


def test_clients_made_later_use_the_same_token(ibm, connect, name):
    for _ in range(3):
        connect().get_session(name)
    assert exchanges(ibm) == 1


def test_every_key_has_its_own_token(ibm, connect):
    with FakeIBM() as other:
        connect().list_backends()
        connect(api_key=other.api_key, crn=other.crn, url=other.url, iam_url=other.iam_url).list_backends()
        assert exchanges(ibm) == exchanges(other) == 1
        assert other.leaks == []


def test_after_a_401_all_share_one_renewal(ibm, name):
    credentials = credentials_for(ibm)
    ask(credentials, name)
    ibm.revoke_tokens()
    ibm.script(Fault(path=TOKEN, delay=0.1))
    assert in_threads(10, lambda: ask(credentials, name)) == [name] * 10
    assert exchanges(ibm) == 2


def test_a_cancelled_exchange_is_in_nobodys_way(ibm, name):
    ibm.script(Fault(path=TOKEN, delay=30))

    async def main():
        credentials = credentials_for(ibm)
        first = asyncio.create_task(ask_async(credentials, name, 1))
        await asyncio.to_thread(wait_for, lambda: ibm.journal)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await ask_async(credentials, name, 1)

    assert asyncio.run(main()) == [name]


def test_an_exchange_that_hangs_ends_in_the_time_of_one_request(ibm, connect):
    ibm.script(Fault(path=TOKEN, delay=2, times=None))
    with pytest.raises(TransportError) as caught:
        connect(ONE_TRY, timeout=0.2).create_session(backend="ibm_fez", max_ttl=60)
    assert not caught.value.sent
    assert ibm.requests("POST", "/v1/*") == []


def test_those_who_wait_for_an_exchange_that_hangs_give_up_too(ibm):
    ibm.script(Fault(path=TOKEN, delay=2, times=None))
    credentials = credentials_for(ibm, timeout=0.2)

    def fail():
        with IBMQuantumClient(credentials, ONE_TRY) as client, pytest.raises(TransportError) as caught:
            client.create_session(backend="ibm_fez", max_ttl=60)
        return caught.value.sent

    assert in_threads(4, fail) == [False] * 4
    assert ibm.requests("POST", "/v1/*") == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_gets_a_token_though_its_parent_is_at_it(ibm, name):
    """Airflow forks: the parent's thread that held the lock does not exist in the child."""
    credentials = credentials_for(ibm, timeout=30)
    ibm.script(Fault(path=TOKEN, delay=1.0))
    busy = threading.Thread(target=ask, args=(credentials, name))
    busy.start()
    wait_for(lambda: exchanges(ibm))
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if ask(credentials, name) == name else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    busy.join(10)


# -- renewal ahead of time -----------------------------------------------------------------------------------


def test_a_token_is_renewed_when_six_minutes_are_left(ibm, api, name, later):
    api.get_session(name)
    later(3600 - 360 - 30)
    api.get_session(name)
    assert exchanges(ibm) == 1
    later(60)
    api.get_session(name)
    assert exchanges(ibm) == 2
    assert ibm.journal[-1].headers["authorization"] == f"Bearer {ibm.tokens[1].value}"


def test_a_token_with_a_short_life_is_used_for_half_of_it(ibm, api, name, later):
    ibm.settings.token_lifetime = 100
    api.get_session(name)
    later(40)
    api.get_session(name)
    assert exchanges(ibm) == 1
    later(20)
    api.get_session(name)
    assert exchanges(ibm) == 2


def test_an_expired_token_is_not_sent(ibm, api, name, later):
    api.get_session(name)
    later(3700)
    ibm.clock.advance(3700)
    ibm.settings.token_lifetime = 3600
    assert api.get_session(name).id == name
    assert [entry.status for entry in ibm.requests("GET")] == [200, 200]


def test_a_session_outlives_its_token_many_times(ibm, api, name, later):
    for _ in range(9):
        later(3300)
        ibm.clock.advance(3300)
        api.close_session(name)
    assert {entry.status for entry in ibm.requests("DELETE")} == {204}
    assert exchanges(ibm) == 9


def test_one_early_renewal_is_in_flight(ibm, name, later):
    credentials = credentials_for(ibm)
    ask(credentials, name)
    later(3300)
    ibm.script(Fault(path=TOKEN, delay=0.2))
    assert in_threads(10, lambda: ask(credentials, name)) == [name] * 10
    assert exchanges(ibm) == 2
    old = f"Bearer {ibm.tokens[0].value}"
    assert [entry.headers["authorization"] for entry in ibm.requests("GET")].count(old) > 5


FAILED_RENEWALS = {
    "503": {"status": 503},
    "429": {"status": 429, "headers": {"Retry-After": "30"}},
    "400": {"status": 400},
    "html": {"html": True},
    "garbage": {"garbage": True},
    "empty": {"empty": True},
    "no token": {"json": {"expires_in": 3600}},
    "drop": {"drop": True},
    "too large": {"huge": 40_000_000},
}


@pytest.mark.parametrize("fault", FAILED_RENEWALS.values(), ids=FAILED_RENEWALS)
def test_a_failed_early_renewal_goes_on_with_the_old_token(ibm, connect, name, later, fault):
    """Also for a caller with one attempt and seconds to live: it has a valid token in its hand."""
    api = connect(ONE_TRY)
    api.get_session(name)
    later(3300)
    ibm.script(Fault(path=TOKEN, times=None, **fault))
    for _ in range(3):
        assert api.get_session(name).id == name
    assert exchanges(ibm) == 2
    ibm.clear_faults()
    later(70)
    api.get_session(name)
    assert exchanges(ibm) == 3


def test_a_renewal_without_iam_goes_on_with_the_old_token_after_a_retry(ibm, connect, name, later):
    api = connect(QUICK)
    api.get_session(name)
    later(3300)
    ibm.script(Fault(path=TOKEN, times=None, drop=True))
    assert api.get_session(name).id == name
    assert exchanges(ibm) == 2


# -- 401 -----------------------------------------------------------------------------------------------------


def test_a_refused_token_is_renewed_and_the_request_sent_once_more(ibm, api, name):
    api.get_session(name)
    ibm.revoke_tokens()
    assert api.create_session(backend="ibm_fez", max_ttl=60).id in ibm.sessions
    assert [entry.status for entry in ibm.requests("POST", "/v1/sessions")] == [401, 200]
    assert len(ibm.sessions) == 2
    assert exchanges(ibm) == 2


CALLS = {
    "get": lambda api: api.get_session("some-id"),
    "create": lambda api: api.create_session(backend="ibm_fez", max_ttl=60),
    "close": lambda api: api.close_session("some-id"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_401_for_ever_ends(ibm, api, call):
    ibm.script(Fault(path="/v1/*", status=401, times=None))
    with pytest.raises(AuthenticationError) as caught:
        call(api)
    assert (caught.value.status, caught.value.retryable, caught.value.sent) == (401, False, False)
    assert len(ibm.requests(path="/v1/*")) == 2
    assert exchanges(ibm) == 2


def test_what_fails_after_a_401_was_not_carried_out(ibm, connect):
    api = connect(ONE_TRY)
    api.list_backends()
    ibm.revoke_tokens()
    ibm.script(Fault(path=TOKEN, drop=True))
    with pytest.raises(TransportError) as caught:
        api.create_session(backend="ibm_fez", max_ttl=60)
    assert not caught.value.sent
    assert ibm.sessions == {}


def test_a_post_dropped_after_a_401_may_have_been_carried_out(ibm, api):
    api.list_backends()
    ibm.revoke_tokens()
    ibm.script(Fault("POST", "/v1/sessions", drop=True, phase="after", skip=1))
    with pytest.raises(OutcomeUnknownError):
        api.create_session(backend="ibm_fez", max_ttl=60)
    assert len(ibm.sessions) == 1


# -- IAM refuses, fails, or talks nonsense -------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_unknown_key_is_an_authentication_error(ibm, connect, call):
    key = "not-the-key-of-anybody-0123456789"
    with pytest.raises(AuthenticationError, match="API key could not be found") as caught:
        call(connect(api_key=key))
    error = caught.value
    assert (error.status, error.code, error.sent, error.retryable) == (400, "BXNIM0415E", False, False)
    assert key not in f"{error}{error!r}"
    assert [entry.path for entry in ibm.journal] == [TOKEN]


IAM_TROUBLE = {
    "400": ({"status": 400}, AuthenticationError),
    "403": ({"status": 403}, AuthenticationError),
    "401 in another shape": ({"status": 401, "error_shape": "message"}, AuthenticationError),
    "429": ({"status": 429, "headers": {"Retry-After": "0"}}, RateLimitedError),
    "500": ({"status": 500}, ServerError),
    "503 as text": ({"status": 503, "body": "Bad gateway"}, ServerError),
    "302": ({"status": 302, "headers": {"Location": "https://example.org/"}}, BadResponseError),
    "echo": ({"echo": True}, ServerError),
    "echo 400": ({"echo": True, "status": 400}, AuthenticationError),
    "echo 200": ({"echo": True, "status": 200}, BadResponseError),
    "html": ({"html": True}, BadResponseError),
    "html 404": ({"html": True, "status": 404}, BadResponseError),
    "garbage": ({"garbage": True}, BadResponseError),
    "truncated": ({"truncate": True, "phase": "after"}, BadResponseError),
    "cut": ({"truncate": "length", "phase": "after"}, TransportError),
    "empty": ({"empty": True}, BadResponseError),
    "204": ({"no_content": True}, BadResponseError),
    "list": ({"json": [1]}, BadResponseError),
    "null": ({"json": None}, BadResponseError),
    "no token": ({"json": {"expires_in": 3600}}, BadResponseError),
    "token of another type": ({"json": {"access_token": 7, "expires_in": 3600}}, BadResponseError),
    "token with a line break": ({"json": {"access_token": "a\r\nb", "expires_in": 3600}}, BadResponseError),
    "empty token": ({"json": {"access_token": "", "expires_in": 3600}}, BadResponseError),
    "no lifetime": ({"json": {"access_token": "x"}}, BadResponseError),
    "odd lifetime": ({"json": {"access_token": "x", "expires_in": "3600s"}}, BadResponseError),
    "negative lifetime": ({"json": {"access_token": "x", "expires_in": -5}}, BadResponseError),
    "NaN lifetime": ({"json": {"access_token": "x", "expires_in": float("nan")}}, BadResponseError),
    "infinite lifetime": ({"json": {"access_token": "x", "expires_in": float("inf")}}, BadResponseError),
    "endless lifetime": ({"json": {"access_token": "x", "expires_in": 10**400}}, BadResponseError),
    "too large": ({"huge": 50_000_000}, BadResponseError),
    "drop": ({"drop": "rst"}, TransportError),
}


@pytest.mark.parametrize(("fault", "kind"), IAM_TROUBLE.values(), ids=IAM_TROUBLE)
def test_trouble_at_iam_is_typed_and_nothing_was_sent(ibm, connect, fault, kind):
    ibm.script(Fault(path=TOKEN, times=None, **fault))
    with pytest.raises(IBMQuantumError) as caught:
        connect(ONE_TRY).create_session(backend="ibm_fez", max_ttl=60)
    assert type(caught.value) is kind
    assert not caught.value.sent
    assert_hidden(ibm, f"{caught.value}{caught.value!r}{vars(caught.value)}")
    assert {entry.path for entry in ibm.journal} == {TOKEN}
    assert exchanges(ibm) == 1


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429}, {"drop": True}, {"truncate": "length"}], ids=str
)
def test_after_passing_trouble_at_iam_even_a_post_goes_on(ibm, api, fault):
    ibm.script(Fault(path=TOKEN, times=2, **fault))
    api.create_session(backend="ibm_fez", max_ttl=60)
    assert exchanges(ibm) == 3
    assert len(ibm.sessions) == 1


def test_lasting_trouble_at_iam_ends(ibm, connect):
    ibm.script(Fault(path=TOKEN, status=503, times=None))
    with pytest.raises(ServerError):
        connect(BRIEF).list_backends()
    assert exchanges(ibm) > 1


def test_iam_that_cannot_be_reached(ibm, connect):
    with pytest.raises(TransportError) as caught:
        connect(BRIEF, iam_url=f"http://127.0.0.1:{free_port()}").create_session(
            backend="ibm_fez", max_ttl=60
        )
    assert (caught.value.sent, caught.value.retryable) == (False, True)
    assert ibm.journal == []


@pytest.mark.parametrize("place", ["code", "trace", "message", "solution"])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Oops"])
def test_wherever_iam_echoes_the_key_it_is_hidden(ibm, connect, canned, place, status):
    entry = {"code": "x", "message": "no", "trace": "x"} | {place: ibm.api_key}
    canned.reply = http({"errors": [entry], "trace": entry["trace"]}, status=status)
    with pytest.raises(IBMQuantumError) as caught:
        connect(ONE_TRY, iam_url=canned.url.removesuffix("/api")).list_backends()
    assert_hidden(ibm, f"{caught.value}{vars(caught.value)}")


def test_a_key_that_iam_echoes_in_its_form_encoding_is_hidden(ibm, connect):
    ibm.script(Fault(path=TOKEN, echo=True))
    with pytest.raises(IBMQuantumError) as caught:
        connect(ONE_TRY, api_key="secret+with/odd=letters").list_backends()
    assert "odd" not in str(caught.value)
