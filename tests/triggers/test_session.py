# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from airflow.sdk.module_loading import import_string

from airflow_provider_ibm_sessions.client.errors import NotFoundError
from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger
from testing.connections import connection_to
from testing.fake_ibm import Fault
from testing.retry_policies import single_attempt

pytestmark = pytest.mark.usefixtures("connection", "airflow_db")


def trigger(session_id, seconds=60.0, **kwargs):
    return IBMQuantumSessionTrigger(
        **{
            "end_time": time.time() + seconds,
            "session_id": session_id,
            "target_states": ["closed"],
            "poll_interval": 0.1,
            "ibm_quantum_conn_id": "ibm_quantum_default",
            **kwargs,
        },
    )


async def first_event(waiting):
    async for event in waiting.run():
        return event.payload
    return None


def fire(waiting):
    return asyncio.run(first_event(waiting))


def test_serialized_form_restores_it_and_holds_no_secret(ibm):
    original = trigger("abc", target_states=["active", "closed"])
    path, arguments = original.serialize()
    restored = import_string(path)(**json.loads(json.dumps(arguments)))
    assert restored.serialize() == original.serialize()
    assert set(arguments) == {
        "session_id",
        "target_states",
        "end_time",
        "poll_interval",
        "ibm_quantum_conn_id",
        "created_at",
    }
    assert ibm.api_key not in repr(original)


def test_tells_the_session(ibm):
    session = ibm.add_session(state="closed", age=60)
    event = fire(trigger(session.id))
    assert event["status"] == "success"
    assert event["session"]["state"] == "closed"
    assert event["end_time"] > time.time()
    json.dumps(event)


def test_may_run_twice(ibm):
    session = ibm.add_session(state="closed", age=60)

    async def twice():
        return await asyncio.gather(first_event(trigger(session.id)), first_event(trigger(session.id)))

    first, second = asyncio.run(twice())
    assert first | {"end_time": None} == second | {"end_time": None}


def test_after_the_deadline_the_session_still_comes_first(ibm):
    session = ibm.add_session(state="closed", age=60)
    late = trigger(session.id)
    late.end_time = time.time() - 3600
    assert fire(late)["status"] == "success"


def test_after_the_deadline_it_says_what_was_awaited(ibm):
    session = ibm.add_session(state="open", age=1)
    event = fire(trigger(session.id, seconds=0.3))
    assert event["status"] == "timeout"
    assert session.id in event["message"]
    assert "closed" in event["message"]


def test_an_event_is_held_back_while_the_scheduler_may_not_know_of_the_deferral(ibm, monkeypatch):
    """The trigger of a task that has deferred long ago is not held back, though it starts later."""
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.base.MIN_DEFERRAL", 3600.0)
    session = ibm.add_session(state="closed", age=60)

    async def both():
        waiting, polled = trigger(session.id), asyncio.Event()
        poll_once = waiting.poll_once

        async def poll(client):
            polled.set()
            return await poll_once(client)

        monkeypatch.setattr(waiting, "poll_once", poll)
        new = asyncio.create_task(first_event(waiting))
        await polled.wait()
        old = await first_event(trigger(session.id, created_at=time.time() - 7200))
        assert not new.done()
        new.cancel()
        return old

    assert asyncio.run(both())["status"] == "success"


def test_a_clock_that_was_set_back_holds_no_event_back_for_longer(ibm, monkeypatch):
    """The worker's clock may be ahead of the triggerer's as well."""
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.base.MIN_DEFERRAL", 0.1)
    session = ibm.add_session(state="closed", age=60)

    async def fire_within_a_minute():
        async with asyncio.timeout(60):
            return await first_event(trigger(session.id, created_at=time.time() + 3600))

    assert asyncio.run(fire_within_a_minute())["status"] == "success"


def test_an_event_that_was_held_back_is_sent(ibm, monkeypatch):
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.base.MIN_DEFERRAL", 0.5)
    sent = []
    sleep = asyncio.sleep

    async def note(seconds):
        if seconds > 0:
            sent.append("sleep")
        await sleep(0)

    session = ibm.add_session(state="closed", age=60)
    waiting = trigger(session.id, poll_interval=0.01, created_at=time.time() + 3600)
    poll_once = waiting.poll_once

    async def poll(client):
        sent.append("poll")
        return await poll_once(client)

    monkeypatch.setattr(waiting, "poll_once", poll)
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.base.asyncio.sleep", note)
    sent.append(fire(waiting)["status"])
    assert sent[sent.index("poll") :] == ["poll", "sleep", "success"]


