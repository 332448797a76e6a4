# SPDX-License-Identifier: Apache-2.0
"""
Runs the scenarios under one Airflow: most of them independently, side by side; some in rounds.

The failures of a round hit everything that runs, so they happen together, when no other scenario is affected.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.integration.process_kills.components import WORKERS, Components, whole_airflow
from tests.integration.process_kills.observer import Observer, Result
from tests.integration.process_kills.scenario import Failure, Scenario


@dataclass(frozen=True)
class Round:
    """Failures that happen together: the components that are killed and restarted, and the workers."""

    failures: tuple[Failure, ...]
    components: tuple[str, ...]
    workers: tuple[str, ...] = ()


TRIGGERER = Round((Failure.TRIGGERER, Failure.TRIGGERER_THEN_FAILED), ("triggerer",))
SCHEDULER = Round((Failure.SCHEDULER,), ("scheduler",))
MACHINE = Round((Failure.MACHINE,), ("scheduler", "triggerer"), (WORKERS,))


def run_scenarios(scenarios: Sequence[Scenario], home: Path, at_once: int) -> list[Result]:
    """
    Run all scenarios under one Airflow, with a fake IBM for each.

    :param home: Directory for Airflow, and for notes of what each fake has seen.
    :param at_once: How many scenarios run side by side.
    """
    observers = [Observer(number, scenario, home) for number, scenario in enumerate(scenarios, 1)]
    with _services(observers), _threads(at_once) as pool:
        with whole_airflow(home) as parts:
            for observer in observers:
                # Not from the environment: a trigger has to ask for it, as on most installations.
                parts.airflow.put_connection(observer.connection)
            dag_ids = {scenario.dag for scenario in scenarios}
            parts.airflow.wait_for_dags(dag_ids)
            parts.unpause(dag_ids)
            results = _Schedule(parts, pool, observers).run()
        for observer in observers:
            observer.check_again(results[observer.number])
            (home / f"{observer.name}.log").write_text(observer.notes(), encoding="utf-8")
    return [results[observer.number] for observer in observers]


class _Schedule:
    """The order in which the scenarios run."""

    def __init__(self, parts: Components, pool: ThreadPoolExecutor, observers: Iterable[Observer]) -> None:
        self._parts = parts
        self._pool = pool
        self._rounds: dict[Round, list[Observer]] = {each: [] for each in (TRIGGERER, SCHEDULER, MACHINE)}
        self._alone: list[Observer] = []
        for observer in observers:
            own = [each for each in self._rounds if observer.scenario.failure in each.failures]
            (self._rounds[own[0]] if own else self._alone).append(observer)
        # The long ones first, then those that the triggerer's death would hit.
        self._alone.sort(
            key=lambda observer: (-observer.scenario.time_limit, not observer.scenario.moment.deferred)
        )

    def run(self) -> dict[int, Result]:
        """Run all; return the results by the observers' numbers."""
        alone = [self._pool.submit(self._run_alone, observer) for observer in self._alone]
        ready = {each: self._prepare(each) for each in (TRIGGERER, SCHEDULER)}
        _wait(
            end for observer, end in zip(self._alone, alone, strict=True) if observer.scenario.moment.deferred
        )
        ends = self._cause_failures(TRIGGERER, ready[TRIGGERER])
        _wait([*alone, *ends])
        ends += self._cause_failures(SCHEDULER, ready[SCHEDULER])
        # Not before: what the dead scheduler has started, the new one starts again.
        prepared = self._prepare(MACHINE)
        _wait(ends)
        ends += self._cause_failures(MACHINE, prepared)
        return dict(end.result() for end in [*alone, *ends])

    def _run_alone(self, observer: Observer) -> tuple[int, Result]:
        """Cause the failure when its moment has come."""
        try:
            observer.prepare(self._parts)
            with self._parts.losses.turn() if observer.scenario.failure == Failure.WORKER else nullcontext():
                observer.start_clock()
                observer.cause_failure()
            return _print_end(observer, observer.finish())
        except Exception as error:
            self._parts.pause(0)  # an error once everything is being stopped is not reported
            return _print_end(observer, observer.failed(error))

    def _prepare(self, which: Round) -> list[Future[None]]:
        return [self._pool.submit(observer.prepare, self._parts) for observer in self._rounds[which]]

    def _cause_failures(self, which: Round, ready: list[Future[None]]) -> list[Future[tuple[int, Result]]]:
        """Cause the failures of a round at once, when the moments of all its scenarios have come."""
        observers = self._rounds[which]
        if not observers:
            return []
        errors = [each.exception() for each in ready]
        for observer in observers:
            observer.start_clock()
        self._parts.kill(*which.components, *which.workers)
        for observer, error in zip(observers, errors, strict=True):
            if error is None:
                observer.cause_failure()
        for name in which.components:
            self._parts.start(name)
        return [
            self._pool.submit(self._finish, observer, error)
            for observer, error in zip(observers, errors, strict=True)
        ]

    def _finish(self, observer: Observer, error: BaseException | None) -> tuple[int, Result]:
        try:
            return _print_end(observer, observer.finish() if error is None else observer.failed(error))
        except Exception as exception:
            self._parts.pause(0)
            return _print_end(observer, observer.failed(exception))


@contextmanager
def _services(observers: Iterable[Observer]) -> Iterator[None]:
    with ExitStack() as stack:
        for observer in observers:
            stack.enter_context(observer.ibm)
        yield


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool. On an early end, what waits for its turn does not start, and the rest is stopped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _wait(ends: Iterable[Future[tuple[int, Result]]]) -> None:
    for end in ends:
        end.result()


def _print_end(observer: Observer, result: Result) -> tuple[int, Result]:
    """Print the end of a scenario at once, as the whole takes minutes."""
    outcome = "; ".join(result.problems) or "clean"
    print(f"{time.strftime('%H:%M:%S')}  {result.scenario}: {outcome}", file=sys.stderr, flush=True)
    return observer.number, result
