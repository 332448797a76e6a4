# SPDX-License-Identifier: Apache-2.0
"""
An estimate of QPU seconds before a job is submitted, by the formula of IBM's documentation.

It is a lower bound: what a job adds on the QPU, such as the mitigation of errors, is not in it, and neither
is what a dedicated session is billed for between its jobs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from airflow_provider_ibm_sessions.client._results.arrays import Array, MemoryBudget
from airflow_provider_ibm_sessions.client._results.encoding import type_of
from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.usage import cost_of, format_money, format_seconds

OVERHEAD_SECONDS: Final = Decimal(2)
"""QPU time of a job whatever it runs."""

EXECUTION_SECONDS: Final = Decimal("0.00035")
"""QPU time of one execution of a circuit."""

DEFAULT_SHOTS: Final = 4096
DEFAULT_PRECISION: Final = 0.015625
_MAX_ARRAY_BYTES: Final = 2**26


@dataclass(frozen=True, slots=True)
class UsageEstimate:
    """
    A lower bound of what some jobs use.

    :param executions: How often their circuits are executed.
    :param cost: The price of the seconds; None if the connection has none.
    """

    qpu_seconds: Decimal
    executions: int
    cost: Decimal | None = None
    currency: str | None = None

    def __str__(self) -> str:
        price = "" if self.cost is None else f", {format_money(self.cost, self.currency or '')}"
        return f"{format_seconds(self.qpu_seconds)} s of QPU time{price}"


def estimate_usage(
    jobs: Iterable[Mapping[str, Any]], price_per_second: Decimal | None = None, currency: str | None = None
) -> UsageEstimate:
    """
    Return what jobs use at least.

    :param jobs: Their fields, as they are submitted: ``program_id`` and ``params``.
    """
    seconds = Decimal(0)
    executions = 0
    for job in jobs:
        count = count_executions(str(job.get("program_id")), job.get("params") or {})
        seconds += OVERHEAD_SECONDS + EXECUTION_SECONDS * count
        executions += count
    return UsageEstimate(seconds, executions, cost_of(seconds, price_per_second), currency)


def count_executions(program_id: str, params: Mapping[str, Any]) -> int:
    """Return how often the circuits of a job are executed at least; 0 for a program that is not known."""
    options = _mapping(params.get("options"))
    if program_id == "sampler":
        default = _number(params.get("shots")) or _number(options.get("default_shots")) or DEFAULT_SHOTS
        pubs = [_parts(pub) for pub in _items(params.get("pubs"))]
        return sum(_twirled(int(_number(pub[2]) or default), options) * _sets(pub[1]) for pub in pubs)
    if program_id == "estimator":
        shots = _number(options.get("default_shots"))
        precision = _number(params.get("precision")) or _number(options.get("default_precision"))
        precision = precision or (1 / math.sqrt(shots) if shots else DEFAULT_PRECISION)
        pubs = [_parts(pub) for pub in _items(params.get("pubs"))]
        needed = [max(1, round(1 / (_number(pub[3]) or precision) ** 2)) for pub in pubs]
        return sum(_twirled(each, options) * _sets(pub[2]) for each, pub in zip(needed, pubs, strict=True))
    if program_id == "executor":
        program = _mapping(params.get("quantum_program"))
        return int(_number(program.get("shots")) or 0) * len(_items(program.get("items")))
    return 0


def _twirled(shots: int, options: Mapping[str, Any]) -> int:
    """Return the shots of one circuit: twirling may ask for more, in randomizations of some shots each."""
    twirling = _mapping(options.get("twirling"))
    if not (twirling.get("enable_gates") or twirling.get("enable_measure")):
        return shots
    randomizations, each = (
        _number(twirling.get(name)) for name in ("num_randomizations", "shots_per_randomization")
    )
    if randomizations and each:
        return max(shots, int(randomizations * each))
    return math.ceil(shots / randomizations) * int(randomizations) if randomizations else shots


def _sets(values: Any) -> int:
    """Return how many sets of parameters a circuit is run with: 1 where that cannot be read."""
    if type_of(values) == "ndarray":
        try:
            shape: tuple[int, ...] = Array.from_npy(values["__value__"], MemoryBudget(_MAX_ARRAY_BYTES)).shape
        except BadResponseError:
            return 1
        return max(1, math.prod(shape[:-1]))
    if isinstance(values, Mapping):  # by the parameter's name: arrays of one shape
        return max((_length(each) for each in values.values()), default=1)
    if isinstance(values, list | tuple) and values and isinstance(values[0], list | tuple):
        return sum(_sets(each) for each in values)
    return 1


def _length(values: Any) -> int:
    """Return how many values a parameter has."""
    if isinstance(values, list | tuple):
        return sum(_length(each) for each in values)
    return 1


def _parts(pub: Any) -> list[Any]:
    """Return a pub's four parts; a circuit alone is one, too."""
    parts = list(pub) if isinstance(pub, list | tuple) else [pub]
    return [*parts, None, None, None, None][:4]


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """Return a number above 0, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e15 else None
