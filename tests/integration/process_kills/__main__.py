# SPDX-License-Identifier: Apache-2.0
"""
Kills what can die under a whole Airflow, and prints what became of the sessions: ``python -m
tests.integration.process_kills``.

Exit code 0 only if every scenario was clean within its bound.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from testing.tables import table
from tests.integration.process_kills.cases import ALL
from tests.integration.process_kills.observer import Verdict
from tests.integration.process_kills.runner import play

AT_ONCE = 20
"""What keeps two cores busy, and no task waiting for long."""


def main() -> int:
    """The command line."""
    options = _parser().parse_args()
    chosen = [each for each in ALL if any(text in str(each) for text in options.only)]
    if options.list:
        table(("scenario", "killed", "bound, s"), [(each.name, each.blow, each.bound) for each in chosen])
        return 0
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    is_wanted = True
    try:
        with _at_most(options.limit):
            verdicts = play(chosen, home, options.retry_immediately)
        show(verdicts, time.monotonic() - began)
        is_wanted = any(each.trouble for each in verdicts)
    except KeyboardInterrupt:
        is_wanted = False
        return 130
    finally:
        if is_wanted:
            print(f"Logs, and what IBM has seen: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    return int(is_wanted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.process_kills", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="scenarios whose row has it")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="side by side (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=900, metavar="SECONDS", help="give up after these")
    parser.add_argument("--list", action="store_true", help="show the scenarios and end")
    return parser


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def show(verdicts: Sequence[Verdict], seconds: float) -> None:
    """Print the table and the totals."""
    head = ("scenario", "killed", "run", "bound, s", "took, s", "sessions", "lost", "jobs", "twice", "clean")
    table(head, [_row(each) for each in verdicts])
    unclean = [each for each in verdicts if each.trouble]
    for each in unclean:
        print(f"NOT CLEAN: {each.scenario}: {'; '.join(each.trouble)}")
    slowest = max(verdicts, key=lambda each: each.took)
    print(
        f"scenarios: {len(verdicts)}, {len(unclean)} of them not clean\n"
        f"sessions made: {sum(sum(each.sessions.values()) for each in verdicts)}\n"
        f"sessions lost: {sum(each.lost for each in verdicts)}\n"
        f"jobs submitted: {sum(sum(each.jobs.values()) for each in verdicts)}\n"
        f"jobs submitted twice: {sum(each.twice for each in verdicts)}\n"
        f"slowest scenario: {slowest.took:.0f} s, {slowest.scenario}\n"
        f"all: {seconds:.0f} s"
    )


def _row(verdict: Verdict) -> tuple[object, ...]:
    scenario = verdict.scenario
    return (
        scenario.name,
        scenario.blow,
        verdict.run,
        f"{scenario.bound:.0f}",
        verdict.took,
        _counts(verdict.sessions),
        verdict.lost,
        _counts(verdict.jobs),
        verdict.twice,
        "NO" if verdict.trouble else "yes",
    )


def _counts(books: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in books.items()) or "none"


if __name__ == "__main__":
    sys.exit(main())
