# SPDX-License-Identifier: Apache-2.0
"""Many that wait on a connection share a list, and each event comes from a read of its own all the same."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager

import pytest

from airflow_provider_ibm_sessions.client import shared_list, shared_poll
from airflow_provider_ibm_sessions.client.shared_list import LISTED, Listing
from airflow_provider_ibm_sessions.client.shared_poll import MIN_WAITS, SharedPoll, Wait
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.triggers import base
from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger
from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger
from testing.connections import connection_to
from testing.dag_tasks import sampler_job
from testing.fake_ibm import FakeIBM, Fault, Outcome
from testing.retry_policies import single_attempt

pytestmark = pytest.mark.usefixtures("connection", "airflow_db")

MANY = MIN_WAITS + 10
INTERVAL = 0.3
EMPTY = {"workloads": [], "total_count": 0, "limit": 50}


def lists(ibm, path="/v1/workloads"):
    return ibm.requests("GET", path)


def reads(ibm, name="*", kind="sessions"):
    return ibm.requests("GET", f"/v1/{kind}/{name}")


def sessions(ibm, count=MANY, **kwargs):
    return [ibm.add_session(age=1, **kwargs).id for _ in range(count)]


async def close(session_id):
    await asyncio.to_thread(IBMQuantumHook().get_conn().close_session, session_id)


async def wait_for(session_id=None, *, seconds=600.0, job_id=None, **changes):
    """Return the event of a trigger for a session, or for a job."""
    arguments = {"end_time": time.time() + seconds, "poll_interval": INTERVAL}
    arguments |= {"ibm_quantum_conn_id": "ibm_quantum_default", **changes}
    if job_id:
        trigger = IBMQuantumJobTrigger(job_ids=[job_id], session_id=session_id, **arguments)
    else:
        trigger = IBMQuantumSessionTrigger(session_id, arguments.pop("targets", ["closed"]), **arguments)
    async for event in trigger.run():
        return event.payload
    return None


@asynccontextmanager
async def waiting(*waits):
    """Let triggers wait, as tasks."""
    tasks = [asyncio.create_task(each) for each in waits]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not shared_poll._polls, "the last one to leave ends the reading"


async def until(condition):
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the threads of the fake
            await asyncio.sleep(0.02)


async def more(read, count=4):
    """Wait for more requests of a kind."""
    enough = len(read()) + count
    await until(lambda: len(read()) >= enough)


async def settle(ibm, kind="sessions", path="/v1/workloads"):
    """Wait until lists are read, and nothing else."""
    while True:
        before = len(reads(ibm, kind=kind))
        await more(lambda: lists(ibm, path), 6)
        if len(reads(ibm, kind=kind)) == before:
            return


def run(scene):
    asyncio.run(scene())


def test_many_waits_share_a_list_and_the_one_whose_session_has_closed_is_told(ibm):
    names = sessions(ibm)

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            await settle(ibm)
            before = len(reads(ibm, names[7]))
            await close(names[7])
            event = await tasks[7]
            assert (event["status"], event["session"]["state"]) == ("success", "closed")
            assert len(reads(ibm, names[7])) == before + 1
            await settle(ibm)
            assert [task.done() for task in tasks].count(True) == 1

    run(scene)
    assert {tuple(request.query["status"]) for request in lists(ibm)} == {("pending", "in_progress")}
    assert {request.query["limit"][0] for request in lists(ibm)} == {"50"}
    assert {request.query["mode"][0] for request in lists(ibm)} == {"session", "batch"}


@pytest.mark.parametrize(("count", "shared"), [(MIN_WAITS - 1, False), (MIN_WAITS, True)])
def test_few_waits_read_singly(ibm, count, shared):
    names = sessions(ibm, count)

    async def scene():
        async with waiting(*map(wait_for, names)):
            await more(lambda: reads(ibm), 2 * count if not shared else 10)
            await until(lambda: lists(ibm) or not shared)

    run(scene)
    assert bool(lists(ibm)) is shared


def test_when_most_have_left_the_others_read_singly(ibm):
    names = sessions(ibm)

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            await settle(ibm)
            for task in tasks[1:]:
                task.cancel()
            await more(lambda: reads(ibm, names[0]))
            before = len(lists(ibm))
            await more(lambda: reads(ibm, names[0]))
            assert len(lists(ibm)) == before
            await close(names[0])
            assert (await tasks[0])["status"] == "success"

    run(scene)


def test_a_session_that_the_list_does_not_show_is_read_and_not_taken_for_closed(ibm):
    names = sessions(ibm)
    ibm.script(Fault("GET", "/v1/workloads", json=EMPTY, times=None))

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            await settle_unlisted(ibm, names[0])
            assert not any(task.done() for task in tasks)
            await close(names[0])
            assert (await tasks[0])["session"]["state"] == "closed"

    run(scene)


async def settle_unlisted(ibm, name):
    """A session that is never listed is read after every second list at most."""
    await until(lambda: lists(ibm))
    await more(lambda: reads(ibm, name), 2)
    read, listed = len(reads(ibm, name)), len(lists(ibm))
    await more(lambda: reads(ibm, name), 4)
    looks = (len(lists(ibm)) - listed) / 2
    assert len(reads(ibm, name)) - read <= looks / 2 + 1


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"status": 403}, {"json": {"workloads": 7}}],
    ids=["503", "403", "malformed"],
)
def test_a_list_that_cannot_be_read_costs_no_wait(ibm, monkeypatch, fault):
    single_attempt(monkeypatch)
    names = sessions(ibm)
    ibm.script(Fault("GET", "/v1/workloads", times=None, **fault))

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            await until(lambda: lists(ibm))
            await more(lambda: reads(ibm, names[3]), 3)
            assert not any(task.done() for task in tasks)
            await close(names[3])
            assert (await tasks[3])["status"] == "success"

    run(scene)


def test_not_all_poll_at_the_same_time(ibm, monkeypatch):
    """The list would have to wait for one of the client's connections."""
    monkeypatch.setattr(shared_poll, "_POLLS_IN_FLIGHT", 5)
    names = sessions(ibm)
    in_flight, counts = [], []

    async def poll_once(trigger, client):
        in_flight.append(trigger)
        counts.append(len(in_flight))
        await asyncio.sleep(0.02)
        in_flight.remove(trigger)

    monkeypatch.setattr(IBMQuantumSessionTrigger, "poll_once", poll_once)
    ibm.script(Fault("GET", "/v1/workloads", json=EMPTY, times=None))

    async def scene():
        async with waiting(*map(wait_for, names)):
            await until(lambda: len(counts) > 3 * MANY)

    run(scene)
    assert max(counts) == 5


