# SPDX-License-Identifier: Apache-2.0
"""
Waits that a triggerer takes over when another one has died: how soon the last one is polled.

Their sessions have closed meanwhile, and each trigger says so once it has read its session.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.triggerer_load import connection
from testing.subprocesses import answer_of, serving
from testing.tables import table, target

MAX_SECONDS = 10.0
_INTERVALS = (10, 30)
_SECONDS = 400


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    rows, last = [], 0.0
    for interval in _INTERVALS:
        before, now = (measured(options.taken_over, interval, *switch) for switch in (["--singly"], []))
        last = max(last, now["last"])
        rows.append((f"every {interval} s", *before.values(), *now.values(), now["last"] / before["last"]))
    head = ("median before, s", "last before, s", "median, s", "last, s", "ratio of the last")
    table((f"{options.taken_over} triggers, polling", *head), rows)
    print()
    target(
        f"the last one at most {MAX_SECONDS:g} s after the hand-over",
        f"{last:.1f} s",
        met=last <= MAX_SECONDS,
    )


def measured(count: int, interval: float, *switches: str) -> dict[str, float]:
    """Return the seconds until the median and the last event, in a process of its own."""
    with serving("benchmarks.stub_server", "0", str(count), "closed") as server:
        command = [sys.executable, "-m", "benchmarks.waiting_process", str(interval), "0", "--hand-over"]
        variable = {"AIRFLOW_CONN_IBM_QUANTUM_DEFAULT": connection(server)}
        return answer_of([*command, *switches], _SECONDS, server.about["sessions"], **variable)
