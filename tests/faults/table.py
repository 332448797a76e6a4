# SPDX-License-Identifier: Apache-2.0
"""The matrix as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from .judging import COLUMNS, Verdict
from .rules import bound_of


def table(verdicts: list[Verdict], seconds: float) -> str:
    """A row for each operation: its cells, its sessions, and how many cells are wrong in what; then those."""
    names = list(dict.fromkeys(verdict.cell.operation.name for verdict in verdicts))
    rows = [_row(name, [each for each in verdicts if each.cell.operation.name == name]) for name in names]
    head = ["operation", "cells", "sessions", *COLUMNS, "slowest"]
    lines = [*_aligned([head, *rows, _row("total", verdicts)]), ""]
    lines += [*_unclean(verdicts), _slowest(verdicts), _figures(verdicts, seconds)]
    return "\n".join(lines)


def _row(name: str, verdicts: list[Verdict]) -> list[str]:
    wrong = Counter(column for each in verdicts for column in {column for column, _ in each.findings})
    slowest = max((each.seconds for each in verdicts), default=0.0)
    numbers = [len(verdicts), sum(each.sessions for each in verdicts), *(wrong[name] for name in COLUMNS)]
    return [name, *(str(number) for number in numbers), f"{slowest:.1f} s"]


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *rest])


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


def _figures(verdicts: list[Verdict], seconds: float) -> str:
    unclean = sum(bool(each.findings) for each in verdicts)
    made, lost = sum(each.sessions for each in verdicts), sum(each.lost for each in verdicts)
    cells = f"{len(verdicts)} cells in {seconds:.0f} s, {unclean} unclean"
    return f"{cells}; {made} sessions made, {lost} sessions lost"