def test_a_failed_read_is_one_waits_own(ibm, monkeypatch):
    single_attempt(monkeypatch)
    names = sessions(ibm)

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            await settle(ibm)
            fault = {"path": f"/v1/sessions/{names[5]}", "method": "GET"}
            ibm.script(Fault(**fault, status=503, times=3), Fault(**fault, status=404, message="Not found"))
            await close(names[5])
            event = await tasks[5]
            assert (event["status"], event["retryable"]) == ("error", False)
            assert not ibm.faults.left
            await settle(ibm)
            assert [task.done() for task in tasks].count(True) == 1

    run(scene)


def test_an_unknown_session_fails_its_own_wait_only(ibm):
    names = [*sessions(ibm), "unknown"]

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            assert "Session not found" in (await tasks[-1])["message"]
            await settle(ibm)
            assert [task.done() for task in tasks].count(True) == 1

    run(scene)


def test_a_wait_that_is_cancelled_leaves_the_list_to_the_others(ibm):
    """Also the one that came first, and while the list is on its way."""
    names = sessions(ibm, MANY + 5)

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            await settle(ibm)
            ibm.script(Fault("GET", "/v1/workloads", delay=1.0, times=2))
            await until(lambda: not ibm.faults.left)
            for task in tasks[:5]:
                task.cancel()
            await close(names[9])
            assert (await tasks[9])["status"] == "success"
            await settle(ibm)

    run(scene)


