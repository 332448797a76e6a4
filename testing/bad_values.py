# SPDX-License-Identifier: Apache-2.0
"""Wrong values of the arguments of this package, by the name of the argument."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, Final

BAD_IDS = [
    "../x",
    "a/b",
    "a b",
    "a\n",
    "a?b",
    "a#b",
    "a%2fb",
    "x" * 501,
    "ид",
    "٣",
    "..",
    ".",
    "~",
    7,
]
BAD_TTLS = [
    0,
    -1,
    True,
    False,
    "2 fortnights",
    "",
    " ",
    "0",
    "-5",
    "1h 30",
    "30m 1h",
    "1.5h",
    3600.5,
    float("nan"),
    float("inf"),
    None,
    [],
]
BAD_TTLS += [
    "٣",
    "1e3",
    "0x10",
    2**31,
    10**30,
    "9" * 5000,
    "99999d",
    timedelta(0),
    timedelta(days=-1),
    timedelta.max,
]

UNPRINTABLE = ["\x00x", "a\nb", "\x1b[0m"]
"""Strings with NUL, a line break and an escape sequence of terminals."""

_NAMES = ["", "None", "two words", "a/b", *UNPRINTABLE, True, 5, []]
_IDS = ["", "None", "../x", "x" * 501, *UNPRINTABLE, True, 7]
_CHOICES = ["", "nosuch", "None", *UNPRINTABLE, True, 5, []]
_FLAGS = [None, "", "yes", 0, 1, 1.0, [], *UNPRINTABLE]
_SECONDS = [None, True, False, "soon", "5", -1, float("nan"), float("inf"), timedelta(days=-1), []]
_TIMES = [datetime(2026, 4, 15, 12), date(2026, 4, 15), "2026-04-15T12:00:00", "2026-04-15", 5, True]  # noqa: DTZ001
_TAGS = ["one", 5, True, {"a": 1}, [""], [True], ["x" * 87], *([each] for each in UNPRINTABLE)]
_DURATIONS = [0, True, "soon", "", 3600.5, float("nan"), 2**31, "٣", timedelta(0), []]
_PATHS = ["", "None", "s3://conn@bucket/None", "nosuch://x", *UNPRINTABLE, True, 5]
_STRINGS = ["", "x" * 101, *UNPRINTABLE, True, []]
_RATES = [-1, 1.5, True, "soon", "", float("nan"), []]
_PARAMS = [5, True, [], "{", {1: 2}, {"pubs": []}, {"pubs": [[None]]}, {"pubs": [["x", float("nan")]]}]

BAD_ARGUMENTS: Final[dict[str, list[Any]]] = {
    "accepting_jobs": _FLAGS,
    "among": ["", "None", [], {}, [""], ["two words"], [5], True, 5, *UNPRINTABLE],
    "backend": _NAMES,
    "calibration_id": _STRINGS,
    "cancel_on_kill": _FLAGS,
    "cost": [-1, True, "soon", 1.5, 10_801, "4h", [], float("nan"), timedelta(days=1)],
    "created_after": _TIMES,
    "created_before": _TIMES,
    "dag_run_scoped": _FLAGS,
    "deferrable": _FLAGS,
    "drain": _FLAGS,
    "dry_run": _FLAGS,
    "exclude": ["", "None", {}, [""], ["two words"], [5], True, 5, *UNPRINTABLE],
    "exclude_params": ["yes", 1, "\x00x"],
    "ibm_quantum_conn_id": ["", "None", None, "x" * 251, *UNPRINTABLE, True, 5],
    "job_id": _IDS,
    "job_ids": ["", "None", "a-job", [], {}, [""], ["a/b"], ["\x00x"], [5], True, 5],
    "job_retries": [-1, True, "5", 1.5, None, 101, float("nan")],
    "jobs": ["", "None", "{", 5, True, [], {}, [5], [{}], [{"program_id": "sampler", "params": {}}]],
    "least": [*_SECONDS, 0],
    "limit": [0, -1, 10**9, True, "5", 1.5, []],
    "log_level": _CHOICES,
    "max_age": [each for each in _SECONDS if each is not None],
    "max_estimate": _DURATIONS,
    "max_queue_length": [-1, True, "soon", "", 1.5, float("nan"), []],
    "max_readout_error": _RATES,
    "max_ttl": _DURATIONS,
    "max_two_q_error": _RATES,
    "max_wait": _DURATIONS,
    "min_age": [*_DURATIONS, None],
    "min_qubits": [0, -1, True, "soon", "", 1.5, float("nan"), []],
    "min_usage_remaining": _DURATIONS,
    "mode": _CHOICES,
    "name": _NAMES,
    "offset": [-1, True, "5", 1.5, [], 2**31, 10**5000],
    "on_clear": [*_CHOICES, None],
    "on_job_failure": [*_CHOICES, None],
    "on_low_usage": [*_CHOICES, None],
    "order_by": _CHOICES,
    "owns_session": _FLAGS,
    "params": _PARAMS,
    "pending": ["yes", 1, [], "\x00x"],
    "poke_interval": [*_SECONDS, 0],
    "poll_interval": [*_SECONDS, 0],
    "private": ["", "yes", 0, 1, [], *UNPRINTABLE],
    "processor_family": _STRINGS,
    "program": _NAMES,
    "program_id": _NAMES,
    "program_params": ["", "None", *_PARAMS],
    "provenance_path": _PATHS,
    "raw": _FLAGS,
    "results": [*_CHOICES, None],
    "results_path": _PATHS,
    "results_threshold": [0, -1, True, "5", 1.5, None, float("nan")],
    "retry_on": [
        "",
        "9999",
        9999,
        None,
        True,
        [],
        [True],
        ["soon"],
        [999],
        [10_000],
        [1.5],
        ["٩٩٩٩"],
        {},
    ],
    "scope": [*_CHOICES, None],
    "search": ["", "x" * 501, *UNPRINTABLE, True, []],
    "session_id": _IDS,
    "settle_seconds": _SECONDS,
    "settle_usage": _DURATIONS,
    "sort": _CHOICES,
    "status": [["done"], [""], 5, "pending"],
    "tag": ["", "x" * 87, None, True, [], *UNPRINTABLE],
    "tags": _TAGS,
    "target_state": ["", "finished", [], ["active", "done"], None, *UNPRINTABLE, True, 5],
    "target_states": ["", "finished", [], ["active", "done"], None, *UNPRINTABLE, True, 5],
    "timeout": _SECONDS,
    "updated_before": _TIMES,
    "use_fractional_gates": [each for each in _FLAGS if each is not None],
    "user": ["somebody", "", True, *UNPRINTABLE],
    "verbose": _FLAGS,
    "wait": _FLAGS,
    "wait_for_completion": _FLAGS,
    "wait_times": _FLAGS,
}
"""Of each argument, values that are refused before anything is sent, in an error that names it."""

GOOD_ARGUMENTS: Final[dict[str, Any]] = {
    "accepting_jobs": False,
    "backend": "ibm_fez",
    "job_id": "a-job",
    "jobs": [{"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0;"]]}}],
    "least": 60.0,
    "params": {"pubs": [["OPENQASM 3.0;"]]},
    "program_id": "sampler",
    "program_params": {"pubs": [["OPENQASM 3.0;"]]},
    "name": "ibm_fez",
    "session_id": "a-session",
    "tag": "a-tag",
    "tags": ["a-tag"],
}
"""A value for each argument that has no default."""

GOOD_TRIGGER_ARGUMENTS: Final[dict[str, Any]] = {
    "end_time": 1e9,
    "poll_interval": 5.0,
    "ibm_quantum_conn_id": "c",
    "session_id": "a-session",
    "target_states": ["closed"],
    "requirements": {},
    "least": 60,
    "backend": "ibm_fez",
    "tags": ["a-tag"],
}
"""A value for each argument of a trigger that has no default, and for some that exclude each other."""
