# SPDX-License-Identifier: Apache-2.0
"""
Kills what can die under a whole Airflow, and prints what became of the sessions: ``python -m tests.kills``.

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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks.idle.service import serve_qiskit
from benchmarks.tables import table
from tests.kills.catalogue import ALL
from tests.kills.components import WORKERS, Components, whole_airflow
from tests.kills.scenario import ROUNDS, Blow, Scenario
from tests.kills.stage import Stage, Verdict

HIT = {
    Blow.TRIGGERER: ("triggerer",),
    Blow.SCHEDULER: ("scheduler",),
    Blow.MACHINE: ("scheduler", "triggerer", WORKERS),
}
"""What dies in a round, by its first blow; what is a component is started anew."""
AT_ONCE = 10
"""Scenarios that are played side by side."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="scenarios whose row has it")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="side by side (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=900, metavar="SECONDS", help="give up after these")
    parser.add_argument("--list", action="store_true", help="show the scenarios and end")
    options = parser.parse_args()
    chosen = [each for each in ALL if any(text in f"{each.name} | {each.blow}" for text in options.only)]
    if options.list:
        table(("scenario", "killed", "bound, s"), [(each.name, each.blow, each.bound) for each in chosen])
        return 0
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(options.limit)
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    verdicts = play(chosen, home, options.at_once)
    signal.alarm(0)
    clean = show(verdicts, time.monotonic() - began)
    if clean:
        shutil.rmtree(home, ignore_errors=True)
    else:
        print(f"Logs and what IBM has seen: {home}")
    return 0 if clean else 1


def _give_up(*_: object) -> None:
    raise TimeoutError("the time limit is over")


def play(scenarios: Sequence[Scenario], home: Path, at_once: int) -> list[Verdict]:
    """One Airflow for all, a fake IBM for each."""
    with ExitStack() as stack:
        stages = [Stage(number, scenario, home) for number, scenario in enumerate(scenarios, 1)]
        for stage in stages:
            serve_qiskit(stage.ibm)
            stack.enter_context(stage.ibm)
        pool = stack.enter_context(ThreadPoolExecutor(at_once))
        connections = {stage.connection: stage.secret for stage in stages}
        parts = stack.enter_context(whole_airflow(home, connections))
        dag_ids = {scenario.dag for scenario in scenarios}
        parts.airflow.wait_for_dags(dag_ids)
        parts.unpause(dag_ids)
        alone = [stage for stage in stages if not any(stage.scenario.blow in each for each in ROUNDS)]
        verdicts = list(pool.map(lambda stage: play_alone(stage, parts), alone))
        for blows in ROUNDS:
            together = [stage for stage in stages if stage.scenario.blow in blows]
            verdicts += play_together(together, parts, pool)
        for number, stage in enumerate(stages, 1):
            (home / f"ibm-{number}.log").write_text(stage.notes(), encoding="utf-8")
    return verdicts


def play_alone(stage: Stage, parts: Components) -> Verdict:
    """Strike when its moment has come."""
    try:
        stage.prepare(parts)
        with parts.losses.turn():
            stage.struck()
            stage.strike()
        return _told(stage.finish())
    except Exception as error:
        return _told(stage.failed(error))


def play_together(stages: list[Stage], parts: Components, pool: ThreadPoolExecutor) -> Iterator[Verdict]:
    """Strike once, when the moments of all have come."""
    if not stages:
        return
    ready = [pool.submit(stage.prepare, parts) for stage in stages]
    troubles = [each.exception() for each in ready]
    for stage in stages:
        stage.struck()
    names = HIT[stages[0].scenario.blow]
    parts.kill(*names)
    for stage, trouble in zip(stages, troubles, strict=True):
        if trouble is None:
            stage.strike()
    parts.start(*(name for name in names if name != WORKERS))
    ends = [pool.submit(stage.finish) for stage in stages]
    for stage, trouble, end in zip(stages, troubles, ends, strict=True):
        yield _told(stage.failed(trouble) if isinstance(trouble, Exception) else end.result())


def _told(verdict: Verdict) -> Verdict:
    """Say at once how it has ended, as the whole takes minutes."""
    how = "; ".join(verdict.trouble) or "clean"
    what = f"{time.strftime('%H:%M:%S')}  {verdict.scenario.name} ({verdict.scenario.blow})"
    print(f"{what}: {how}", file=sys.stderr, flush=True)
    return verdict


def show(verdicts: Sequence[Verdict], seconds: float) -> bool:
    """Print the table and the totals; returns whether all is clean."""
    table(
        ("scenario", "killed", "run", "bound, s", "took, s", "sessions", "jobs", "clean"),
        [
            (
                each.scenario.name,
                each.scenario.blow,
                each.run,
                each.scenario.bound,
                each.took,
                _counts(each.sessions),
                _counts(each.jobs),
                "NO" if each.trouble else "yes",
            )
            for each in verdicts
        ],
    )
    unclean = [each for each in verdicts if each.trouble]
    for each in unclean:
        print(f"NOT CLEAN: {each.scenario.name} ({each.scenario.blow}): {'; '.join(each.trouble)}")
    sessions = sum(sum(each.sessions.values()) for each in verdicts)
    jobs = sum(sum(each.jobs.values()) for each in verdicts)
    slowest = max((each.took for each in verdicts), default=0)
    print(
        f"{len(verdicts)} scenarios, {len(verdicts) - len(unclean)} clean; "
        f"{sessions} sessions and {jobs} jobs; slowest {slowest:.0f} s, "
        f"all in {seconds:.0f} s"
    )
    return not unclean


def _counts(books: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in books.items()) or "none"


if __name__ == "__main__":
    sys.exit(main())