def test_a_deadline_holds_while_the_list_hangs(ibm):
    names = sessions(ibm)
    ibm.script(Fault("GET", "/v1/workloads", delay=60, times=None))

    async def scene():
        async with waiting(*(wait_for(name, seconds=1.5) for name in names)) as tasks:
            events = await asyncio.gather(*tasks)
        assert {event["status"] for event in events} == {"timeout"}

    run(scene)
    assert all(reads(ibm, name) for name in names), "the session comes before the deadline"


def test_waits_go_on_with_the_new_key_of_their_connection(ibm, monkeypatch):
    """A key is rotated while they wait: no task of theirs is to hold a worker slot for that."""
    names = sessions(ibm)

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            await settle(ibm)
            ibm.rotate_key()
            monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
            await settle(ibm)
            await close(names[3])
            assert (await tasks[3])["status"] == "success"
            assert [task.done() for task in tasks].count(True) == 1

    run(scene)


@pytest.mark.parametrize("targets", [["closed"], ["inactive", "closed"]], ids=["listed", "read singly"])
def test_a_last_poll_waits_for_its_turn(ibm, monkeypatch, targets):
    """After an hour without a triggerer, thousands are due together: none may be told that nothing ended."""
    monkeypatch.setattr(shared_poll, "_POLLS_IN_FLIGHT", 1)
    monkeypatch.setattr(base, "_LAST_POLL_SECONDS", 2.0)
    monkeypatch.setattr(base, "MIN_DEFERRAL", 0.0)
    [name] = sessions(ibm, 1, state="closed")

    async def scene():
        late = wait_for(name, seconds=-3600.0, targets=targets)
        async with IBMQuantumHook().async_client() as client, waiting(late) as tasks:
            async with shared_poll.poll_slots(client):
                await asyncio.sleep(2.5)
                assert not tasks[0].done()
            assert (await tasks[0])["status"] == "success"

    run(scene)


class NoClient:
    """Nothing is asked for."""


class TestSpread:
    """Many that are to poll do not poll at once. The interval is an hour: so none comes by itself."""

    HOUR = 3600.0

    @asynccontextmanager
    async def shared(self, count):
        shared = SharedPoll(NoClient(), Listing.SESSIONS, self.HOUR)
        shared.waits = {Wait(shared) for _ in range(count)}
        tasks = [asyncio.create_task(wait.until_due({"x": LISTED}, self.HOUR)) for wait in shared.waits]
        yield shared, tasks
        shared.waits.clear()
        shared.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def count_done(tasks):
        for _ in range(1000):
            await asyncio.sleep(0)
        return [task.done() for task in tasks].count(True)

    @pytest.mark.parametrize("problem", [None, RuntimeError("a bug")], ids=["not listed", "broken list"])
    def test_those_that_the_list_does_not_show(self, monkeypatch, problem):
        lists = []

        async def read(_):
            lists.append(1)
            if problem:
                raise problem
            return {}

        monkeypatch.setattr(SharedPoll, "_read", read)

        async def scene():
            async with self.shared(3 * MIN_WAITS) as (_, tasks):
                assert await self.count_done(tasks) == shared_poll._POLLS_AT_ONCE

        run(scene)
        assert lists == [1], "the next one is read after an interval, also if this one is broken"

    def test_those_that_are_too_few_for_a_list(self, monkeypatch):
        async def read(_):
            return {"x": LISTED}

        monkeypatch.setattr(SharedPoll, "_read", read)

        async def scene():
            async with self.shared(MIN_WAITS) as (shared, tasks):
                assert await self.count_done(tasks) == 0
                shared.stop()
                assert await self.count_done(tasks) < MIN_WAITS / 2
                assert shared.listed is None

        run(scene)


