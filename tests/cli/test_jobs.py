# SPDX-License-Identifier: Apache-2.0
"""The commands on jobs and QPUs, as a person and as a script use them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_provider_ibm_sessions.cli.histogram import histogram
from airflow_provider_ibm_sessions.cli.main import FAILED, REFUSED, WRONG
from airflow_provider_ibm_sessions.client import IBMQuantumClient
from testing.fake_ibm import Fault
from testing.fake_ibm.devices import devices_in_all_states
from testing.result_payloads import sampled
from tests.client.conftest import QUICK, credentials_for
from tests.server.conftest import until

CIRCUIT = "OPENQASM 3.0; bit[1] c; c[0] = measure $0;"


def register(bits, *samples):
    return {"samples": [hex(int(sample, 2)) for sample in samples], "num_bits": bits}


@pytest.fixture
def submit(ibm):
    """Submit a job that ends at once: ``submit(outcome, field=...)``; returns its id."""
    ibm.settings.job_seconds = 0.0

    def submit(outcome=None, *, ends=True, **fields):
        ibm.next_jobs([outcome or {}])
        with IBMQuantumClient(credentials_for(ibm), QUICK) as client:
            params = {"pubs": [[CIRCUIT, None, 4]]}
            name = client.submit_job("sampler", backend="ibm_fez", params=params, **fields).id
        if ends:
            until(lambda: ibm.jobs[name].final)
        return name

    return submit


def listed(run, *options):
    code, out, err = run("jobs", *options, "--json")
    assert (code, err) == (0, "")
    return [job["id"] for job in json.loads(out)]


def test_jobs_are_listed_the_newest_first(ibm, run, submit):
    session = ibm.add_session().id
    first = submit(tags=["night", "calibration"])
    second = submit({"status": "Failed", "reason_code": 1517}, session_id=session, tags=["night"])
    third = submit({"queue_seconds": 3600.0}, ends=False)
    code, out, err = run("jobs")
    assert (code, err) == (0, "")
    heading, *rows = [line.split() for line in out.splitlines()]
    assert heading[:4] == ["id", "state", "program_id", "backend"]
    assert [row[:3] for row in rows] == [
        [third, "Queued", "sampler"],
        [second, "Failed", "sampler"],
        [first, "Completed", "sampler"],
    ]
    assert rows[1][4] == session
    assert rows[1][-2:] == ["1517", "night"]
    assert listed(run, "--session", session) == [second]
    assert listed(run, "--tag", "night") == [second, first]
    assert listed(run, "--tag", "night", "--tag", "calibration") == [first]
    assert listed(run, "--pending") == [third]
    code, out, err = run("jobs", "--limit", "2", "--json")
    assert [job["id"] for job in json.loads(out)] == [third, second]
    assert "more than these 2" in err


def test_jobs_of_an_unknown_session_are_an_error(ibm, run):
    """IBM lists none, as it does of a session without jobs."""
    assert listed(run, "--session", ibm.add_session().id) == []
    code, out, err = run("jobs", "--session", "unknown")
    assert (code, out) == (REFUSED, "")
    assert "Session not found" in err


def test_counts_are_a_histogram_over_all_registers(run, submit):
    raw = sampled(a=register(1, "0", "1", "1", "1"), b=register(2, "00", "10", "10", "10"))
    name = submit({"results": raw})
    code, out, err = run("results", name)
    assert (code, err) == (0, "")
    heading, *bars = out.splitlines()
    assert heading == "Pub 0: 4 shots, registers b a, from left to right"
    assert [line.split() for line in bars] == [
        ["000", "█" * 13, "1", "25.0", "%"],
        ["101", "█" * 40, "3", "75.0", "%"],
    ]
    _, out, _ = run("results", name, "--by-register")
    assert re.findall("Pub 0: .*", out) == ["Pub 0: 4 shots, register a", "Pub 0: 4 shots, register b"]
    _, out, _ = run("results", name, "--top", "1")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["101", "1"]
    code, out, _ = run("results", name, "--json")
    found = json.loads(out)
    assert (found["id"], found["format"]) == (name, "sampler")
    assert found["results"][0]["joint_counts"] == {"000": 1, "101": 3}
    code, out, _ = run("results", name, "--raw")
    assert (code, json.loads(out)) == (0, raw)


def test_each_point_of_a_sweep_has_a_histogram(run, submit):
    cells = [register(1, *text)["samples"] for text in ("000", "001")] * 10
    _, out, _ = run("results", submit({"results": sampled(c={"samples": [cells], "num_bits": 1})}))
    headings = re.findall("Pub 0.*", out)
    assert headings[:2] == [
        "Pub 0, point [0, 0]: 3 shots, register c",
        "Pub 0, point [0, 1]: 3 shots, register c",
    ]
    assert headings[-1] == "Pub 0: 4 more points; see --json"


def test_expectation_values_are_a_table(run, submit):
    pubs = [
        {"data": {"evs": 0.25, "stds": 0.0125}, "metadata": {}},
        {"data": {"evs": [[0.5, -1]], "stds": [[0.1, 0.2]]}, "metadata": {}},
    ]
    code, out, err = run("results", submit({"results": {"results": pubs}}))
    assert (code, err) == (0, "")
    assert [line.split() for line in out.replace("[0, ", "[0,").splitlines()] == [
        ["pub", "point", "evs", "stds"],
        ["0", "-", "0.25", "0.0125"],
        ["1", "[0,0]", "0.5", "0.1"],
        ["1", "[0,1]", "-1", "0.2"],
    ]


def test_an_unreadable_pub_takes_no_other_with_it(run, submit):
    raw = sampled(c=register(1, "1"))
    raw["results"].append({"data": {"c": {"samples": ["zz"]}}})
    code, out, err = run("results", submit({"results": raw}))
    assert code == 0
    assert "Pub 1: unreadable" in out
    assert "100.0 %" in out
    assert "unreadable; see --raw: pub 1: register c" in err


def test_results_of_other_programs_are_json(run, submit):
    raw = {"schema_version": "v1.0", "data": []}
    code, out, err = run("results", submit({"results": raw}))
    assert (code, json.loads(out)) == (0, raw)
    assert "printed as JSON" in err


def test_a_job_without_results_says_why(ibm, run, submit):
    queued = submit({"queue_seconds": 3600.0}, ends=False)
    failed = submit({"status": "Failed", "reason": "No", "reason_code": 1517})
    for name, told in (
        (queued, "is Queued: it has no results yet"),
        (failed, "Failed. Transpile the circuits"),
    ):
        code, out, err = run("results", name)
        assert (code, out) == (REFUSED, "")
        assert f"Job {name}" in err[:100]
        assert told in err
    lost = submit()
    ibm.script(Fault("GET", "/v1/jobs/*/results", no_content=True))
    code, _, err = run("results", lost)
    assert code == REFUSED
    assert f"Job {lost} is completed, but IBM has no results" in err


def test_results_that_can_be_read_once_are_not_lost(ibm, run, submit):
    name = submit({"results": sampled(c=register(1, "1"))}, private=True)
    code, out, err = run("results", name)
    assert (code, out) == (WRONG, "")
    assert "private" in err[:100]
    assert ibm.requests(path="/v1/jobs/*/results") == []
    code, out, _ = run("results", name, "--json")
    assert (code, json.loads(out)["results"][0]["counts"]) == (0, {"c": {"1": 1}})
    code, _, err = run("results", name, "--json")
    assert code == REFUSED
    assert "private, and they were read before" in err


def test_results_that_can_be_read_once_survive_a_full_disk(run, submit, tmp_path, monkeypatch):
    name = submit({"results": sampled(c=register(1, "1"))}, private=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        code, _, err = run("results", name, "--raw")
    assert code == FAILED
    kept = Path(re.search(rf"private job {name} are in (\S+):", err)[1])
    assert kept.parent == tmp_path
    assert json.loads(kept.read_text())["results"][0]["data"]["c"]["samples"] == ["0x1"]


def test_jobs_are_cancelled_one_by_one(ibm, run, submit):
    first, second = (submit({"queue_seconds": 3600.0}, ends=False) for _ in range(2))
    over = submit()
    code, out, err = run("cancel", first, "unknown", over, second, "--json")
    assert code == REFUSED
    assert [(row["id"], row["state"], row["cancelled"]) for row in json.loads(out)] == [
        (first, "Cancelled", True),
        ("unknown", None, False),
        (over, "Completed", False),
        (second, "Cancelled", True),
    ]
    assert "Job unknown: " in err
    assert f"Job {over} was Completed already" in err
    assert [ibm.jobs[name].status for name in (first, second)] == ["Cancelled"] * 2


def test_backends_are_a_table(ibm, run):
    ibm.settings.backends = devices_in_all_states()
    code, out, err = run("backends")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert rows.pop("name").split() == [
        *("name", "state", "qubits", "queue_length", "wait_time", "two_q_error", "readout_error")
    ]
    assert list(rows) == sorted(ibm.settings.backends)
    assert rows["ibm_fez"].split()[1:4] == ["online", "156", "12"]
    assert "1h 30m" in rows["ibm_fez"]
    assert "paused (calibration)" in rows["ibm_torino"]
    found = {each["name"]: each for each in json.loads(run("backends", "--json")[1])}
    assert found["ibm_fez"]["wait_time"] == 5400
    assert found["ibm_marrakesh"]["wait_time"] is None


def test_a_histogram_shows_the_most_frequent_outcomes_and_the_sum_of_the_rest():
    counts = {f"{number:02b}": count for number, count in enumerate([1, 60, 9, 30])}
    lines = list(histogram(counts, most=2, columns=40, block="#"))
    assert [line.split() for line in lines] == [
        ["01", "#" * 20, "60", "60.0", "%"],
        ["11", "#" * 10, "30", "30.0", "%"],
        ["2", "more", "10", "10.0", "%"],
    ]
    assert {len(line) for line in lines} == {40}
    assert list(histogram({})) == []
