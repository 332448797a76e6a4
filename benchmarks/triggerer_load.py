# SPDX-License-Identifier: Apache-2.0
"""
Deferred sensors waiting at once on one event loop (1,000 is Airflow's default per triggerer).

The same triggers twice in turn: each reading its session at each poll, as it was before they shared a list,
and with the list. The service runs in another process and does nothing but answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from testing.subprocesses import Server, answer_of, serving
from testing.tables import table, target

MAX_SHARES = {1000: 0.02, 10_000: 0.10}
MAX_RATES = {1000: 5.0, 10_000: 30.0}
MAX_STALL = 100.0
_WAYS = {"singly": ["--singly"], "with a list": []}
_START_SECONDS = 300


def run(options: argparse.Namespace) -> None:
    """Measure and print, for each latency and each number of triggers."""
    with serving("benchmarks.stub_server", "0", "60") as server:
        wait(server, 0.2, 1)  # not counted: it fills caches
    print(
        f"Polling every {options.interval:g} s. Start-up: the first two intervals; the rest is one half for "
        "stalls and one for CPU.\n"
        "Stall: what a task that sleeps 5 ms over and over oversleeps. Garbage collection: Python's own; a\n"
        "full one goes through all objects of the process, which for the most part are Airflow's.\n"
    )
    for latency in options.latency:
        for count in options.triggers:
            run_one(latency, count, options)


def run_one(latency: float, count: int, options: argparse.Namespace) -> None:
    """Measure and print, for a service that takes ``latency`` seconds for each response."""
    seen: dict[str, dict[str, Any]] = {}
    for way, switch in _WAYS.items():
        with serving("benchmarks.stub_server", str(latency), str(count)) as server:
            measured = wait(server, options.interval, options.seconds, *switch)
            seen[way] = {**measured, **server.stop()}
    show(f"{count} triggers, {latency:g} s for a response", seen, options)
    print()
    targets(count, seen)
    print()


def wait(server: Server, interval: float, seconds: float, *switches: str) -> dict[str, Any]:
    """Let triggers wait for all of the server's sessions, in a process of their own."""
    return answer_of(
        [sys.executable, "-m", "benchmarks.waiting_process", str(interval), str(seconds), *switches],
        seconds + _START_SECONDS,
        server.about["sessions"],
        AIRFLOW_CONN_IBM_QUANTUM_DEFAULT=connection(server),
    )


def connection(server: Server) -> str:
    """The Airflow connection, as an environment variable holds it."""
    url = server.about["url"]
    crn = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:01234567-89ab::"
    fields = {"conn_type": "ibm_quantum", "host": url, "password": "benchmark"}
    return json.dumps({**fields, "extra": {"crn": crn, "iam_url": url}})


def show(title: str, seen: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    """Print what the waiting process measured of itself, and what the service counted."""
    figures = {
        "CPU in steady state, % of a core": lambda one: one["share"] * 100,
        "requests per second in steady state": lambda one: one["rate"],
        "longest stall in start-up, ms": lambda one: one["start_up"]["stall"],
        "the same without garbage collection, ms": lambda one: one["start_up"]["without_gc"],
        "longest stall in steady state, ms": lambda one: one["steady"]["stall"],
        "the same without garbage collection, ms ": lambda one: one["steady"]["without_gc"],
        "one full garbage collection, ms": lambda one: one["full_gc"],
        "sessions read in all": lambda one: one.get("reads", 0),
        "pages of lists in all": lambda one: one.get("lists", 0),
        "connections opened": lambda one: one["connections"],
        "peak resident memory, MB": lambda one: one["rss"],
        "CPU of the service's process, % of a core": lambda one: one["cpu_seconds"] / options.seconds * 100,
    }
    table((title, *seen), [(name, *map(figure, seen.values())) for name, figure in figures.items()])


def targets(count: int, seen: dict[str, dict[str, Any]]) -> None:
    """Print the targets, for the triggers that share a list."""
    before, now = (seen[way] for way in _WAYS)
    if count in MAX_SHARES:
        share, rate = now["share"], now["rate"]
        target(f"at most {MAX_SHARES[count]:.0%} of a core", f"{share:.1%}", met=share <= MAX_SHARES[count])
        target(f"at most {MAX_RATES[count]:g} requests/s", f"{rate:.1f}", met=rate <= MAX_RATES[count])
    ratios = {name: f"{now[key] / before[key]:.2f}" for name, key in (("CPU", "share"), ("requests", "rate"))}
    print(f"ratios to single reads: {ratios}")
    for phase, key in (("start-up", "start_up"), ("steady state", "steady")):
        took = now[key]["without_gc"]
        target(
            f"no stall over {MAX_STALL:.0f} ms without garbage collection ({phase})",
            f"{took:.1f} ms",
            met=took <= MAX_STALL,
        )
    target("one token exchange", str(now["tokens"]), met=now["tokens"] == 1)