def test_waits_for_other_states_read_singly(ibm):
    names = sessions(ibm)

    async def scene():
        async with waiting(*(wait_for(name, targets=["inactive", "closed"]) for name in names)):
            await more(lambda: reads(ibm), 2 * MANY)

    run(scene)
    assert lists(ibm) == []


def test_connections_share_no_list(ibm, monkeypatch):
    with FakeIBM() as other:
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection_to(other))
        here, there = sessions(ibm, 30), sessions(other, 30)

        async def scene():
            others = (wait_for(name, ibm_quantum_conn_id="other") for name in there)
            async with waiting(*map(wait_for, here), *others):
                await more(lambda: reads(ibm), 70)
                await more(lambda: reads(other), 70)

        run(scene)
        assert lists(ibm) == lists(other) == []


def test_a_long_list_is_read_in_parts_at_the_same_time(ibm, monkeypatch):
    monkeypatch.setattr(shared_list, "_ROWS_IN_SEQUENCE", 20)
    names = [*sessions(ibm), *sessions(ibm, 5, mode="batch")]

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            await settle(ibm)
            await more(lambda: [each for each in lists(ibm) if "created_after" in each.query], 12)
            before = len(reads(ibm))
            await more(lambda: lists(ibm), 16)
            # A row at the very edge may be in no part: it is read by itself.
            assert len(reads(ibm)) - before <= 3 * 2
            await close(names[-1])
            assert (await tasks[-1])["status"] == "success"

    run(scene)


def test_a_list_of_others_sessions_is_not_read_to_its_end(ibm, monkeypatch):
    monkeypatch.setattr(shared_list, "_ROWS_PER_WAIT", 1)
    names = sessions(ibm)
    sessions(ibm, 300, user="someone")

    async def scene():
        async with waiting(*map(wait_for, names)) as tasks:
            await more(lambda: lists(ibm), 6)
            await close(names[0])
            assert (await tasks[0])["status"] == "success"

    run(scene)
    of_sessions = [request.query for request in lists(ibm) if request.query["mode"] == ["session"]]
    next_pages = [query for query in of_sessions if "next" in query]
    assert 0 < len(next_pages) <= len(of_sessions) / 2, "two pages of eight"


def submit(ibm, count, first):
    """Submit jobs that stay in the queue, but the first; return their ids."""
    ibm.settings.lanes = MANY
    ibm.next_jobs([first, *[Outcome(queue_seconds=100_000)] * (count - 1)])
    client = IBMQuantumHook().get_conn()
    return [client.submit_job(backend="ibm_fez", **sampler_job()).id for _ in range(count)]


def test_jobs_share_a_list_and_a_change_is_logged_and_told(ibm, capfd):
    names = submit(ibm, MANY, Outcome(queue_seconds=1000, seconds=500))

    def lines():
        seen.append(capfd.readouterr().out)
        return re.findall(r"\] (\d of 1 jobs completed.*?) +\[airflow", "".join(seen))

    seen = []

    async def scene():
        async with waiting(*(wait_for(job_id=name) for name in names)) as tasks:
            await settle(ibm, "jobs", "/v1/jobs")
            assert lines() == ["0 of 1 jobs completed, 1 queued"] * MANY
            ibm.clock.advance(1100)
            await until(lambda: len(lines()) > MANY)
            assert lines()[MANY:] == ["0 of 1 jobs completed, 1 running"]
            before = len(reads(ibm, names[0], "jobs"))
            await settle(ibm, "jobs", "/v1/jobs")
            ibm.clock.advance(500)
            [job] = (await tasks[0])["jobs"]
            assert (job["id"], job["state"]) == (names[0], "Completed")
            assert len(reads(ibm, names[0], "jobs")) <= before + 2
            await settle(ibm, "jobs", "/v1/jobs")
            assert [task.done() for task in tasks].count(True) == 1

    run(scene)
    assert {request.query["pending"][0] for request in lists(ibm, "/v1/jobs")} == {"true"}
    assert {request.query["limit"][0] for request in lists(ibm, "/v1/jobs")} == {"200"}


