# SPDX-License-Identifier: Apache-2.0
"""The plain values people write: what is read, and what is refused with a word about what is allowed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ibm_sessions.client import SessionMode, SessionState
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import (
    to_seconds,
    validate_backend,
    validate_bool,
    validate_choice,
    validate_id,
    validate_seconds,
    validate_states,
)
from testing.bad_values import BAD_IDS, BAD_TTLS

ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.timedeltas()
    | st.lists(st.integers())
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1, 1),
        (28_800, 28_800),
        ("5400", 5400),
        (" 5400 ", 5400),
        ("2h 30m", 9000),
        ("2H30M", 9000),
        ("1d 2h 3m 4s", 93_784),
        ("90m", 5400),
        (timedelta(minutes=90), 5400),
        (timedelta(seconds=1.9), 1),
        (2**31 - 1, 2**31 - 1),
    ],
)
def test_lengths_of_time_are_read(value, seconds):
    assert to_seconds(value) == seconds


@pytest.mark.parametrize("value", BAD_TTLS, ids=lambda value: repr(value)[:20])
def test_a_wrong_length_of_time_is_refused(value):
    with pytest.raises(
        ConfigurationError, match=r"max_ttl must be 1 to 2147483647 seconds.*'2h 30m'"
    ) as caught:
        to_seconds(value)
    assert caught.value.field == "max_ttl"
    assert not caught.value.sent
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", ["1 30", "2h 3 0m"])
def test_digits_with_a_gap_between_them_are_no_number(value):
    with pytest.raises(ConfigurationError):
        to_seconds(value)


@pytest.mark.parametrize("value", [10**5000, -(10**5000)], ids=["huge", "hugely negative"])
def test_a_number_that_python_does_not_print_is_refused(value):
    for check in (to_seconds, validate_id):
        with pytest.raises(ConfigurationError):
            check(value)


@given(st.integers(1, 2**31 - 1))
def test_seconds_come_back_however_they_are_written(seconds):
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    for written in (seconds, str(seconds), timedelta(seconds=seconds), f"{hours}h {minutes}m {rest}s"):
        assert to_seconds(written) == seconds


@given(ANYTHING)
def test_anything_else_is_a_configuration_error(value):
    for check in (to_seconds, validate_id, validate_states, validate_backend):
        try:
            check(value)
        except ConfigurationError as error:
            assert error.field
            assert "\n" not in str(error)


@given(st.integers() | st.floats() | st.timedeltas())
def test_positive_numbers_of_seconds(value):
    try:
        assert validate_seconds(value, "timeout") > 0
    except ConfigurationError as error:
        assert error.field == "timeout"


def test_a_number_of_seconds_beyond_every_float_is_refused():
    with pytest.raises(ConfigurationError, match="timeout"):
        validate_seconds(10**400, "timeout")


@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._~-]{0,499}", fullmatch=True))
def test_an_id_comes_back_as_it_is(value):
    assert validate_id(value) == value


@pytest.mark.parametrize("value", BAD_IDS, ids=lambda value: repr(value)[:20])
def test_a_wrong_id_is_refused(value):
    with pytest.raises(ConfigurationError, match="job_id must be 1 to 500 letters, digits") as caught:
        validate_id(value, "job_id")
    assert caught.value.field == "job_id"
    assert len(str(caught.value)) < 200


def test_choices_name_what_is_allowed():
    assert validate_choice(SessionMode.BATCH, SessionMode, "mode") == "batch"
    for wrong in ("Batch", "", None, 3):
        with pytest.raises(ConfigurationError, match="mode must be one of dedicated, batch, got"):
            validate_choice(wrong, SessionMode, "mode")


def test_states_are_one_or_several():
    assert validate_states("active") == ("active",)
    assert validate_states([SessionState.CLOSED, "active", "closed"]) == ("closed", "active")
    for wrong in ([], "", "finished", ["active", "done"], None, 5, [None]):
        with pytest.raises(ConfigurationError, match=r"target_state must.*open, active, inactive, closed"):
            validate_states(wrong)


def test_booleans_are_read_as_templates_render_them():
    assert [validate_bool(each, "drain") for each in (True, "true", " True ", "FALSE", False)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    for wrong in ("yes", "", 1, 0, None):
        with pytest.raises(ConfigurationError, match="drain must be true or false"):
            validate_bool(wrong, "drain")


@pytest.mark.parametrize("wrong", ["", " ", " ibm_fez", "ibm\nfez", None, 5])
def test_a_backend_has_a_name(wrong):
    assert validate_backend("ibm_fez") == "ibm_fez"
    with pytest.raises(ConfigurationError, match="backend must be the name of a QPU"):
        validate_backend(wrong)
