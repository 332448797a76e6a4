# SPDX-License-Identifier: Apache-2.0
"""A session is opened once, and nobody else's is ever resumed: the fake's records tell."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ibm_sessions.client import IBMQuantumClient, RetryPolicy
from airflow_provider_ibm_sessions.client.errors import (
    IBMQuantumError,
    OutcomeUnknownError,
    PlanError,
    TransportError,
)
from airflow_provider_ibm_sessions.client.recovery import (
    PendingCreate,
    fingerprints,
    is_distinct,
    with_fingerprint,
)
from testing.fake_ibm import Fault
from tests.client.conftest import credentials_for, free_port

SESSIONS = "/v1/sessions"
WORKLOADS = "/v1/workloads"
TTL = 3507
OURS = {"backend": "ibm_fez", "mode": "dedicated", "max_ttl": TTL}
NOTHING = {"workloads": [], "total_count": 0, "limit": 50}
JOB = {"program_id": "sampler", "backend": "ibm_fez", "params": {"pubs": [["OPENQASM 3.0; bit[2] c;"]]}}
SHORT = RetryPolicy(max_elapsed=0.1, initial_backoff=0.01, max_backoff=0.02, list_lag=0.03)


class Looking(IBMQuantumClient):
    """A client that tells when it has looked for a session."""

    def __init__(self, *args):
        super().__init__(*args)
        self.looks = 0
        self.after = lambda number: None

    def run_flow(self, calls):
        found = super().run_flow(calls)
        self.looks += 1
        self.after(self.looks)
        return found


@pytest.fixture
def client(ibm):
    with Looking(credentials_for(ibm), SHORT) as client:
        yield client


@pytest.fixture
def pending():
    return PendingCreate(**OURS, created_after=datetime.now(UTC), has_fingerprint=True)


def not_taken(session_id):
    """Tell a create that nobody else is known to own the session."""
    return False


def find(pending, client):
    """Look for what an earlier process has asked for."""
    return pending.wait_and_find(client, not_taken, OutcomeUnknownError("Create a session"))


def post(**kind):
    return Fault("POST", SESSIONS, **kind)


def lost(**kind):
    """The session is opened, and the client does not get to know."""
    return post(phase="after", **kind)


def not_done(**kind):
    """It is not opened, which the client does not get to know either."""
    return post(**{"drop": True, **kind})


def requests_sent(ibm):
    return len(ibm.requests("POST", SESSIONS))


def facts(ibm):
    return {session.id: (session.state, session.accepting_jobs) for session in ibm.sessions.values()}


LOST = [
    {"status": 504},
    {"status": 500},
    {"drop": True},
    {"drop": "rst"},
    {"truncate": True},
    {"truncate": "length"},
    {"html": True},
    {"empty": True},
    {"no_content": True},
    {"json": {"mode": "dedicated"}},
]


@pytest.mark.parametrize("fault", LOST, ids=str)
@pytest.mark.parametrize("mode", ["dedicated", "batch"])
def test_a_session_whose_reply_was_lost_is_found(ibm, client, pending, fault, mode):
    ibm.script(lost(**fault))
    session = replace(pending, mode=mode).create(client, not_taken)
    assert list(ibm.sessions) == [session.id]
    assert session.accepts_jobs
    assert requests_sent(ibm) == 1


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 504}, {"html": True}], ids=str)
def test_what_was_not_carried_out_is_sent_again(ibm, client, pending, fault):
    ibm.script(not_done(**{"drop": False, **fault}))
    session = pending.create(client, not_taken)
    assert list(ibm.sessions) == [session.id]
    assert requests_sent(ibm) == 2


def test_what_is_never_carried_out_is_given_up_and_may_be_retried(ibm, client, pending):
    ibm.script(not_done(times=None))
    with pytest.raises(OutcomeUnknownError) as caught:
        pending.create(client, not_taken)
    assert caught.value.retryable
    assert 1 < requests_sent(ibm) < 10
    assert ibm.sessions == {}


def test_what_ibm_refuses_is_not_looked_for(ibm, client, pending):
    ibm.settings.plan = "open"
    with pytest.raises(PlanError):
        pending.create(client, not_taken)
    assert client.looks == 0


def test_what_was_never_sent_is_not_looked_for(ibm, client, pending):
    with (
        Looking(credentials_for(ibm, url=f"http://127.0.0.1:{free_port()}/api"), SHORT) as away,
        pytest.raises(TransportError),
    ):
        pending.create(away, not_taken)
    assert away.looks == 0


def test_an_answer_that_is_good_needs_no_look(ibm, client, pending):
    pending.create(client, not_taken)
    assert client.looks == 0


@pytest.mark.parametrize("looks", [1, 2])
def test_a_session_that_the_list_shows_late_is_found(ibm, client, pending, looks):
    ibm.script(lost(drop=True), Fault("GET", WORKLOADS, json=NOTHING, times=looks))
    session = pending.create(client, not_taken)
    assert client.looks > looks
    assert list(ibm.sessions) == [session.id]


@pytest.mark.parametrize("refusal", [{"status": 429, "times": None}, {"status": 403}], ids=str)
def test_a_refusal_does_not_make_it_forget_a_session_that_shows_even_later(ibm, client, pending, refusal):
    ibm.script(lost(drop=True), post(**refusal), Fault("GET", WORKLOADS, json=NOTHING, times=None))
    with pytest.raises(OutcomeUnknownError) as caught:
        pending.create(client, not_taken)
    assert caught.value.retryable
    ibm.clear_faults()
    assert [find(pending, client).id] == list(ibm.sessions)


def test_a_retry_finds_what_an_earlier_try_has_sent(ibm, client, pending):
    pending.create(client, not_taken)
    ibm.clock.advance(120)
    found = find(PendingCreate.from_json(pending.to_json()), client)
    assert found.id in ibm.sessions
    assert requests_sent(ibm) == 1


class TestWhoIsNotSureTakesNothing:
    def test_of_two_that_may_be_its_own(self, ibm, client, pending):
        planted = [ibm.add_session(max_ttl=TTL).id for _ in range(2)]
        before = facts(ibm)
        ibm.script(not_done())
        with pytest.raises(OutcomeUnknownError) as caught:
            pending.create(client, not_taken)
        assert sorted(caught.value.candidates) == sorted(planted)
        assert all(name in str(caught.value) for name in planted)
        assert facts(ibm) == before

    def test_without_a_fingerprint_of_its_own(self, ibm, client, pending):
        ibm.script(lost(drop=True))
        with pytest.raises(OutcomeUnknownError) as caught:
            replace(pending, has_fingerprint=False).create(client, not_taken)
        assert list(caught.value.candidates) == list(ibm.sessions)
        assert list(facts(ibm).values()) == [("open", True)]

    def test_yet_without_a_fingerprint_it_opens_one_where_there_is_none(self, ibm, client, pending):
        ibm.script(not_done())
        session = replace(pending, has_fingerprint=False).create(client, not_taken)
        assert list(ibm.sessions) == [session.id]


OTHERS = {
    "other max_ttl": {"max_ttl": TTL - 1},
    "other mode": {"mode": "batch"},
    "other backend": {"backend": "ibm_torino"},
    "other user": {"user": "somebody"},
    "older than the wish": {"age": 3600},
    "closed": {"state": "closed"},
    "draining": {"accepting_jobs": False},
}


class TestAnothersSession:
    """It is left alone, though it is there just when ours is looked for."""

    @pytest.mark.parametrize("what", OTHERS)
    def test_that_differs(self, ibm, client, pending, what):
        other = ibm.add_session(**{"max_ttl": TTL, **OTHERS[what]}).id
        before = facts(ibm)
        ibm.script(not_done())
        session = pending.create(client, not_taken)
        assert session.id != other
        assert facts(ibm) == before | {session.id: ("open", True)}

    def test_that_is_known_as_such(self, ibm, client, pending):
        other = ibm.add_session(max_ttl=TTL, age=1).id
        ibm.script(not_done())
        assert pending.create(client, lambda name: name == other).id != other
        assert len(ibm.sessions) == 2

    @pytest.mark.parametrize("ended", [False, True])
    def test_that_has_had_a_job(self, ibm, client, pending, ended):
        other = ibm.add_session(max_ttl=TTL, age=1).id
        client.submit_job(**JOB, session_id=other)
        if ended:
            ibm.clock.advance(10)
            assert ibm.state()["jobs"] == {"Completed": 1}
        ibm.script(not_done())
        assert pending.create(client, not_taken).id != other
        assert len(ibm.sessions) == 2

    def test_that_gets_its_first_job_while_we_settle(self, ibm, client, pending):
        other = ibm.add_session(max_ttl=TTL, age=1).id

        def first_job(number):
            if number == 1:
                client.submit_job(**JOB, session_id=other)

        client.after = first_job
        ibm.script(not_done())
        assert pending.create(client, not_taken).id != other
        assert client.looks > 1

    def test_that_is_closed_while_we_settle(self, ibm, client, pending):
        other = ibm.add_session(max_ttl=TTL, age=1).id
        client.after = lambda number: client.close_session(other) if number == 1 else None
        ibm.script(not_done())
        assert pending.create(client, not_taken).id != other

    def test_that_ibm_has_forgotten_since_it_was_listed(self, ibm, client, pending):
        ibm.add_session(max_ttl=TTL, age=1)
        ibm.script(not_done(), Fault("GET", f"{SESSIONS}/*", status=404, times=None))
        assert pending.create(client, not_taken).id in ibm.sessions
        assert requests_sent(ibm) == 2


BARRED = [
    Fault("GET", WORKLOADS, status=403, times=None),
    Fault("GET", WORKLOADS, status=500, times=None),
    Fault("GET", WORKLOADS, html=True, times=None),
    Fault("GET", f"{SESSIONS}/*", status=503, times=None),
    Fault("GET", "/v1/jobs", drop=True, times=None),
]


class TestWhoCannotLook:
    @pytest.mark.parametrize("barred", BARRED, ids=lambda fault: f"{fault.path} {fault}")
    def test_does_not_send_again_and_may_look_later(self, ibm, client, pending, barred):
        ibm.script(lost(drop=True), barred)
        with pytest.raises(OutcomeUnknownError) as caught:
            pending.create(client, not_taken)
        assert caught.value.retryable
        assert isinstance(caught.value.__cause__, IBMQuantumError)
        assert requests_sent(ibm) == 1
        ibm.clear_faults()
        assert find(pending, client).id in ibm.sessions

    def test_a_single_failed_look_is_made_again(self, ibm, client, pending):
        ibm.script(lost(drop=True), Fault("GET", WORKLOADS, status=503))
        assert pending.create(client, not_taken).id in ibm.sessions
        assert requests_sent(ibm) == 1


@given(asked=st.integers(1, 30_000), fingerprint=st.integers(0, 2**32))
def test_a_fingerprint_costs_something_and_a_sixteenth_and_256_seconds_at_most(asked, fingerprint):
    assert asked - max(1, min(256, asked / 16)) <= with_fingerprint(asked, fingerprint) < asked
    assert asked - with_fingerprint(asked, fingerprint) <= fingerprints(asked)


@pytest.mark.parametrize("asked", [320, 630, 650, 1290, 5130, 28800])
def test_fingerprints_tell_owners_apart_though_they_ask_for_a_little_more_or_less(asked):
    count = sum(is_distinct(asked, place) for place in range(300))
    ours = [with_fingerprint(asked, 7 + place) for place in range(count)]
    assert len(set(ours)) == count
    for other in range(max(1, asked - 300), asked + 300):
        theirs = {with_fingerprint(other, 7 + place): place for place in range(count)}
        alike = [mine for place, mine in enumerate(ours) if theirs.get(mine, place) != place]
        assert alike == [], f"one who asks for {other} s"


def test_there_are_fingerprints_for_many_tasks():
    assert is_distinct(600, 15)
    assert is_distinct(3600, 99)
    assert is_distinct(28800, 199)


def test_where_there_are_few_fingerprints_strangers_might_have_the_same():
    assert not is_distinct(240, 0)


def test_twenty_at_once_with_lost_replies_have_a_session_each(ibm):
    """Half of the first requests are carried out, and none is answered."""
    ibm.script(lost(drop=True, times=10), not_done(times=10))
    now = datetime.now(UTC) - timedelta(seconds=1)
    patient = RetryPolicy(max_elapsed=10.0, initial_backoff=0.01, max_backoff=0.1, list_lag=0.5)

    def open_one(number):
        with Looking(credentials_for(ibm, timeout=20), patient) as client:
            pending = PendingCreate("ibm_fez", "dedicated", TTL - number, now, has_fingerprint=True)
            return pending.create(client, not_taken).id

    with ThreadPoolExecutor(20) as pool:
        owned = list(pool.map(open_one, range(20)))
    assert len(set(owned)) == 20
    assert {ibm.sessions[name].max_ttl for name in owned} == {TTL - number for number in range(20)}
    assert sorted(ibm.state()["accepting"]) == sorted(owned)
    assert requests_sent(ibm) == 30
