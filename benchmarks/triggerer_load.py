# SPDX-License-Identifier: Apache-2.0
"""
Deferred sensors waiting at once on one event loop (1,000 is Airflow's default per triggerer).

They poll the tests' fake IBM service, which runs in another process and records the requests.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from testing.subprocesses import Server, answer_of, serving
from testing.tables import table, target

MAX_SHARE, MAX_STALL = 0.25, 100.0
_START_SECONDS = 120


def run(options: argparse.Namespace) -> None:
    """Measure and print, for each latency."""
    with serving("benchmarks.fake_service", "1", "0") as server:
        wait(server, 0.2, 1)  # not counted: it fills caches
    for latency in options.latency:
        run_one(latency, options)


def run_one(latency: float, options: argparse.Namespace) -> None:
    """Measure and print, for a service that takes ``latency`` seconds for each response."""
    with serving("benchmarks.fake_service", str(options.triggers), str(latency)) as server:
        seen = wait(server, options.interval, options.seconds)
        recorded = server.stop()
    half = (options.seconds - options.interval) / 2
    print(
        f"{options.triggers} triggers, polling every {options.interval:g} s a service that answers after "
        f"{latency:g} s.\nStart-up: the first {options.interval:g} s; then {half:g} s for stalls and "
        f"{half:g} s for CPU.\n"
        "Stall: what a task that sleeps 5 ms over and over oversleeps. Garbage collection: Python's own; a\n"
        "full one goes through all objects of the process, which for the most part are Airflow's.\n"
    )
    show(seen, recorded, options)
    print()
    targets(seen, recorded)
    print()


def wait(server: Server, interval: float, seconds: float) -> dict[str, Any]:
    """Let triggers wait for all of the server's sessions, in a process of their own."""
    return answer_of(
        [sys.executable, "-m", "benchmarks.waiting_process", str(interval), str(seconds)],
        seconds + _START_SECONDS,
        server.about["sessions"],
        AIRFLOW_CONN_IBM_QUANTUM_DEFAULT=connection(server),
    )


def connection(server: Server) -> str:
    """The Airflow connection, as an environment variable holds it."""
    about = server.about
    extra = {"crn": about["crn"], "iam_url": about["iam_url"]}
    fields = {"conn_type": "ibm_quantum", "host": about["host"], "password": about["password"]}
    return json.dumps({**fields, "extra": extra})


def show(seen: Mapping[str, Any], recorded: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print what the waiting process measured of itself, and what the service counted."""
    table(
        (f"{options.triggers} triggers", "figure"),
        [
            ("CPU in steady state, % of a core", seen["share"] * 100),
            (
                "the same per poll due, ms",
                f"{seen['share'] * options.interval / options.triggers * 1000:.2f}",
            ),
            ("longest stall in start-up, ms", seen["start_up"]["stall"]),
            ("the same without garbage collection, ms", seen["start_up"]["without_gc"]),
            ("longest stall in steady state, ms", seen["steady"]["stall"]),
            ("the same without garbage collection, ms", seen["steady"]["without_gc"]),
            ("one full garbage collection, ms", seen["full_gc"]),
            ("polls due, about", f"{options.triggers * options.seconds / options.interval:.0f}"),
            ("polls made", recorded["requests"].get("get_session", 0)),
            ("connections opened", recorded["connections"]),
            ("token exchanges", recorded["token_exchanges"]),
            ("peak resident memory, MB", seen["rss"]),
            ("CPU of the service's process, % of a core", recorded["cpu_seconds"] / options.seconds * 100),
        ],
    )


def targets(seen: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """Print the targets."""
    share, exchanges = seen["share"], recorded["token_exchanges"]
    target(f"at most {MAX_SHARE:.0%} of a core", f"{share:.1%}", met=share <= MAX_SHARE)
    for phase, key in (("start-up", "start_up"), ("steady state", "steady")):
        for what, stall in ((phase, "stall"), (f"{phase}, without garbage collection", "without_gc")):
            took = seen[key][stall]
            target(f"no stall over {MAX_STALL:.0f} ms ({what})", f"{took:.1f} ms", met=took <= MAX_STALL)
    target("one token exchange", str(exchanges), met=exchanges == 1)
