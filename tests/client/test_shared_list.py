# SPDX-License-Identifier: Apache-2.0
"""Reading a long list: whole, and in few requests that follow each other."""

from __future__ import annotations

import asyncio
import dataclasses
import re

import pytest

from airflow_provider_ibm_sessions.client import shared_list
from airflow_provider_ibm_sessions.client.shared_list import Listing, ListReader
from airflow_provider_ibm_sessions.emulator.service.workloads import Workloads
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from testing.dag_tasks import sampler_job
from testing.fake_ibm import Fault, Outcome

pytestmark = pytest.mark.usefixtures("connection", "airflow_db")

PER_PAGE = 50
IN_SEQUENCE = PER_PAGE - 10


@pytest.fixture(autouse=True)
def short_sequences(monkeypatch):
    monkeypatch.setattr(shared_list, "_ROWS_IN_SEQUENCE", IN_SEQUENCE)


def read(listing, *, expected, edges=None, seconds=60):
    """Read a list once; return its reader."""

    async def scene():
        async with IBMQuantumHook().async_client() as client:
            reader = ListReader(client, listing, range(expected))
            await reader.read(edges or [[] for _ in listing.value], seconds)
            return reader

    return asyncio.run(scene())


def windows(ibm):
    """Return where the windows of the list of sessions begin, and how many pages each has."""
    found = {}
    for request in ibm.requests("GET", "/v1/workloads"):
        if request.query["mode"] == ["session"]:
            begin = request.query.get("created_after", [""])[0]
            found[begin] = found.get(begin, 0) + 1
    return found


@pytest.mark.parametrize(
    "ages",
    [range(1, 501), [*range(1, 401), *range(10_000, 10_100)], [*range(1, 100), *range(50_000, 50_401)]],
    ids=["evenly", "most are new", "most are old"],
)
def test_a_list_that_was_never_read_is_read_in_windows(ibm, ages):
    names = {ibm.add_session(age=age, max_ttl=100_000).id for age in ages}
    reader = read(Listing.SESSIONS, expected=len(names))
    assert set(reader.states) == names
    assert reader.problems == []
    assert len(windows(ibm)) >= 8
    assert set(windows(ibm).values()) == {1}


def test_the_next_time_its_windows_are_as_long_as_one_sequence(ibm):
    names = {ibm.add_session(age=age * age).id for age in range(1, 152)}
    edges = read(Listing.SESSIONS, expected=len(names)).edges
    ibm.journal.clear()
    assert set(read(Listing.SESSIONS, expected=len(names), edges=edges).states) == names
    assert list(windows(ibm).values()) == [1, 1, 1, 1]


def test_jobs_of_the_same_time_are_read_to_the_end(ibm):
    ibm.settings.lanes = 1
    client = IBMQuantumHook().get_conn()
    ibm.next_jobs([Outcome(queue_seconds=100_000)] * 210)
    for _ in range(210):
        client.submit_job(backend="ibm_fez", **sampler_job())
    jobs = ibm.jobs
    for job in jobs.values():
        job.created = next(iter(jobs.values())).created
    assert set(read(Listing.JOBS, expected=210).states) == set(jobs)
    assert len(ibm.requests("GET", "/v1/jobs")) == 2


def test_a_list_of_many_others_is_read_in_part(ibm, monkeypatch):
    monkeypatch.setattr(shared_list, "_ROWS_PER_WAIT", 1)
    for age in range(1, 401):
        ibm.add_session(age=age)
    reader = read(Listing.SESSIONS, expected=PER_PAGE)
    assert reader.problems == ["it is long, and few wait"]
    assert PER_PAGE < len(reader.states) < 400


@pytest.mark.parametrize(
    "ignored", [("created_after",), ("created_before",), ("created_after", "created_before")]
)
def test_a_filter_without_effect_costs_a_few_requests(ibm, monkeypatch, ignored):
    """Windows of windows would never end."""
    names = {ibm.add_session(age=age).id for age in range(1, 501)}
    matches = Workloads._matches

    def matches_without_times(self, each, request):
        target = re.sub("|".join(f"{name}=[^&]*" for name in ignored), "", request.target)
        return matches(self, each, dataclasses.replace(request, target=target))

    monkeypatch.setattr(Workloads, "_matches", matches_without_times)
    reader = read(Listing.SESSIONS, expected=len(names))
    assert len(ibm.requests("GET", "/v1/workloads")) < 60
    if "created_after" in ignored:
        assert set(reader.problems) == {"its filter created_after has no effect"}
    else:
        assert set(reader.states) == names


def test_a_list_of_the_future_is_read(ibm):
    names = {ibm.add_session(age=-age).id for age in range(3600, 4000)}
    reader = read(Listing.SESSIONS, expected=len(names))
    assert set(reader.states) == names
    assert len(ibm.requests("GET", "/v1/workloads")) < 40


@pytest.mark.parametrize(
    "odd", [{"created": 5}, {"created": "soon"}, {"status": 7}, {"id": ""}, {"id": None}], ids=str
)
def test_an_odd_row_is_left_out_and_the_others_are_read(ibm, odd):
    """One session of another tool's must not let ten thousand waits poll singly."""
    rows = [{"id": name, "status": "pending", "created": "2026-04-15T12:00:00Z"} for name in "abc"]
    ibm.script(Fault("GET", "/v1/workloads", json={"workloads": [*rows[:2], rows[2] | odd]}, times=2))
    reader = read(Listing.SESSIONS, expected=PER_PAGE)
    assert set(reader.states) == {"a", "b"}
    assert reader.problems == []


def test_what_could_not_be_read_in_time_is_left_out(ibm):
    names = {ibm.add_session(age=age).id for age in range(1, 11)}
    batch = ibm.add_session(age=1, mode="batch").id
    ibm.script(Fault("GET", "/v1/workloads", delay=30))
    reader = read(Listing.SESSIONS, expected=10, seconds=1.5)
    assert set(reader.states) in (names, {batch}), "the other of the two lists was read"
    assert reader.problems == ["it takes longer than the poll interval"]
