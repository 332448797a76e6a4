# SPDX-License-Identifier: Apache-2.0
"""What of a task's results is sent to the browser."""

from __future__ import annotations

import json

import pytest

from airflow_provider_ibm_sessions.plugins._page.results import (
    MAX_BYTES,
    MAX_OUTCOMES,
    MAX_PUBS,
    MAX_REPORTS,
    shown_reports,
)


def report(**fields):
    return {"id": "d1", "state": "Completed", "format": "sampler", **fields}


def sampler(counts, **registers):
    registers = registers or {"meas": counts}
    return {"counts": registers, "joint_counts": counts, "num_shots": sum(counts.values())}


def test_the_most_frequent_outcomes_and_the_rest_sum_up_to_the_shots():
    counts = {f"{number:08b}": number for number in range(1, 201)}
    [shown] = shown_reports(report(results=[sampler(counts)]))["reports"]
    [pub] = shown["pubs"]
    joint = pub["joint"]
    assert len(joint["top"]) == MAX_OUTCOMES
    assert joint["top"][0] == ["11001000", 200]
    assert sum(n for _, n in joint["top"]) + joint["rest"] == joint["total"] == pub["shots"]
    assert joint["rest_outcomes"] == 200 - MAX_OUTCOMES


def test_registers_are_sent_only_where_there_are_several():
    one = shown_reports(report(results=[sampler({"0": 3})]))["reports"][0]["pubs"][0]
    assert (one["register"], "registers" in one) == ("meas", False)
    two = sampler({"01": 3}, a={"1": 3}, b={"0": 3})
    assert list(shown_reports(report(results=[two]))["reports"][0]["pubs"][0]["registers"]) == ["a", "b"]


def test_expectation_values_of_any_shape_come_in_one_row():
    pub = {"evs": [[0.5, -1], ["Infinity", 0.1]], "stds": [[0.1, 0.1], [0.1, 0.1]]}
    [shown] = shown_reports([report(format="estimator", results=[pub])])["reports"]
    assert shown["pubs"][0]["evs"] == [0.5, -1, None, 0.1]
    single = shown_reports([report(results=[{"evs": 0.5, "stds": 0.1}])])["reports"][0]["pubs"][0]
    assert (single["evs"], single["stds"]) == ([0.5], [0.1])


def angle(theta, ev, **fields):
    tags = ["run-7", f"theta={theta}"]
    return report(format="estimator", tags=tags, results=[{"evs": ev, "stds": 0.1}], **fields)


def test_one_value_for_each_job_is_a_curve_over_the_parameter_in_the_tags():
    found = shown_reports([angle(0.5, -1), angle("1e-1", -0.2)])["curve"]
    assert found["name"] == "theta"
    assert found["points"] == [{"x": 0.1, "y": -0.2, "error": 0.1}, {"x": 0.5, "y": -1, "error": 0.1}]
    same = shown_reports([angle(1, 1), angle(1, 2)])["curve"]
    assert (same["name"], [point["x"] for point in same["points"]]) == ("job", [1, 2])
    bare = report(format="estimator", results=[{"evs": 0.5}])
    assert [each["error"] for each in shown_reports([bare, bare])["curve"]["points"]] == [0, 0]


@pytest.mark.parametrize("theta", ["1e999", "-1e999", "9" * 400])
def test_a_parameter_that_is_too_large_for_a_number_is_none(theta):
    found = shown_reports([angle(theta, -1), angle(0.1, -0.2)])["curve"]
    assert (found["name"], [point["x"] for point in found["points"]]) == ("job", [1, 2])


@pytest.mark.parametrize("tags", [(["a=1", "a=2"], []), (["a=1", "a=2"], ["a=3"]), (["a=1"], [])])
def test_a_parameter_that_a_job_does_not_have_exactly_once_is_none(tags):
    jobs = [report(format="estimator", tags=each, results=[{"evs": ev}]) for ev, each in enumerate(tags)]
    assert shown_reports(jobs)["curve"]["name"] == "job"


def test_numbers_that_no_browser_reads_are_left_out():
    large = 10**400
    pub = {"evs": [large, float("nan"), 0.5]}
    [shown] = shown_reports([report(results=[pub, sampler({"0": large, "1": 3})])])["reports"]
    assert shown["pubs"][0]["evs"] == [None, None, 0.5]
    assert (shown["pubs"][1]["shots"], shown["pubs"][1]["joint"]["top"]) == (None, [["1", 3]])


@pytest.mark.parametrize(
    "other",
    [
        [],
        [report(results=[sampler({"0": 3})])],
        [report(format="estimator", results=[{"evs": [1, 2]}])],
        [report(format="estimator", results=[{"evs": 1}, {"evs": 2}])],
        [report(format="estimator", results=[{"error": "of this pub"}])],
        [report(format="estimator", results=[])],
        [report(format="estimator")],
    ],
)
def test_what_is_no_curve_is_drawn_job_by_job(other):
    assert shown_reports([angle(0.1, 1), *other])["curve"] is None


def test_reports_pubs_and_bytes_are_bounded():
    many = shown_reports([report(results=[]) for _ in range(MAX_REPORTS + 7)])
    assert (len(many["reports"]), many["left_out"]) == (MAX_REPORTS, 7)
    pubs = shown_reports([report(results=[{"evs": 1.0}] * (MAX_PUBS + 3))])["reports"][0]
    assert (len(pubs["pubs"]), pubs["pubs_left_out"]) == (MAX_PUBS, 3)
    wide = {f"{number:0127b}": 1 for number in range(100)}
    large = shown_reports([report(results=[sampler(wide)] * MAX_PUBS) for _ in range(20)])
    assert len(json.dumps(large)) <= MAX_BYTES + 100
    assert large["left_out"] == 20 - len(large["reports"]) > 0


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "text",
        [],
        {},
        [None, [], {"id": 3, "state": "x"}],
        {"id": "x"},
        {"__classname__": "os.system", "id": 1},
    ],
)
def test_what_is_no_report_is_left_out(value):
    assert shown_reports(value)["reports"] == []


@pytest.mark.parametrize(
    "pub",
    [
        {"counts": 3},
        {"counts": {"a": "x"}, "joint_counts": [[[]]]},
        {"counts": {"a": {"0": "many", "1": True}}, "joint_counts": None},
        {"counts": {"a": []}, "joint_counts": [{"0": 5}, {"0": 6}]},
        {"evs": {"a": 1}, "stds": "none"},
        {"evs": None},
        {"error": 5},
        "no pub",
    ],
)
def test_a_malformed_pub_takes_no_other_with_it(pub):
    [shown] = shown_reports([report(results=[pub, sampler({"0": 3})])])["reports"]
    assert shown["pubs"][-1]["joint"]["total"] == 3


def test_a_field_of_another_kind_is_shown_as_text():
    evil = report(error={"a": 1}, tags=[1, "<b>"], usage={"qpu_charge_time_seconds": "x", "status": []})
    [shown] = shown_reports(evil)["reports"]
    assert shown["error"] == "{'a': 1}"
    assert shown["tags"] == ["1", "<b>"]
    assert shown["qpu_seconds"] is None
    json.dumps(shown, allow_nan=False)
