# SPDX-License-Identifier: Apache-2.0
"""What a wait for jobs logs: each change, and now and then that nothing has changed."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.triggers import progress
from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger
from testing.connections import connection_to
from testing.dag_tasks import sampler_job
from testing.fake_ibm import FakeIBM, Outcome


@pytest.fixture
def ibm():
    """A fake whose clock stands."""
    with FakeIBM(frozen=True) as fake:
        yield fake


@pytest.fixture
def polls(ibm, monkeypatch, capfd):
    """Submit jobs in a session, and return what polls them once and returns the lines it has logged."""
    priced = connection_to(ibm, price_per_second=2)
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", priced)

    def submit(outcomes, **session):
        ibm.next_jobs(outcomes)
        hook = IBMQuantumHook()
        session_id = hook.create_session("ibm_fez", **session).id
        for _ in outcomes:
            hook.submit_job(backend="ibm_fez", session_id=session_id, **sampler_job())
        trigger = IBMQuantumJobTrigger(
            session_id=session_id,
            end_time=time.time() + 60,
            poll_interval=1,
            ibm_quantum_conn_id="ibm_quantum_default",
        )

        def poll():
            async def once():
                async with trigger.hook.async_client() as client:
                    return await trigger.poll_once(client)

            capfd.readouterr()
            asyncio.run(once())
            # Airflow's log writes "... [info     ] the message [the logger] ..."
            return re.findall(r"\] (\d+ of \d+ jobs completed.*?) +\[airflow", capfd.readouterr().out)

        return poll

    return submit


def test_each_change_of_a_state_is_one_line(ibm, polls):
    waiting = [Outcome(queue_seconds=10, seconds=5), Outcome("Failed", None, 1517, 20, 10)]
    poll = polls(waiting)
    assert poll() == ["0 of 2 jobs completed, 2 queued, session open"]
    assert poll() == []
    ibm.clock.advance(11)
    assert poll() == ["0 of 2 jobs completed, 2 running"]
    assert poll() == []
    ibm.clock.advance(6)
    [line] = poll()
    assert line.startswith("1 of 2 jobs completed, 1 running, session active, active ")
    ibm.clock.advance(60)
    [line] = poll()
    assert line.startswith("1 of 2 jobs completed, 1 failed or cancelled, session ")
    assert poll() == []


def test_the_price_so_far_follows_from_the_seconds(ibm, polls):
    poll = polls([Outcome(seconds=5)], mode="batch")
    ibm.clock.advance(6)
    [line] = poll()
    assert line.endswith("10.00 USD so far")


def test_what_a_closed_session_has_cost_is_no_price_so_far(ibm, polls):
    poll = polls([Outcome(seconds=5)], mode="batch")
    IBMQuantumHook().drain_session(*ibm.sessions)
    ibm.clock.advance(6)
    [line] = poll()
    assert line.startswith("1 of 1 jobs completed, session closed, active 5s")
    assert line.endswith(", 10.00 USD")


@pytest.mark.parametrize(
    ("has_wait_times", "wait"), [(True, ", which waited 420 s lately"), (False, "")], ids=str
)
def test_while_nothing_changes_the_queue_is_logged_now_and_then(
    ibm, polls, monkeypatch, has_wait_times, wait
):
    backend = ibm.settings.backends["ibm_fez"]
    backend.queue_length, backend.wait_seconds, backend.shows_wait = 41, 420.0, has_wait_times
    poll = polls([Outcome(queue_seconds=1000)])
    assert poll() == ["0 of 1 jobs completed, 1 queued, session open"]
    assert ibm.requests("GET", "/v1/backends") == []
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    # The job itself is one of them.
    assert poll() == [f"0 of 1 jobs completed, 1 queued, session open. 42 jobs queue for ibm_fez{wait}"]


def test_a_queue_that_cannot_be_read_leaves_the_line(ibm, polls, monkeypatch, caplog):
    from testing.fake_ibm import Fault

    poll = polls([Outcome(queue_seconds=1000)])
    poll()
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    ibm.script(Fault("GET", "/v1/backends", status=403))
    assert poll() == ["0 of 1 jobs completed, 1 queued, session open"]
    assert "The length of the queue is not known" in caplog.text
