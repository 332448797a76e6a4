# SPDX-License-Identifier: Apache-2.0
"""The plain values people write: what is read, and what is refused with a word about what is allowed."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum, StrEnum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ibm_sessions.client import SessionMode, SessionState
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import (
    short_repr,
    to_seconds,
    validate_backend,
    validate_bool,
    validate_choice,
    validate_conn_id,
    validate_datetime,
    validate_id,
    validate_int,
    validate_jobs,
    validate_params,
    validate_path,
    validate_program_id,
    validate_seconds,
    validate_states,
    validate_string,
    validate_tags,
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
        (timedelta(hours=1).total_seconds(), 3600),
        (np.int64(90), 90),
        (np.float64(90.0), 90),
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
    for check in (
        to_seconds,
        validate_id,
        validate_states,
        validate_backend,
        validate_conn_id,
        validate_jobs,
        validate_params,
        validate_path,
        validate_program_id,
        validate_tags,
    ):
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


@pytest.mark.parametrize("wrong", [" ibm_fez", "ibm\nfez", "ibm fez", 5, True])
def test_a_backend_has_a_name(wrong):
    assert validate_backend("ibm_fez") == "ibm_fez"
    with pytest.raises(ConfigurationError, match="backend must be the name of a QPU"):
        validate_backend(wrong)


# -- kind: a template that rendered to nothing ---------------------------------------------------------------


@pytest.mark.parametrize("check", [validate_id, validate_backend, validate_program_id, validate_conn_id])
@pytest.mark.parametrize("value", [None, "", " ", "None", "null"])
def test_what_a_template_renders_without_a_value_is_refused_with_its_likely_cause(check, value):
    with pytest.raises(
        ConfigurationError, match=r"^here is empty \(got .*rendered to nothing.*xcom_pull"
    ) as caught:
        check(value, "here")
    assert caught.value.field == "here"
    assert "rendered to nothing" in str(caught.value)[:100]


@pytest.mark.parametrize("value", [None, "", "None", "s3://conn@bucket/None", "./None/results", "a/None/"])
def test_a_folder_that_a_template_rendered_to_nothing_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"results_path is empty.*rendered to nothing"):
        validate_path(value)


# -- kind: natural types -------------------------------------------------------------------------------------


class Named(str, Enum):  # noqa: UP042  what people write; its str() is "Named.ONE"
    ONE = "one"
    FEZ = "ibm_fez"
    BATCH = "batch"


class Text(StrEnum):
    ONE = "one"


def test_string_enums_are_their_values():
    assert type(validate_conn_id(Named.ONE)) is str
    assert [validate_conn_id(Named.ONE), validate_conn_id(Text.ONE)] == ["one", "one"]
    assert [validate_id(Named.ONE), validate_backend(Named.FEZ)] == ["one", "ibm_fez"]
    assert validate_choice(Named.BATCH, SessionMode, "mode") == "batch"
    assert str(validate_choice(Named.BATCH, SessionMode, "mode")) == "batch"


def test_durations_as_numpy_and_timedelta_write_them():
    assert validate_seconds(np.float32(1.5), "timeout") == 1.5
    assert validate_seconds(np.int64(7), "timeout") == 7.0
    assert validate_seconds(timedelta(minutes=1).total_seconds(), "timeout") == 60.0
    assert [validate_int(each, "limit") for each in (3, 3.0, np.int8(3), np.float64(3))] == [3] * 4
    assert validate_bool(np.True_, "drain") is True


@pytest.mark.parametrize(
    "value",
    [True, False, "3", 2.5, -1, 101, None, [], float("nan"), np.True_, 10**400, np.timedelta64(5, "s")],
)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ConfigurationError, match="limit must be a whole number from 0 to 100, got"):
        validate_int(value, "limit", at_most=100)


@pytest.mark.parametrize(
    "value", [True, False, "30", "1e3", np.True_, None, [], b"1", np.timedelta64(5, "s")]
)
def test_booleans_and_strings_are_no_numbers_of_seconds(value):
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds"):
        validate_seconds(value, "timeout")


def test_params_are_plain_values():
    circuit = "OPENQASM 3.0;"
    params = {
        "pubs": ((circuit, np.array([[0.5, 1.5]]), np.int64(100)),),
        "options": {Named.ONE: Named.FEZ, "twirl": np.True_, "shots": np.float64(4)},
        "none": None,
    }
    expected = {
        "pubs": [[circuit, [[0.5, 1.5]], 100]],
        "options": {"one": "ibm_fez", "twirl": True, "shots": 4.0},
        "none": None,
    }
    assert validate_params(params) == expected
    assert json.loads(json.dumps(validate_params(params))) == expected
    assert validate_params(json.dumps(expected)) == expected


@pytest.mark.parametrize(
    "value", ["{'pubs': []}", "[1]", "[", "5", 5, None, [("a", 1)], "None", "", "[" * 100_000, {1: 2}]
)
def test_wrong_params_are_refused(value):
    with pytest.raises(ConfigurationError, match="program_params") as caught:
        validate_params(value)
    assert caught.value.field == "program_params"
    assert len(str(caught.value)) < 250


def test_params_nested_without_end_are_refused():
    deep: dict = {}
    deep["pubs"] = deep
    with pytest.raises(ConfigurationError, match="program_params is nested deeper than 200 levels"):
        validate_params(deep)


def test_jobs_are_a_list_or_its_json():
    jobs = [{"program_id": "sampler", "params": {"pubs": [["x"]]}}]
    assert validate_jobs(jobs) == validate_jobs(tuple(jobs)) == validate_jobs(json.dumps(jobs)) == jobs
    for wrong in ([], "[]", "{}", {}, None, 5, "None", "[{'a': 1}]", set(), b"[]"):
        with pytest.raises(ConfigurationError, match=r"^jobs (must be|is empty)"):
            validate_jobs(wrong)
    with pytest.raises(ConfigurationError, match=r"^jobs\[1\] must be a mapping") as caught:
        validate_jobs([{}, "x"])
    assert caught.value.field == "jobs[1]"


def test_tags_may_be_what_native_rendering_makes_of_them():
    day = date(2026, 4, 15)
    assert validate_tags(["a", 7, 1.5, day, Named.ONE]) == ["a", "7", "1.5", "2026-04-15", "one"]
    assert validate_tags('["a", 7]') == ["a", "7"]
    assert validate_tags(np.array([1, 2])) == ["1", "2"]
    assert validate_tags(None) == validate_tags(()) == []


@pytest.mark.parametrize(
    "value",
    ["a", "a,b", 5, {"a": 1}, ["a"] * 9, [True], [None], [""], ["x" * 87], ["a\nb"], ["a\x00"], [[]], b"ab"],
)
def test_wrong_tags_are_refused(value):
    with pytest.raises(ConfigurationError, match=r"^tags") as caught:
        validate_tags(value)
    assert caught.value.field.startswith("tags")


def test_a_calibration_id_may_be_a_number_or_a_date():
    some = uuid.uuid4()
    moment = datetime(2026, 4, 15, 12, tzinfo=UTC)
    for value in ("abc", 7, 7.5, date(2026, 4, 15), moment, some):
        expected = value.isoformat() if isinstance(value, date) else str(value)
        assert validate_string(value, "calibration_id") == expected
    for wrong in ("", None, True, "x" * 101, "a\nb", "a\x1b[0m", 10**5000, [], b"abc"):
        with pytest.raises(ConfigurationError, match="calibration_id must be a string of 1 to 100"):
            validate_string(wrong, "calibration_id")


def test_paths_may_be_objects():
    from airflow.sdk import ObjectStoragePath

    assert validate_path(ObjectStoragePath("file:///tmp/results")) == "file:///tmp/results"
    assert validate_path(Path("/tmp/results")) == "/tmp/results"
    assert validate_path("s3://conn@bucket/folder") == "s3://conn@bucket/folder"
    for wrong in (5, b"/tmp", "a\x00b", "a\nb", True, ["a"]):
        with pytest.raises(ConfigurationError, match="results_path must be a path such as"):
            validate_path(wrong)


# -- kind: times without a zone ------------------------------------------------------------------------------


def test_times_are_read_with_their_zone():
    noon = datetime(2026, 4, 15, 12, tzinfo=UTC)
    east = datetime(2026, 4, 15, 14, tzinfo=timezone(timedelta(hours=2)))
    for value in (noon, east, noon.isoformat(), "2026-04-15T12:00:00Z", " 2026-04-15 14:00+02:00 "):
        assert validate_datetime(value, "created_after") == noon
        assert validate_datetime(value, "created_after").utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 4, 15),  # noqa: DTZ001
        date(2026, 4, 15),
        "2026-04-15",
        "2026-04-15T12:00:00",
        "yesterday",
        1_776_254_400,
        True,
        None,
        "",
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
    ],
)
def test_a_time_without_a_zone_is_refused(value):
    with pytest.raises(ConfigurationError, match="created_after must be a time with a time zone") as caught:
        validate_datetime(value, "created_after")
    assert caught.value.field == "created_after"


# -- kind: secrets in the wrong field ------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["{}", " {}", "https://{}/api", "{}!", "a.{}", "\n{}\n"])
def test_what_is_as_long_as_an_api_key_is_not_shown(around):
    key = "Zm9vYmFyYmF6_not-a-real-key-0123456789abcdef"
    value = around.format(key)
    for each in (value, [value], {"a": value}, {value: 1}, value.encode(), (value,) * 3):
        assert key not in short_repr(each)
        assert key[:20] not in short_repr(each)
    for check in (validate_id, validate_backend, validate_bool, to_seconds):
        try:
            check(f"{value}/", "field")
        except ConfigurationError as error:
            assert key[:20] not in str(error)


class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")


def test_a_wrong_value_of_any_kind_is_shown_in_a_line():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    for value in (Broken(), deep, [Broken()], 10**5000, "a\nb" * 100, b"\n" * 100, object()):
        assert len(short_repr(value)) < 90
        assert "\n" not in short_repr(value)