@pytest.mark.parametrize("inside", [False, True])
def test_a_worker_can_wait_inside_of_an_event_loop_as_well(ibm, inside):
    session = ibm.add_session(state="closed", age=60)
    waiting = trigger(session.id)

    async def wait_in_loop():
        return waiting.run_here(), waiting.poll_once_here()

    event, polled = asyncio.run(wait_in_loop()) if inside else (waiting.run_here(), waiting.poll_once_here())
    assert event["session"]["id"] == session.id
    assert event == polled


@pytest.mark.parametrize("inside", [False, True])
def test_an_error_reaches_the_worker_that_polls(ibm, inside):
    waiting = trigger("unknown")

    async def poll_in_loop():
        return waiting.poll_once_here()

    with pytest.raises(NotFoundError, match="Session not found"):
        asyncio.run(poll_in_loop()) if inside else waiting.poll_once_here()


def test_a_worker_that_is_interrupted_inside_of_an_event_loop_polls_no_more(ibm):
    """``execution_timeout`` is an exception that a signal's handler raises."""
    session = ibm.add_session(state="open", age=1)
    waiting = trigger(session.id, seconds=3600)

    class TimedOutError(Exception):
        pass

    def strike(*_):
        raise TimedOutError

    def strike_after_two_polls():
        while len(ibm.requests("GET", f"/v1/sessions/{session.id}")) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    async def wait_in_loop():
        threading.Thread(target=strike_after_two_polls, daemon=True).start()
        waiting.run_here()

    before, threads = signal.signal(signal.SIGUSR1, strike), set(threading.enumerate())
    try:
        with pytest.raises(TimedOutError):
            asyncio.run(wait_in_loop())
    finally:
        signal.signal(signal.SIGUSR1, before)
    for thread in set(threading.enumerate()) - threads:
        thread.join(60)
        assert not thread.is_alive()


def test_many_share_one_token_and_few_connections(ibm):
    session = ibm.add_session(state="closed", age=60)

    async def crowd():
        return await asyncio.gather(*(first_event(trigger(session.id)) for _ in range(150)))

    events = asyncio.run(crowd())
    assert {event["status"] for event in events} == {"success"}
    assert ibm.state()["token_exchanges"] == 1
    assert ibm.connections <= 100


def test_an_error_that_time_cannot_mend_is_told_as_such(ibm):
    event = fire(trigger("unknown"))
    assert event["status"] == "error"
    assert event["retryable"] is False
    assert "Session not found" in event["message"]


def test_a_missing_connection_is_told(ibm):
    event = fire(trigger("abc", ibm_quantum_conn_id="nowhere"))
    assert event["status"] == "error"
    assert "nowhere" in event["message"]


def test_a_pause_that_ibm_asks_for_is_made_and_not_counted(ibm, monkeypatch):
    single_attempt(monkeypatch)
    session = ibm.add_session(state="closed", age=60)
    asked = Fault(method="GET", path="/v1/sessions/*", status=429, headers={"Retry-After": "1"}, times=2)
    ibm.script(asked)
    assert fire(trigger(session.id))["status"] == "success"
    first, second, third = ibm.requests("GET", f"/v1/sessions/{session.id}")
    assert second.time - first.time >= 1
    assert third.time - second.time >= 1


def test_a_file_of_ca_certificates_is_read_once(ibm, monkeypatch, tmp_path):
    import certifi

    from airflow_provider_ibm_sessions.client._http import tls

    read = []
    original = tls.ssl.create_default_context
    monkeypatch.setattr(tls.ssl, "create_default_context", lambda **k: read.append(k) or original(**k))
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm, verify=str(bundle)))
    session = ibm.add_session(state="closed", age=60)

    async def crowd():
        return await asyncio.gather(*(first_event(trigger(session.id)) for _ in range(30)))

    assert {event["status"] for event in asyncio.run(crowd())} == {"success"}
    assert len(read) == 1


def test_a_reply_that_never_ends_is_not_waited_for(ibm, monkeypatch):
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.base._LAST_POLL_SECONDS", 0.3)
    session = ibm.add_session(state="closed", age=60)
    ibm.script(Fault(method="GET", path="/v1/sessions/*", delay=30))
    assert fire(trigger(session.id, seconds=0.1))["status"] == "timeout"


def test_stops_when_it_is_cancelled(ibm):
    session = ibm.add_session(state="open", age=1)

    async def cancelled():
        task = asyncio.create_task(first_event(trigger(session.id)))
        await asyncio.sleep(0.4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert ibm.sessions[session.id].state == "open"
