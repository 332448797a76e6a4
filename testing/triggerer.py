# SPDX-License-Identifier: Apache-2.0
"""A triggerer's part in the life of a trigger, by Airflow's own code."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psutil
import structlog


@contextmanager
def triggerer_comms() -> Iterator[Any]:
    """Connect this process to Airflow as a triggerer is: calls go through Airflow's API to the database."""
    from airflow.sdk.execution_time.supervisor import (
        InProcessSupervisorComms,
        InProcessTestSupervisor,
        set_supervisor_comms,
    )

    class _AsyncComms(InProcessSupervisorComms):
        async def asend(self, msg: Any) -> Any:
            return self.send(msg)

    supervisor = InProcessTestSupervisor(
        id="01a203ea-2cbf-73db-980b-594ae699f543",
        pid=os.getpid(),
        process=psutil.Process(),
        process_log=structlog.get_logger(),
        client=InProcessTestSupervisor._api_client(),
    )
    supervisor.comms = _AsyncComms(supervisor=supervisor)
    with set_supervisor_comms(supervisor.comms):
        yield supervisor


def cancel_trigger(trigger: Any) -> None:
    """Run a trigger, and cancel it as Airflow does when the database no longer has it for this triggerer."""
    from airflow.jobs.triggerer_job_runner import TriggerRunner, TriggerRunnerSupervisor

    supervisor = SimpleNamespace(
        running_triggers={7},
        events=deque(),
        cancelling_triggers=set(),
        failed_triggers=deque(),
        creating_triggers=deque(),
    )
    TriggerRunnerSupervisor.update_triggers(supervisor, set())
    assert supervisor.cancelling_triggers == {7}

    async def triggerer() -> None:
        runner = TriggerRunner()
        runner.triggers[7] = {"name": "seven", "events": 0, "is_watcher": False}
        running = asyncio.create_task(runner.run_trigger(7, trigger))
        runner.triggers[7]["task"] = running
        await asyncio.sleep(0.3)
        assert not running.done()
        runner.to_cancel.extend(supervisor.cancelling_triggers)
        await runner.cancel_triggers()
        try:
            await running
        except asyncio.CancelledError:
            return
        raise AssertionError("the trigger was not cancelled")

    asyncio.run(triggerer())


async def watch(watchers: list[tuple[Any, Any]], done: Callable[[list[Any]], bool]) -> list[Any]:
    """
    Run triggers of assets as a triggerer does, until ``done(payloads)``, and stop as it does at its end.

    :param watchers: Triggers, each with its asset.
    :returns: The payloads of all events, as far as they were sent.
    """
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    runner = TriggerRunner()
    tasks = []
    for number, (trigger, asset) in enumerate(watchers):
        trigger.asset_state_store = AssetStateStoreAccessors(inlets=[asset])
        runner.triggers[number] = {"name": f"watcher {number}", "events": 0, "is_watcher": True}
        tasks.append(asyncio.create_task(runner.run_trigger(number, trigger)))

    def payloads() -> list[Any]:
        return [entry.event.payload for entry in list(runner.events)]

    def wait() -> None:
        deadline = time.monotonic() + 120
        while not done(payloads()) and time.monotonic() < deadline:
            time.sleep(0.02)

    await asyncio.to_thread(wait)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in ended} == {asyncio.CancelledError}, ended
    return payloads()
