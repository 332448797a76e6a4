# SPDX-License-Identifier: Apache-2.0
"""One client for all that wait in one event loop."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.shared import shared_client
from tests.client.conftest import credentials_for, exchanges


@pytest.fixture
def closed(monkeypatch):
    """The clients that have been closed."""
    seen = []
    close = AsyncIBMQuantumClient.close

    async def noted(self):
        seen.append(self)
        await close(self)

    monkeypatch.setattr(AsyncIBMQuantumClient, "close", noted)
    return seen


def test_the_users_of_a_loop_share_and_the_last_one_closes(ibm, closed):
    async def main():
        async with shared_client(credentials_for(ibm)) as first:
            async with shared_client(credentials_for(ibm)) as second:
                assert second is first
            assert closed == []
            await first.list_backends()
        assert closed == [first]
        async with shared_client(credentials_for(ibm)) as third:
            assert third is not first
            await third.list_backends()

    asyncio.run(main())
    assert len(closed) == 2


def test_other_credentials_have_another_client(ibm):
    async def main():
        async with (
            shared_client(credentials_for(ibm)) as one,
            shared_client(credentials_for(ibm, timeout=9)) as two,
        ):
            assert one is not two

    asyncio.run(main())


def test_a_user_that_fails_leaves_the_others_theirs(ibm, closed):
    async def main():
        async with shared_client(credentials_for(ibm)) as client:
            with pytest.raises(RuntimeError):
                async with shared_client(credentials_for(ibm)):
                    raise RuntimeError("mine")
            assert closed == []
            await client.list_backends()

    asyncio.run(main())
    assert len(closed) == 1


def test_a_cancelled_user_leaves_too(ibm, closed):
    async def use(entered):
        async with shared_client(credentials_for(ibm)):
            entered.set()
            await asyncio.sleep(60)

    async def main():
        entered = asyncio.Event()
        task = asyncio.create_task(use(entered))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert len(closed) == 1


def test_many_users_need_few_connections_and_one_token(ibm):
    name = ibm.add_session().id

    async def use():
        async with shared_client(credentials_for(ibm, timeout=60)) as client:
            return (await client.get_session(name)).id

    async def main():
        return [await asyncio.gather(*[use() for _ in range(250)]) for _ in range(2)]

    assert asyncio.run(main()) == [[name] * 250] * 2
    assert exchanges(ibm) == 1
    assert ibm.connections <= 200, "at most a hundred for each crowd; the last user of each closes them"


def test_those_who_come_one_after_another_need_one_connection(ibm, closed):
    name = ibm.add_session().id

    async def main():
        async with shared_client(credentials_for(ibm)) as client:
            for _ in range(30):
                await client.get_session(name)

    asyncio.run(main())
    assert ibm.connections <= 2, "one to IAM's host, one to the API's; here they are the same"


def test_two_loops_one_after_another(ibm, closed):
    async def use():
        async with shared_client(credentials_for(ibm)) as client:
            await client.list_backends()
            return client

    assert asyncio.run(use()) is not asyncio.run(use())
    assert len(closed) == 2
    assert exchanges(ibm) == 1


def test_a_loop_that_was_abandoned_does_not_hinder_the_next(ibm):
    users = []

    async def enter():
        users.append(shared_client(credentials_for(ibm)))
        await (await users[-1].__aenter__()).list_backends()

    async def use():
        async with shared_client(credentials_for(ibm)) as client:
            return await client.list_backends()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(enter())
    assert asyncio.run(use())
    loop.run_until_complete(users[0].__aexit__(None, None, None))
    loop.close()