def test_a_line_about_jobs_that_queue_costs_no_request_of_its_own(ibm, monkeypatch, capfd):
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.progress.INTERVAL", 1.0)
    names = submit(ibm, MANY, Outcome(queue_seconds=100_000))
    seen = []

    def count_lines():
        seen.append(capfd.readouterr().out)
        return "".join(seen).count("0 of 1 jobs completed, 1 queued. ")  # and the queue's length

    async def scene():
        async with waiting(*(wait_for(job_id=name) for name in names)) as tasks:
            await settle(ibm, "jobs", "/v1/jobs")
            before, lines = len(reads(ibm, kind="jobs")), count_lines()
            await until(lambda: count_lines() >= lines + 3 * MANY)
            assert len(reads(ibm, kind="jobs")) == before
            ibm.clock.advance(100_001)
            assert (await tasks[0])["status"] == "success"

    run(scene)
    assert len(ibm.requests("GET", "/v1/backends")) < MANY, "all share one response for 30 seconds"


def test_without_a_list_the_oldest_job_is_read_at_every_sixth_poll(ibm):
    ibm.settings.job_seconds = 3600
    session_id = ibm.add_session(age=1).id
    client = IBMQuantumHook().get_conn()
    names = [
        client.submit_job(backend="ibm_fez", session_id=session_id, **sampler_job()).id for _ in range(2)
    ]
    trigger = IBMQuantumJobTrigger(
        job_ids=names,
        session_id=session_id,
        end_time=time.time() + 600,
        poll_interval=INTERVAL,
        ibm_quantum_conn_id="ibm_quantum_default",
    )

    async def poll(times):
        async with trigger.hook.async_client() as client:
            for _ in range(times):
                await trigger.poll_once(client)
        return len(lists(ibm, "/v1/jobs")), len(reads(ibm, kind="jobs"))

    assert asyncio.run(poll(6)) == (6, 1)
    assert asyncio.run(poll(1)) == (7, 2)


def test_the_connection_is_looked_up_once_for_all_in_a_loop(ibm, monkeypatch):
    looked_up, look_up = [], IBMQuantumHook.aget_connection

    async def count(conn_id):
        looked_up.append(conn_id)
        await asyncio.sleep(0.1)
        return await look_up(conn_id)

    monkeypatch.setattr(IBMQuantumHook, "aget_connection", staticmethod(count))

    async def crowd():
        asked = [asyncio.create_task(IBMQuantumHook().aget_credentials()) for _ in range(20)]
        await asyncio.sleep(0.05)
        asked.pop(0).cancel()  # the others do not depend on the one that came first
        return await asyncio.gather(*asked, IBMQuantumHook().aget_credentials())

    assert {each.crn for each in asyncio.run(crowd())} == {ibm.crn}
    assert len(looked_up) == 1
    asyncio.run(crowd())
    assert len(looked_up) == 2, "another loop looks it up itself"


def test_a_connection_that_could_not_be_looked_up_is_asked_for_again(ibm, monkeypatch):
    async def ask():
        found = await asyncio.gather(
            *(IBMQuantumHook("late").aget_credentials() for _ in range(3)), return_exceptions=True
        )
        monkeypatch.setenv("AIRFLOW_CONN_LATE", connection_to(ibm))
        return found, await IBMQuantumHook("late").aget_credentials()

    failed, found = asyncio.run(ask())
    assert all("late" in str(error) for error in failed)
    assert found.crn == ibm.crn
