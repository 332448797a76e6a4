# SPDX-License-Identifier: Apache-2.0
"""
A sweep of 1,000 open sessions that belong to active runs of this Airflow.

The tests' fake IBM service runs in another process. The sweep runs in Airflow by ``dag.test()``: its requests
to Airflow's API are made and counted, but stay in the process. To look at each session by itself, as a
comparison, is to read its entry, ask for its owner's state, and read it at IBM; that is done with 100 of
them, and scaled.
"""

from __future__ import annotations

import argparse
import sys

from testing.subprocesses import answer_of, serving
from testing.tables import table, target

SESSIONS = 1000
MAX_SECONDS, MAX_CALLS = 10.0, 50
_TIMEOUT = 900
_ROWS = {"each": "each session by itself", "first": "the first sweep", "later": "a later sweep"}


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    print((__doc__ or "").strip().partition("\n\n")[2] + "\n")
    with serving("benchmarks.fake_service", str(SESSIONS), "0") as server:
        request = {name: server.about[name] for name in ("sessions", "connection")}
        seen = answer_of([sys.executable, "-m", "benchmarks.sweep_process"], _TIMEOUT, request)
    table(
        (f"{SESSIONS} sessions", "seconds", "requests to IBM", "requests to Airflow"),
        [
            (name, seen[key]["seconds"], f"{seen[key]['ibm']:.0f}", f"{seen[key]['airflow']:.0f}")
            for key, name in _ROWS.items()
        ],
    )
    print()
    for key in ("first", "later"):
        seconds, ratio = seen[key]["seconds"], seen["each"]["seconds"] / seen[key]["seconds"]
        figure = f"{seconds:.1f} s, {ratio:.0f} times as fast"
        target(f"at most {MAX_SECONDS:.0f} s ({_ROWS[key]})", figure, met=seconds <= MAX_SECONDS)
    calls = seen["later"]["airflow"]
    target(f"at most {MAX_CALLS} requests to Airflow (a later sweep)", str(calls), met=calls <= MAX_CALLS)
