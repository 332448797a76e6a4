# SPDX-License-Identifier: Apache-2.0
"""How the page asks IBM: once for all who look, a few at a time, and not while IBM does not answer."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_provider_ibm_sessions.plugins._page import live as policy
from airflow_provider_ibm_sessions.plugins._page.live import LiveSessions
from testing.connections import connection_to
from testing.fake_ibm import Fault

CONNECTION = "ibm_quantum_default"


@pytest.fixture
def conn(airflow_db, ibm, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
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


def test_a_closed_session_is_read_once_for_good(conn, ibm, monkeypatch):
    monkeypatch.setattr(policy, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(policy, "SECONDS_PER_SESSION", 0.0)
    closed, active = ibm.add_session(state="closed").id, ibm.add_session(state="active").id

    async def look():
        live = LiveSessions()
        for _ in range(3):
            await live.sessions([(conn, closed), (conn, active)])

    asyncio.run(look())
    assert len(ibm.requests("GET", f"/v1/sessions/{closed}")) == 1
    assert len(ibm.requests("GET", f"/v1/sessions/{active}")) == 3


def test_a_job_without_a_session_is_read_by_its_own_id(conn, ibm):
    job = ibm.service.scheduler.submit(
        ibm.clock.now(),
        session_id=None,
        backend="ibm_fez",
        program_id="sampler",
        params={},
        user_id=ibm.user_id,
        cost=0,
    )
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


def test_the_last_answer_stays_beside_the_error(conn, ibm, monkeypatch):
    monkeypatch.setattr(policy, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(policy, "SECONDS_PER_SESSION", 0.0)
    session_id = ibm.add_session(state="active").id

    async def look():
        live = LiveSessions()
        await live.session(conn, session_id)
        ibm.script(Fault("GET", "/v1/sessions/*", status=400, times=None))
        return await live.session(conn, session_id)

    answer = asyncio.run(look())
    assert answer["state"] == "active"
    assert answer["error"]
    assert answer["at"] <= time.time()


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
