# SPDX-License-Identifier: Apache-2.0
"""
The process that is measured: many triggers on one event loop, as in Airflow's triggerer.

Session ids come as JSON on standard input, the connection from the environment. Prints JSON: what waiting
costs or, with ``--hand-over``, the seconds until the last of the triggers has found its session closed.
``--singly`` switches off what they share, and the bound of their first delay: as it was before they did.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import airflow.jobs.triggerer_job_runner  # noqa: F401 - what a triggerer has loaded before any trigger
import httpx
from airflow.sdk.log import configure_logging

from airflow_provider_ibm_sessions.client import polling, shared_poll
from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger
from benchmarks.memory import peak_mb

_TICK = 0.005


class Heart:
    """Sleeps for 5 ms over and over; what it oversleeps is how long the event loop was held up."""

    def __init__(self) -> None:
        self.worst = self.worst_without_gc = self._collecting = self._collected = 0.0
        gc.callbacks.append(self._on_gc)

    async def beat(self) -> None:
        """Until it is cancelled."""
        while True:
            start, collected = time.perf_counter(), self._collected
            await asyncio.sleep(_TICK)
            late = time.perf_counter() - start - _TICK
            self.worst = max(self.worst, late)
            self.worst_without_gc = max(self.worst_without_gc, late - (self._collected - collected))

    async def watch(self, seconds: float) -> dict[str, float]:
        """The longest stalls, in ms, during the next seconds."""
        beating = asyncio.create_task(self.beat())
        self.worst = self.worst_without_gc = 0.0
        await asyncio.sleep(seconds)
        beating.cancel()
        return {"stall": self.worst * 1000, "without_gc": self.worst_without_gc * 1000}

    def _on_gc(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collecting = time.perf_counter()
        else:
            self._collected += time.perf_counter() - self._collecting


class CountingClient(httpx.AsyncClient):
    """httpx's client, which counts its requests."""

    sent = 0

    async def send(self, *args: Any, **kwargs: Any) -> httpx.Response:
        """Count, and send."""
        CountingClient.sent += 1
        return await super().send(*args, **kwargs)


async def share_of_core(seconds: float) -> float:
    """The process's CPU time over wall time during the next seconds, the heart at rest: it costs CPU too."""
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


async def consume(trigger: IBMQuantumSessionTrigger) -> None:
    """Run a trigger as the triggerer does. The sessions stay as they are, so none may fire."""
    async for event in trigger.run():
        raise RuntimeError(f"a trigger ended early: {event.payload}")


async def measure(sessions: Sequence[str], interval: float, seconds: float) -> dict[str, object]:
    """Start-up is the first two intervals, in which each trigger polls first. Half of the rest is for CPU."""
    heart, half, tasks = Heart(), seconds / 2 - interval, []
    watching = asyncio.create_task(heart.watch(2 * interval))
    for session in sessions:
        # As the triggerer does: it lets others run while it starts many.
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(consume(waiting_for(session, interval))))
    started = await watching
    sent = CountingClient.sent
    result = {
        "start_up": started,
        "steady": await heart.watch(half),
        "share": await share_of_core(half),
        "rate": (CountingClient.sent - sent) / (2 * half),
    }
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {**result, "full_gc": full_collection(), "rss": peak_mb()}


async def hand_over(sessions: Sequence[str], interval: float) -> dict[str, object]:
    """Start triggers of closed sessions, as a triggerer that takes them over; time their events."""
    start, told = time.perf_counter(), []

    async def first_event(trigger: IBMQuantumSessionTrigger) -> None:
        async for _ in trigger.run():
            told.append(time.perf_counter() - start)
            return

    await asyncio.gather(*(first_event(waiting_for(session, interval)) for session in sessions))
    return {"median": sorted(told)[len(told) // 2], "last": max(told)}


def full_collection() -> float:
    """Return the time of one full garbage collection of this process, in ms."""
    start = time.perf_counter()
    gc.collect()
    return (time.perf_counter() - start) * 1000


def waiting_for(session: str, interval: float) -> IBMQuantumSessionTrigger:
    """The trigger that a deferred sensor leaves behind."""
    return IBMQuantumSessionTrigger(
        session_id=session,
        target_states=["closed"],
        end_time=time.time() + 86_400,
        poll_interval=interval,
        ibm_quantum_conn_id="ibm_quantum_default",
        created_at=time.time() - 3600,
    )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("interval", type=float)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--singly", action="store_true")
    parser.add_argument("--hand-over", action="store_true")
    options = parser.parse_args()
    if options.singly:
        shared_poll.MIN_WAITS, polling.MAX_INITIAL_JITTER = sys.maxsize, math.inf
    configure_logging(output=sys.stderr)
    # A triggerer that has been up for a while is done with the garbage of its imports.
    gc.collect()
    httpx.AsyncClient = CountingClient  # type: ignore[misc]
    sessions = json.load(sys.stdin)
    if options.hand_over:
        work = hand_over(sessions, options.interval)
    else:
        work = measure(sessions, options.interval, options.seconds)
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main()
