# SPDX-License-Identifier: Apache-2.0
"""The matrix as a printed report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from .cells import FAMILIES
from .checks import COLUMNS, CellResult
from .expectations import time_limit


def report(results: list[CellResult], seconds: float) -> str:
    """Return a table with a row for each operation and class of faults, and below it what is wrong."""
    rows = [["operation", "faults", "cells", "sessions", *COLUMNS, "slowest"]]
    for name in dict.fromkeys(result.cell.operation.name for result in results):
        rows += _rows(name, [each for each in results if each.cell.operation.name == name])
    rows.append(["total", "", *_numbers(results)])
    lines = [*_aligned(rows), "", *_unclean(results), _slowest(results), _unreachable(results)]
    return "\n".join([*lines, _totals(results, seconds)])


def _rows(name: str, results: list[CellResult]) -> Iterator[list[str]]:
    for family in FAMILIES:
        if chosen := [each for each in results if each.cell.fault.family == family]:
            yield [name, family, *_numbers(chosen)]
            name = ""


def _numbers(results: list[CellResult]) -> list[str]:
    wrong = Counter(column for each in results for column in {column for column, _ in each.findings})
    slowest = max((each.seconds for each in results), default=0.0)
    numbers = [len(results), sum(each.sessions for each in results), *(wrong[name] for name in COLUMNS)]
    return [*(str(number) for number in numbers), f"{slowest:.1f} s"]


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(padded)


def _unclean(results: Iterable[CellResult]) -> Iterator[str]:
    for each in results:
        if each.findings:
            yield f"{each.cell}   [{each.tasks}]"
            yield from (f"    {column}: {text}" for column, text in each.findings)


def _slowest(results: list[CellResult]) -> str:
    if not results:
        return "no cell"
    slowest = max(results, key=lambda each: each.seconds)
    return f"Slowest cell: {slowest.cell}: {slowest.seconds:.1f} s, limit {time_limit(slowest.cell):.0f} s."


def _unreachable(results: list[CellResult]) -> str:
    unreachable = sum(each.unreachable for each in results)
    unknown = sum(each.unknown for each in results)
    return (
        f"Unreachable: {unreachable} sessions accepted jobs when their run had ended, because a lasting "
        f"fault blocked every way to them. Later a sweep closed {unreachable - unknown}; the other "
        f"{unknown}, whose ids never arrived, had no job, and IBM closed them."
    )


def _totals(results: list[CellResult], seconds: float) -> str:
    unclean = sum(bool(each.findings) for each in results)
    lost = sum(column == "lost" for each in results for column, _ in each.findings)
    cells = f"{len(results)} cells in {seconds:.0f} s, {unclean} of them not clean"
    return f"{cells}; {sum(each.sessions for each in results)} sessions opened, {lost} lost."
