# SPDX-License-Identifier: Apache-2.0
"""
Deferred sensors waiting at once on one event loop (1,000 is Airflow's default per triggerer).

They poll the tests' fake IBM service, which runs in another process and keeps the books.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.children import Server, answer_of, serving
from benchmarks.tables import table, target

MAX_SHARE, MAX_STALL = 0.25, 100.0
_START_SECONDS = 120


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    with serving("benchmarks.fake_service", str(options.triggers)) as server:
        seen = answer_of(
            [sys.executable, "-m", "benchmarks.waiting_process", str(options.interval), str(options.seconds)],
            {**os.environ, "AIRFLOW_CONN_IBM_QUANTUM_DEFAULT": connection(server)},
            options.seconds + _START_SECONDS,
            server.about["sessions"],
        )
        books = server.stop()
    print(
        f"{options.triggers} triggers, polling every {options.interval:g} s for {options.seconds:g} s; "
        f"start-up is the first {options.interval:g} s.\n"
        "Stall: what a task that sleeps 5 ms over and over oversleeps; idle: that task alone.\n"
    )
    show(seen, books, options)
    print()
    verdicts(seen, books)


def connection(server: Server) -> str:
    """The Airflow connection, as an environment variable holds it."""
    about = server.about
    extra = {"crn": about["crn"], "iam_url": about["iam_url"]}
    fields = {"conn_type": "ibm_quantum", "host": about["host"], "password": about["password"]}
    return json.dumps({**fields, "extra": extra})


def show(seen: Mapping[str, Any], books: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print what the waiting process measured of itself, and what the service counted."""
    table(
        ("phase", "CPU, % of a core", "longest stall, ms"),
        [(name, seen[key]["share"] * 100, seen[key]["stall"]) for name, key in _PHASES.items()],
    )
    per_poll = seen["steady"]["share"] * options.interval / options.triggers
    print()
    table(
        ("whole run", "figure"),
        [
            ("polls", books["requests"].get("get_session", 0)),
            ("CPU per poll in steady state, ms", f"{per_poll * 1000:.2f}"),
            ("connections opened", books["connections"]),
            ("token exchanges", books["token_exchanges"]),
            ("peak resident memory, MB", seen["rss"]),
            ("the service's own CPU, % of another core", books["cpu_seconds"] / options.seconds * 100),
        ],
    )


_PHASES = {"idle": "idle", "start-up": "start_up", "steady state": "steady"}


def verdicts(seen: Mapping[str, Any], books: Mapping[str, Any]) -> None:
    """Print the targets."""
    share, exchanges = seen["steady"]["share"], books["token_exchanges"]
    target(f"at most {MAX_SHARE:.0%} of a core", f"{share:.1%}", met=share <= MAX_SHARE)
    for name, key in list(_PHASES.items())[1:]:
        stall = seen[key]["stall"]
        target(f"no stall over {MAX_STALL:.0f} ms ({name})", f"{stall:.1f} ms", met=stall <= MAX_STALL)
    target("one token exchange", str(exchanges), met=exchanges == 1)
