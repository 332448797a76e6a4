# SPDX-License-Identifier: Apache-2.0
"""Counts of outcomes as bars of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

MAX_BARS: Final = 32
"""Outcomes that a histogram shows: the most frequent ones."""
MAX_WIDTH: Final = 40
BLOCK: Final = "█"

_MIN_WIDTH: Final = 8


def histogram(
    counts: Mapping[str, int], *, most: int = MAX_BARS, columns: int = 0, block: str = BLOCK
) -> Iterator[str]:
    """
    Yield a line with a bar, the count and its share for each outcome, in the order of the outcomes.

    The longest bar is that of the most frequent outcome. Where there are more outcomes than ``most``, the
    last line is their sum, without a bar, as it is no outcome.

    :param columns: Characters that a line should have at most, for shorter bars. 0: as many as it takes.
    """
    total = sum(counts.values())
    shown = sorted(sorted(counts, key=lambda bits: (-counts[bits], bits))[:most])
    rest = len(counts) - len(shown)
    label = f"{rest} more" if rest else ""
    highest = max((counts[bits] for bits in shown), default=0)
    digits = len(str(max(total, 0)))
    names = max(map(len, [*shown, label]), default=0)
    room = columns - names - digits - len("    100.0 %")
    width = max(_MIN_WIDTH, min(MAX_WIDTH, room)) if columns else MAX_WIDTH

    def line(name: str, count: int, bar: str) -> str:
        share = 100 * count / total if total else 0.0
        return f"{name:>{names}}  {bar:{width}} {count:>{digits}} {share:5.1f} %"

    for bits in shown:
        yield line(bits, counts[bits], block * round(width * counts[bits] / highest) if highest else "")
    if rest:
        yield line(label, total - sum(counts[bits] for bits in shown), "")
