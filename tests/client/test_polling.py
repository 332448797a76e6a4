# SPDX-License-Identifier: Apache-2.0
"""What a poll's answer, or its failure, means to somebody who waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ibm_sessions.client import Session
from airflow_provider_ibm_sessions.client.errors import (
    AuthenticationError,
    BadResponseError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    SessionClosedError,
    TransportError,
)
from airflow_provider_ibm_sessions.client.polling import (
    MAX_INITIAL_JITTER,
    TOLERATED_FAILURES,
    FailureTolerance,
    has_reached,
    initial_jitter,
    jittered,
)

MANY = st.floats(0.01, 10_000)


@pytest.mark.parametrize("state", ["open", "active", "inactive", "pending_closed", "hibernating", None])
def test_waiting_goes_on_in_other_states(state):
    assert not has_reached(Session(id="x", state=state), ("closed",))


@pytest.mark.parametrize(
    "targets", [("active",), ["inactive", "active"], {"active", "closed"}, frozenset({"active"})]
)
def test_a_wanted_state_ends_waiting(targets):
    assert has_reached(Session(id="x", state="active"), targets)


def test_closed_is_wanted():
    assert has_reached(Session(id="x", state="closed"), ("active", "closed"))


@pytest.mark.parametrize(
    ("reason", "told"), [("session_closed_early", "session_closed_early"), (None, "no reason")]
)
def test_a_session_that_closes_meanwhile_fails_at_once(reason, told):
    session = Session(id="the-id", state="closed", state_reason=reason)
    with pytest.raises(
        SessionClosedError, match="the-id closed while waiting for active or inactive"
    ) as caught:
        has_reached(session, ("inactive", "active"))
    assert told in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("error", [ServerError("x"), TransportError("x"), RateLimitedError("x")], ids=repr)
def test_failures_in_a_row_are_tolerated_up_to_a_number(error):
    patience = FailureTolerance()
    assert [patience.tolerates(error) for _ in range(TOLERATED_FAILURES + 2)] == (
        [True] * TOLERATED_FAILURES + [False] * 2
    )


def test_a_success_starts_the_count_again():
    patience = FailureTolerance(failures=2)
    for _ in range(5):
        assert patience.tolerates(ServerError("x"))
        assert patience.tolerates(ServerError("x"))
        patience.reset()
    assert not FailureTolerance(failures=0).tolerates(ServerError("x"))


@pytest.mark.parametrize(
    "error", [AuthenticationError("x"), NotFoundError("x"), BadResponseError("x")], ids=repr
)
def test_what_waiting_cannot_mend_is_not_tolerated(error):
    assert not FailureTolerance().tolerates(error)


def test_a_bad_certificate_is_not_waited_for():
    error = TransportError("x")
    error.retryable = False
    assert not FailureTolerance().tolerates(error)


@given(MANY)
def test_pauses_spread_but_stay_near(seconds):
    assert 0.79 * seconds <= jittered(seconds) <= 1.21 * seconds
    assert 0 <= initial_jitter(seconds) <= min(seconds, MAX_INITIAL_JITTER)


def test_a_pause_that_is_made_is_not_counted():
    patience = FailureTolerance(0, honours_retry_after=True)
    assert patience.tolerates(RateLimitedError("slowly", retry_after=7))
    assert (patience.delay, patience.count) == (7, 0)
    assert not FailureTolerance(0).tolerates(RateLimitedError("slowly", retry_after=7)), (
        "nobody makes it here"
    )


def test_a_web_page_is_passing_trouble_for_who_has_had_an_answer():
    page = BadResponseError("a web page")
    assert not FailureTolerance().tolerates(page)
    assert FailureTolerance(answered=True).tolerates(page)
    patience = FailureTolerance()
    patience.reset()
    assert patience.tolerates(page)
