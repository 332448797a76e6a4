# SPDX-License-Identifier: Apache-2.0
"""
The process that is measured: many triggers on one event loop, as in Airflow's triggerer.

Session ids come as JSON on standard input, the connection from the environment. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence

from airflow.sdk.log import configure_logging

from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger
from benchmarks.memory import peak_mb

_TICK = 0.005
_IDLE_SECONDS = 2.0


class Heart:
    """Sleeps for 5 ms over and over; what it oversleeps is how long the event loop was held up."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def beat(self) -> None:
        """Never ends."""
        while True:
            start = time.perf_counter()
            await asyncio.sleep(_TICK)
            self.worst = max(self.worst, time.perf_counter() - start - _TICK)

    async def watch(self, seconds: float) -> dict[str, float]:
        """CPU as a share of one core, and the longest stall in ms, during the next seconds."""
        self.worst = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"share": cpu / wall, "stall": self.worst * 1000}


async def consume(trigger: IBMQuantumSessionTrigger) -> None:
    """What the triggerer does with a trigger. The sessions stay as they are, so none may fire."""
    async for event in trigger.run():
        raise RuntimeError(f"a trigger ended early: {event.payload}")


async def measure(sessions: Sequence[str], interval: float, seconds: float) -> dict[str, object]:
    """Idle, then start-up (the first interval, in which each trigger polls first), then steady state."""
    heart = Heart()
    beating = asyncio.create_task(heart.beat())
    idle = await heart.watch(_IDLE_SECONDS)
    tasks = [asyncio.create_task(consume(waiting_for(session, interval))) for session in sessions]
    start_up = await heart.watch(interval)
    steady = await heart.watch(seconds - interval)
    for task in tasks:
        if task.done():
            task.result()
    for task in [beating, *tasks]:
        task.cancel()
    await asyncio.gather(beating, *tasks, return_exceptions=True)
    return {"idle": idle, "start_up": start_up, "steady": steady, "rss": peak_mb()}


def waiting_for(session: str, interval: float) -> IBMQuantumSessionTrigger:
    """The trigger that a deferred sensor leaves behind."""
    return IBMQuantumSessionTrigger(
        session_id=session,
        target_states=["closed"],
        end_time=time.time() + 86_400,
        poll_interval=interval,
        ibm_quantum_conn_id="ibm_quantum_default",
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("interval", type=float)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    configure_logging(output=sys.stderr)
    result = asyncio.run(measure(json.load(sys.stdin), options.interval, options.seconds))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
