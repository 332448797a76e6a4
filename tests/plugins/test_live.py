# SPDX-License-Identifier: Apache-2.0
"""How the page asks IBM: once for all who look, a few at a time, and not while IBM does not answer."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_ibm_sessions.plugins._page import live as policy
from airflow_provider_ibm_sessions.plugins._page.live import LiveSessions
from testing.connections import connection_to
from testing.fake_ibm import Fault

CONNECTION = "ibm_quantum_default"


@pytest.fixture
def conn(airflow_db, ibm, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
    # On a busy machine, requests may take their time.
    monkeypatch.setattr(policy, "REQUEST_SECONDS", 60.0)
    monkeypatch.setattr(policy, "ROUTE_SECONDS", 60.0)
    return CONNECTION


def test_what_many_ask_is_asked_once(conn, ibm):
    session_id = ibm.add_session(state="active").id

    async def look():
        live = LiveSessions()
        answers = await asyncio.gather(*(live.session(conn, session_id) for _ in range(20)))
        answers.append(await live.session(conn, session_id))
        return answers

    assert {answer["state"] for answer in asyncio.run(look())} == {"active"}
    assert len(ibm.requests("GET", "/v1/sessions/*")) == 1


def submit(ibm, session_id):
    return ibm.service.scheduler.submit(
        ibm.clock.now(),
        session_id=session_id,
        backend="ibm_fez",
        program_id="sampler",
        params={},
        user_id=ibm.user_id,
        cost=10_000,
    )


def pass_time(ibm, seconds):
    ibm.clock.advance(seconds)
    ibm.service.catch_up()


def test_a_closed_session_is_read_once_for_good(conn, ibm):
    closed, active = ibm.add_session(state="closed").id, ibm.add_session(state="active").id

    async def look():
        live = LiveSessions(ibm.clock.now)
        for _ in range(3):
            await live.sessions([(conn, closed), (conn, active)])
            pass_time(ibm, policy.FRESH_SECONDS)

    asyncio.run(look())
    assert len(ibm.requests("GET", f"/v1/sessions/{closed}")) == 1
    assert len(ibm.requests("GET", f"/v1/sessions/{active}")) == 3


def test_a_job_without_a_session_is_read_by_its_own_id(conn, ibm):
    job = submit(ibm, None)
    found = asyncio.run(LiveSessions().jobs(conn, job.id, is_job=True))
    assert ([each["id"] for each in found["jobs"]], found["jobs_error"]) == ([job.id], None)
    assert ibm.requests("GET", "/v1/sessions/*") == []


def test_four_requests_at_once(conn, ibm):
    ids = [ibm.add_session(state="active").id for _ in range(12)]
    ibm.script(Fault("GET", "/v1/sessions/*", delay=0.3, times=None))

    async def look():
        return await LiveSessions().sessions([(conn, session_id) for session_id in ids])

    found = asyncio.run(look())
    assert {answer["state"] for answer in found.values()} == {"active"}
    ports = {entry.client_port for entry in ibm.requests("GET", "/v1/sessions/*")}
    assert len(ports) <= policy.LANES


def test_a_connection_that_does_not_answer_is_left_alone(conn, ibm, monkeypatch):
    known, *others = [ibm.add_session(state="active").id for _ in range(20)]

    async def look():
        live = LiveSessions()
        before = await live.session(conn, known)
        monkeypatch.setattr(policy, "REQUEST_SECONDS", 0.5)
        ibm.script(Fault("*", "/v1/*", delay=60.0, times=None))
        hanging = await live.sessions([(conn, session_id) for session_id in others])
        asked = len(ibm.requests("GET", "/v1/sessions/*"))
        again = await live.sessions([(conn, session_id) for session_id in others])
        return before, hanging, asked, again

    before, hanging, asked, again = asyncio.run(look())
    ibm.clear_faults()
    assert before["state"] == "active"
    assert {answer["error"] for answer in [*hanging.values(), *again.values()]} <= {
        "IBM does not answer",
        "IBM does not answer within 0.5 s",
    }
    assert asked <= 1 + policy.LANES
    assert len(ibm.requests("GET", "/v1/sessions/*")) == asked


def test_the_last_answer_stays_beside_the_error(conn, ibm):
    session_id = ibm.add_session(state="active").id

    async def look():
        live = LiveSessions(ibm.clock.now)
        await live.session(conn, session_id)
        pass_time(ibm, policy.FRESH_SECONDS)
        ibm.script(Fault("GET", "/v1/sessions/*", status=400, times=None))
        return await live.session(conn, session_id)

    answer = asyncio.run(look())
    assert answer["state"] == "active"
    assert answer["error"]
    assert answer["at"] <= ibm.clock.now() - policy.FRESH_SECONDS


@pytest.mark.parametrize("status", [403, 404, 409])
def test_what_ibm_refuses_is_asked_again_when_an_answer_would_be(conn, ibm, status):
    known = ibm.add_session(state="active").id
    asked = []
    ibm.clock.frozen = True

    async def look():
        live = LiveSessions(ibm.clock.now)
        before = await live.session(conn, known)
        pass_time(ibm, policy.FRESH_SECONDS + 1)
        ibm.script(Fault("GET", "/v1/sessions/*", status=status, times=None))
        for _ in range(3):
            refused = await live.session(conn, known)
            asked.append(len(ibm.requests("GET", "/v1/sessions/*")))
        pass_time(ibm, policy.FRESH_SECONDS + 1)
        await live.session(conn, known)
        asked.append(len(ibm.requests("GET", "/v1/sessions/*")))
        ibm.clear_faults()
        pass_time(ibm, policy.FRESH_SECONDS + 1)
        return before, refused, await live.session(conn, known)

    before, refused, again = asyncio.run(look())
    assert asked == [2, 2, 2, 3]
    assert (refused["state"], refused["at"]) == ("active", before["at"])
    assert refused["error"]
    assert "error" not in again


def test_a_connection_that_does_not_exist_is_an_error_of_its_sessions_only(conn, ibm):
    session_id = ibm.add_session(state="active").id

    async def look():
        live = LiveSessions()
        return await asyncio.gather(
            live.sessions([(conn, session_id), ("no_such_connection", "s1")]),
            live.connection("no_such_connection"),
        )

    sessions, about = asyncio.run(look())
    assert sessions[session_id]["state"] == "active"
    assert "no_such_connection" in sessions["s1"]["error"]
    assert "no_such_connection" in about["error"]


def test_jobs_are_counted_again_for_who_is_about_to_end_their_session(conn, ibm):
    """The list of 25 sessions counts them every two minutes only."""
    ids = [ibm.add_session(state="active").id for _ in range(25)]
    pairs = [(conn, session_id) for session_id in ids]

    async def look():
        live = LiveSessions(ibm.clock.now)
        await live.job_counts(pairs)
        pass_time(ibm, 20)
        submit(ibm, ids[0])
        listed = await live.job_counts(pairs)
        now = await asyncio.gather(*(live.job_counts_now(conn, ids[0]) for _ in range(9)))
        return listed, now, await live.job_counts(pairs)

    listed, now, again = asyncio.run(look())
    assert (listed[ids[0]]["running"], listed[ids[0]]["queued"]) == (0, 0)
    assert {each["running"] + each["queued"] for each in now} == {1}
    assert now[0]["at"] >= listed[ids[0]]["at"] + 20
    assert again[ids[0]] == now[0]
    assert len(ibm.requests("GET", "/v1/jobs")) == 25 + 1


def test_what_could_not_be_counted_again_says_when_it_was_counted(conn, ibm):
    session_id = ibm.add_session(state="active").id

    async def look():
        live = LiveSessions(ibm.clock.now)
        before = await live.job_counts_now(conn, session_id)
        pass_time(ibm, 60)
        ibm.script(Fault("GET", "/v1/jobs", status=403, times=None))
        return before, await live.job_counts_now(conn, session_id)

    before, now = asyncio.run(look())
    assert now["at"] == before["at"]
    assert now["error"]


def test_metrics_of_a_job_are_read_again_until_they_are_final(conn, ibm):
    ibm.settings.usage_settle_seconds = 60.0
    ibm.next_jobs([{"seconds": 100}])
    session_id = ibm.add_session(state="active").id
    job = submit(ibm, session_id)
    seen = []

    async def look():
        live = LiveSessions(ibm.clock.now)
        for _ in range(40):
            [shown] = (await live.jobs(conn, session_id))["jobs"]
            requests = len(ibm.requests("GET", f"/v1/jobs/{job.id}/metrics"))
            seen.append((shown["state"], shown["ended"] is not None, shown["qpu_seconds"], requests))
            pass_time(ibm, 10)

    asyncio.run(look())
    running = [each for each in seen if each[0] == "Running"]
    assert len({seconds for _, _, seconds, _ in running}) > 5, seen
    final = [each for each in seen if each[0] == "Completed"]
    assert all(has_ended for _, has_ended, *_ in final)
    assert final[-1][2] > final[0][2], "the usage is provisional for a minute"
    assert final[-1][3] == final[12][3], "what is final is read no more"


@pytest.mark.parametrize(("pages", "ibm_refuses"), [(1, False), (5, False), (5, True)])
def test_25_sessions_of_which_one_is_unfolded_make_sixty_requests_a_minute(conn, ibm, pages, ibm_refuses):
    """On average, and five pages at most a fifth more; also where IBM no longer knows any of the sessions."""
    ibm.clock.frozen = True
    ids = [f"gone-{n}" if ibm_refuses else ibm.add_session(state="active").id for n in range(25)]
    if not ibm_refuses:
        ibm.next_jobs([{"seconds": 4_000}] * 8)
        for _ in range(8):
            submit(ibm, ids[3])
    # The times of jobs may be refused although the jobs are listed.
    ibm.script(Fault("GET", "/v1/jobs/*/metrics", status=403, times=None))
    pairs = [(conn, session_id) for session_id in ids]
    minutes, step = [], 10 / pages

    async def look():
        live = LiveSessions(ibm.clock.now)
        for minute in range(4):
            before = len(ibm.requests())
            for tick in range(6 * pages):  # each page asks every ten seconds, none when another does
                is_first = minute == 0 and tick < pages
                await asyncio.gather(live.sessions(pairs), live.job_counts(pairs), live.connection(conn))
                await asyncio.gather(
                    live.jobs(conn, ids[3], clicked=is_first), live.session(conn, ids[3], clicked=is_first)
                )
                pass_time(ibm, step)
            minutes.append(len(ibm.requests()) - before)

    asyncio.run(look())
    print(f"{minutes} requests in each minute")
    assert sum(minutes) <= len(minutes) * (60 if pages == 1 else 72), minutes
    assert max(minutes) <= 80, "what many sessions need is read in the same minute"
