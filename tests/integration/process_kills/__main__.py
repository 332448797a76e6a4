# SPDX-License-Identifier: Apache-2.0
"""
Kill processes of a whole Airflow, and print what became of the sessions and the jobs.

Run it with ``python -m tests.integration.process_kills``. The exit code is 0 only if every scenario was clean
within its time limit.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from testing.tables import table
from testing.time_limit import at_most
from tests.integration.process_kills.cases import ALL
from tests.integration.process_kills.observer import Result
from tests.integration.process_kills.runner import run_scenarios

AT_ONCE = 20
"""Enough to keep two cores busy, and not so many that a task waits for long."""


def main() -> int:
    """Run the scenarios that the command line names; return the exit code."""
    parser = _parser()
    options = parser.parse_args()
    if unknown := [text for text in options.only if not any(text in str(each) for each in ALL)]:
        parser.error(f"no scenario's row contains {unknown[0]!r}; --list shows them")
    chosen = [each for each in ALL if any(text in str(each) for text in options.only)]
    if options.list:
        table(
            ("scenario", "failure", "limit, s"),
            [(each.name, each.failure, each.time_limit) for each in chosen],
        )
        return 0
    started = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    keep_logs = True
    try:
        with at_most(options.limit):
            results = run_scenarios(chosen, home, options.at_once)
        show(results, time.monotonic() - started)
        keep_logs = any(each.problems for each in results)
    except KeyboardInterrupt:
        keep_logs = False
        return 130
    finally:
        if keep_logs:
            print(f"Logs of Airflow, and the requests that IBM has seen: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    return int(keep_logs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.process_kills", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="run the scenarios whose row contains it"
    )
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="side by side (default: %(default)s)")
    parser.add_argument(
        "--limit", type=int, default=900, metavar="SECONDS", help="give up after so many seconds"
    )
    parser.add_argument("--list", action="store_true", help="show the scenarios and end")
    return parser


def show(results: Sequence[Result], seconds: float) -> None:
    """Print the table and the totals."""
    head = ("scenario", "failure", "run", "limit, s", "took, s", "sessions", "lost", "jobs", "twice", "clean")
    table(head, [_row(each) for each in results])
    unclean = [each for each in results if each.problems]
    for each in unclean:
        print(f"NOT CLEAN: {each.scenario}: {'; '.join(each.problems)}")
    slowest = max(results, key=lambda each: each.took)
    print(
        f"scenarios: {len(results)}, {len(unclean)} of them not clean\n"
        f"sessions opened: {sum(sum(each.sessions.values()) for each in results)}\n"
        f"sessions lost: {sum(each.lost for each in results)}\n"
        f"jobs submitted: {sum(sum(each.jobs.values()) for each in results)}\n"
        f"jobs submitted twice: {sum(each.twice for each in results)}\n"
        f"slowest scenario: {slowest.took:.0f} s, {slowest.scenario}\n"
        f"total time: {seconds:.0f} s"
    )


def _row(result: Result) -> tuple[object, ...]:
    scenario = result.scenario
    return (
        scenario.name,
        scenario.failure,
        result.run,
        f"{scenario.time_limit:.0f}",
        result.took,
        _counts(result.sessions),
        result.lost,
        _counts(result.jobs),
        result.twice,
        "NO" if result.problems else "yes",
    )


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in numbers.items()) or "none"


if __name__ == "__main__":
    sys.exit(main())
