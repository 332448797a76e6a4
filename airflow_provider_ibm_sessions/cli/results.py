# SPDX-License-Identifier: Apache-2.0
"""Results of a job as people read them: histograms of counts, tables of expectation values."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from airflow_provider_ibm_sessions.cli import output
from airflow_provider_ibm_sessions.cli.histogram import BLOCK, histogram
from airflow_provider_ibm_sessions.client.results import DecodedResults

MAX_POINTS: Final = 16
"""Histograms that are printed of a pub over an array of parameters."""

_ERRORS: Final = ("stds", "ensemble_standard_error")


def print_results(results: DecodedResults, *, most: int, by_register: bool = False) -> None:
    """
    Print the results of a job.

    :param most: Outcomes that a histogram shows.
    :param by_register: Print a histogram for each register, in place of one over all of them.
    """
    if results.format == "sampler":
        for line in _sampler_lines(results.results, most, by_register=by_register):
            print(line)
    elif results.format == "estimator":
        rows = [row for index, pub in enumerate(results.results) for row in _estimator_rows(index, pub)]
        errors = [name for name in _ERRORS if any(row.get(name) is not None for row in rows)]
        output.print_rows(rows, ["pub", "point", "evs", *errors])
    else:
        print(f"Results of the format {results.format} are printed as JSON", file=sys.stderr)
        output.print_json(results.results)


def _sampler_lines(pubs: list[Any], most: int, *, by_register: bool) -> Iterator[str]:
    columns = shutil.get_terminal_size().columns
    try:
        BLOCK.encode(getattr(sys.stdout, "encoding", None) or "ascii")
        block = BLOCK
    except UnicodeEncodeError:
        block = "#"
    for index, pub in enumerate(pubs):
        if "error" in pub:
            yield f"Pub {index}: unreadable"
        elif "counts" not in pub:
            names = ", ".join(pub.get("data", {})) or "nothing"
            yield output.printable(f"Pub {index}: no counts, but {names}; see --json")
        shots = f"{pub.get('num_shots')} shots"
        for name, counts in _counts_of(pub, by_register=by_register):
            points: Iterator[tuple[tuple[int, ...], Mapping[str, int]]] = _points(counts)
            for point, at_point in islice(points, MAX_POINTS):
                place = f", point {list(point)}" if point else ""
                yield output.printable(f"Pub {index}{place}: {shots}, {name}")
                yield from (
                    f"  {line}" for line in histogram(at_point, most=most, columns=columns - 2, block=block)
                )
            if left_out := sum(1 for _ in points):
                yield f"Pub {index}: {left_out} more points; see --json"


def _counts_of(pub: Mapping[str, Any], *, by_register: bool) -> Iterator[tuple[str, Any]]:
    """Yield counts, and the names of their registers."""
    registers: dict[str, Any] = pub.get("counts", {})
    if by_register or len(registers) == 1:
        yield from ((f"register {name}", counts) for name, counts in registers.items())
    elif registers:
        # The first register's bits stand on the right, as in Qiskit.
        yield f"registers {' '.join(reversed(registers))}, from left to right", pub["joint_counts"]


def _estimator_rows(index: int, pub: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each expectation value."""
    if "error" in pub:
        yield {"pub": index, "evs": "unreadable"}
        return
    errors = {name: dict(_points(pub.get(name))) for name in _ERRORS}
    for point, value in _points(pub.get("evs")):
        row = {"pub": index, "point": json.dumps(point) if point else None, "evs": _number(value)}
        yield row | {name: _number(values.get(point)) for name, values in errors.items()}


def _points(values: Any, place: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield what stands at each point of nested lists, with its place in them."""
    if not isinstance(values, list):
        yield place, values
        return
    for index, value in enumerate(values):
        yield from _points(value, (*place, index))


def _number(value: Any) -> str | None:
    return f"{value:.6g}" if isinstance(value, int | float) else value
