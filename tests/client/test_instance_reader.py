# SPDX-License-Identifier: Apache-2.0
"""Backends and usage are read once for all who ask, in threads and in event loops."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, IBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import PermissionDeniedError, ServerError
from airflow_provider_ibm_sessions.client.instance_reader import InstanceReader, instance_reader
from airflow_provider_ibm_sessions.client.retries import NO_RETRY
from testing.fake_ibm import Fault
from tests.client.conftest import credentials_for

BACKENDS, USAGE = "/v1/backends", "/v1/instances/usage"


@pytest.fixture
def client(ibm):
    with IBMQuantumClient(credentials_for(ibm), NO_RETRY) as client:
        yield client


@pytest.fixture
def reader():
    return InstanceReader()


async def ask_often(ibm, reader, times):
    async with AsyncIBMQuantumClient(credentials_for(ibm), NO_RETRY) as client:
        return await asyncio.gather(*(reader.abackends(client) for _ in range(times)))


def test_wait_times_are_asked_for(ibm, client, reader):
    ibm.settings.backends["ibm_fez"].wait_seconds = 90
    fez = next(each for each in reader.backends(client) if each.name == "ibm_fez")
    assert (fez.wait_time, fez.state, fez.queue_length, fez.processor_family) == (90, "online", 0, "Heron")
    assert 0 < fez.two_q_error < 0.1
    assert 0 < fez.readout_error < 0.2
    assert fez.clops.value
    assert ibm.requests("GET", BACKENDS)[0].query == {"fields": ["wait_time_seconds"]}


def test_threads_and_event_loops_share_one_request(ibm, client, reader):
    ibm.latency = 0.3
    with ThreadPoolExecutor(22) as pool:
        threads = [pool.submit(reader.backends, client) for _ in range(20)]
        loops = [pool.submit(lambda: asyncio.run(ask_often(ibm, reader, 50))) for _ in range(2)]
        found = [thread.result() for thread in threads] + [each for loop in loops for each in loop.result()]
    assert len(found) == 120
    assert all(each is found[0] for each in found)
    assert len(ibm.requests("GET", BACKENDS)) == 1


def test_a_response_is_shared_for_as_long_as_it_is_fresh(ibm, client, reader):
    for _ in range(5):
        assert reader.usage(client, max_age=3600).remaining == 36_000
    assert len(ibm.requests("GET", USAGE)) == 1
    ibm.settings.usage_before = 35_000
    assert reader.usage(client, max_age=0).remaining == 1_000
    assert len(ibm.requests("GET", USAGE)) == 2


def test_an_error_reaches_all_who_wait_and_is_not_kept(ibm, client, reader):
    async def ask():
        async with AsyncIBMQuantumClient(credentials_for(ibm), NO_RETRY) as client:
            asked = (reader.abackends(client) for _ in range(10))
            return await asyncio.gather(*asked, return_exceptions=True)

    ibm.script(Fault(path=BACKENDS, status=503))
    assert {type(error) for error in asyncio.run(ask())} == {ServerError}
    assert reader.backends(client)
    assert len(ibm.requests("GET", BACKENDS)) == 2


def test_a_key_that_may_not_read_the_usage_is_told_which_action_it_lacks_and_asked_for_once(
    ibm, client, reader
):
    ibm.script(Fault(path=USAGE, status=403, message="Forbidden", times=None))
    for _ in range(5):
        with pytest.raises(PermissionDeniedError) as caught:
            reader.usage(client)
        assert str(caught.value).startswith(
            "Read the instance's usage: the API key lacks the IAM action "
            "quantum-computing.instance-usage.read. Grant it on the instance"
        )
        assert str(caught.value).count("lacks") == 1
    assert len(ibm.requests("GET", USAGE)) == 1


def test_who_is_cancelled_while_reading_leaves_it_to_another(ibm, reader, when, caplog):
    async def main():
        async with AsyncIBMQuantumClient(credentials_for(ibm), NO_RETRY) as client:
            first = asyncio.create_task(reader.abackends(client))
            others = [asyncio.create_task(reader.abackends(client)) for _ in range(5)]
            await asyncio.to_thread(asked.wait)
            others.pop().cancel()
            first.cancel()
            return await asyncio.gather(*others)

    asked = threading.Event()
    when(lambda: ibm.requests("GET", BACKENDS), asked.set)
    ibm.script(Fault(path=BACKENDS, delay=5))
    found = asyncio.run(main())
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert len(found) == 4
    assert all(found)
    assert len(ibm.requests("GET", BACKENDS)) == 2


def test_a_thread_that_is_interrupted_leaves_it_to_another(ibm, client, reader):
    started = threading.Event()

    class Interrupted(BaseException):
        pass

    class Interrupting:
        def run_flow(self, flow):
            started.set()
            next(flow)
            while len(waiting) < 1:
                pass
            raise Interrupted

    waiting = []

    def wait():
        started.wait()
        waiting.append(1)
        return reader.backends(client)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(wait)
        with pytest.raises(Interrupted):
            reader.backends(Interrupting())
        assert other.result()


def test_blocking_code_in_an_event_loop_that_is_reading_does_not_wait_for_it(ibm, client, reader):
    client.authorization()  # a token is there: it is another part that waits for one

    async def main():
        async with AsyncIBMQuantumClient(credentials_for(ibm), NO_RETRY) as aclient:
            reading = asyncio.create_task(reader.abackends(aclient))
            await asyncio.sleep(0)
            return reader.backends(client), await reading

    here, there = asyncio.run(main())
    assert [each.name for each in here] == [each.name for each in there]


def test_credentials_have_a_reader_of_their_own_and_a_forked_child_a_new_one(ibm):
    reader = instance_reader(credentials_for(ibm))
    assert instance_reader(credentials_for(ibm)) is reader
    assert instance_reader(credentials_for(ibm, timeout=9)) is not reader
    child = os.fork()
    if child == 0:
        os._exit(instance_reader(credentials_for(ibm)) is reader)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("settings", "remaining"),
    [
        ({"usage_limit_seconds": None, "usage_before": 10**6}, None),
        ({"usage_limit_seconds": 600, "usage_before": 595.5}, 4.5),
        ({"usage_limit_seconds": 600, "usage_before": 700}, 0),
        ({"usage_limit_seconds": 600, "usage_before": 0, "limit_reached": True}, 0),
    ],
    ids=["no limit", "near the limit", "over the limit", "reached"],
)
def test_what_is_left(ibm, client, reader, settings, remaining):
    for name, value in settings.items():
        setattr(ibm.settings, name, value)
    assert reader.usage(client).remaining == remaining
