# SPDX-License-Identifier: Apache-2.0
"""
Plays the scenarios under one Airflow: most by themselves, side by side; some in rounds.

The blows of a round hit whatever runs, so those of a round fall together, at a time when nothing else minds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from testing.qpu_description import describe_qpu
from tests.integration.process_kills.components import WORKERS, Components, whole_airflow
from tests.integration.process_kills.observer import Stage, Verdict
from tests.integration.process_kills.scenario import Blow, Scenario


@dataclass(frozen=True)
class Round:
    """Blows that fall together, and what they kill: components, which are started anew, and workers."""

    blows: tuple[Blow, ...]
    components: tuple[str, ...]
    workers: tuple[str, ...] = ()


TRIGGERER = Round((Blow.TRIGGERER, Blow.TRIGGERER_THEN_FAILED), ("triggerer",))
SCHEDULER = Round((Blow.SCHEDULER,), ("scheduler",))
MACHINE = Round((Blow.MACHINE,), ("scheduler", "triggerer"), (WORKERS,))


def play(scenarios: Sequence[Scenario], home: Path, at_once: int) -> list[Verdict]:
    """
    One Airflow for all, a fake IBM for each.

    :param home: For Airflow, and for notes of what each fake has seen.
    :param at_once: How many are played side by side.
    """
    stages = [Stage(number, scenario, home) for number, scenario in enumerate(scenarios, 1)]
    with _services(stages), _threads(at_once) as pool:
        with whole_airflow(home) as parts:
            for stage in stages:
                # Not from the environment: a trigger has to ask for it, as on most installations.
                parts.airflow.put_connection(stage.connection)
            dag_ids = {scenario.dag for scenario in scenarios}
            parts.airflow.wait_for_dags(dag_ids)
            parts.unpause(dag_ids)
            verdicts = _Players(parts, pool, stages).play()
        for stage in stages:
            stage.look_again(verdicts[stage.number])
            (home / f"{stage.name}.log").write_text(stage.notes(), encoding="utf-8")
    return [verdicts[stage.number] for stage in stages]


class _Players:
    """Who plays what, and when."""

    def __init__(self, parts: Components, pool: ThreadPoolExecutor, stages: Iterable[Stage]) -> None:
        self._parts = parts
        self._pool = pool
        self._rounds: dict[Round, list[Stage]] = {each: [] for each in (TRIGGERER, SCHEDULER, MACHINE)}
        self._alone: list[Stage] = []
        for stage in stages:
            own = [each for each in self._rounds if stage.scenario.blow in each.blows]
            (self._rounds[own[0]] if own else self._alone).append(stage)
        # The long ones first, then those that the triggerer's death would hit.
        self._alone.sort(key=lambda stage: (-stage.scenario.bound, not stage.scenario.moment.deferred))

    def play(self) -> dict[int, Verdict]:
        """Play all; returns the verdicts by the stages' numbers."""
        alone = [self._pool.submit(self._play_alone, stage) for stage in self._alone]
        ready = {each: self._prepare(each) for each in (TRIGGERER, SCHEDULER)}
        _wait(end for stage, end in zip(self._alone, alone, strict=True) if stage.scenario.moment.deferred)
        ends = self._strike(TRIGGERER, ready[TRIGGERER])
        _wait([*alone, *ends])
        ends += self._strike(SCHEDULER, ready[SCHEDULER])
        # Not before: what the dead scheduler has started, the new one starts again.
        prepared = self._prepare(MACHINE)
        _wait(ends)
        ends += self._strike(MACHINE, prepared)
        return dict(end.result() for end in [*alone, *ends])

    def _play_alone(self, stage: Stage) -> tuple[int, Verdict]:
        """Strike when its moment has come."""
        try:
            stage.prepare(self._parts)
            with self._parts.losses.turn() if stage.scenario.blow == Blow.WORKER else nullcontext():
                stage.struck()
                stage.strike()
            return _told(stage, stage.finish())
        except Exception as error:
            self._parts.pause(0)  # what fails once all is being stopped is no news
            return _told(stage, stage.failed(error))

    def _prepare(self, which: Round) -> list[Future[None]]:
        return [self._pool.submit(stage.prepare, self._parts) for stage in self._rounds[which]]

    def _strike(self, which: Round, ready: list[Future[None]]) -> list[Future[tuple[int, Verdict]]]:
        """Strike once, when the moments of all have come."""
        stages = self._rounds[which]
        if not stages:
            return []
        troubles = [each.exception() for each in ready]
        for stage in stages:
            stage.struck()
        self._parts.kill(*which.components, *which.workers)
        for stage, trouble in zip(stages, troubles, strict=True):
            if trouble is None:
                stage.strike()
        for name in which.components:
            self._parts.start(name)
        return [
            self._pool.submit(self._finish, stage, trouble)
            for stage, trouble in zip(stages, troubles, strict=True)
        ]

    def _finish(self, stage: Stage, trouble: BaseException | None) -> tuple[int, Verdict]:
        try:
            return _told(stage, stage.finish() if trouble is None else stage.failed(trouble))
        except Exception as error:
            self._parts.pause(0)
            return _told(stage, stage.failed(error))


@contextmanager
def _services(stages: Iterable[Stage]) -> Iterator[None]:
    with ExitStack() as stack:
        for stage in stages:
            describe_qpu(stage.ibm)
            stack.enter_context(stage.ibm)
        yield


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """When it ends early, those that wait for their turn do not begin, and the others are stopped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _wait(ends: Iterable[Future[tuple[int, Verdict]]]) -> None:
    for end in ends:
        end.result()


def _told(stage: Stage, verdict: Verdict) -> tuple[int, Verdict]:
    """Say at once how it has ended, as the whole takes minutes."""
    how = "; ".join(verdict.trouble) or "clean"
    print(f"{time.strftime('%H:%M:%S')}  {verdict.scenario}: {how}", file=sys.stderr, flush=True)
    return stage.number, verdict
