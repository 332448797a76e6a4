# SPDX-License-Identifier: Apache-2.0
"""The matrix as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from .cells import FAMILIES
from .checks import COLUMNS, Verdict
from .expectations import bound_of


def table(verdicts: list[Verdict], seconds: float) -> str:
    """A row for each operation and class of faults: cells, sessions, how many cells are wrong in what."""
    rows = [["operation", "faults", "cells", "sessions", *COLUMNS, "slowest"]]
    for name in dict.fromkeys(verdict.cell.operation.name for verdict in verdicts):
        rows += _rows(name, [each for each in verdicts if each.cell.operation.name == name])
    rows.append(["total", "", *_numbers(verdicts)])
    lines = [*_aligned(rows), "", *_unclean(verdicts), _slowest(verdicts), _out_of_reach(verdicts)]
    return "\n".join([*lines, _figures(verdicts, seconds)])


def _rows(name: str, verdicts: list[Verdict]) -> Iterator[list[str]]:
    for family in FAMILIES:
        if chosen := [each for each in verdicts if each.cell.fault.family == family]:
            yield [name, family, *_numbers(chosen)]
            name = ""


def _numbers(verdicts: list[Verdict]) -> list[str]:
    wrong = Counter(column for each in verdicts for column in {column for column, _ in each.findings})
    slowest = max((each.seconds for each in verdicts), default=0.0)
    numbers = [len(verdicts), sum(each.sessions for each in verdicts), *(wrong[name] for name in COLUMNS)]
    return [*(str(number) for number in numbers), f"{slowest:.1f} s"]


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(padded)


def _unclean(verdicts: Iterable[Verdict]) -> Iterator[str]:
    for each in verdicts:
        if each.findings:
            yield f"{each.cell}   [{each.told}]"
            yield from (f"    {column}: {text}" for column, text in each.findings)


def _slowest(verdicts: list[Verdict]) -> str:
    if not verdicts:
        return "no cell"
    slowest = max(verdicts, key=lambda each: each.seconds)
    return f"slowest cell: {slowest.cell}: {slowest.seconds:.1f} s of {bound_of(slowest.cell):.0f} s"


def _out_of_reach(verdicts: list[Verdict]) -> str:
    barred, unknown = (sum(getattr(each, name) for each in verdicts) for name in ("out_of_reach", "unknown"))
    return (
        f"out of reach: {barred} sessions took jobs when their run ended, with every way to them barred for "
        f"ever. When it was not any more, a sweep closed {barred - unknown}; {unknown}, whose ids never came "
        "through, had no job and closed themselves"
    )


def _figures(verdicts: list[Verdict], seconds: float) -> str:
    unclean = sum(bool(each.findings) for each in verdicts)
    lost = sum(column == "lost" for each in verdicts for column, _ in each.findings)
    cells = f"{len(verdicts)} cells in {seconds:.0f} s, {unclean} unclean"
    return f"{cells}; {sum(each.sessions for each in verdicts)} sessions made, {lost} sessions lost"
