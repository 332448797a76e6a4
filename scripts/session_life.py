# SPDX-License-Identifier: Apache-2.0
"""
Draw how a session's life maps to tasks: ``python -m scripts.session_life > docs/session-life.svg``.

The picture brings its own background and follows the reader's colour scheme, so it can be read on a light
page and on a dark one. ``--theme dark`` draws the dark one for programs that know no media queries.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 436, 606
COLUMN = 88
OPENED, STARTED, ENDED, BOTTOM = 76, 230, 390, 466
"""Where on the time axis the session opens, its first job starts, its last job ends, and the picture ends."""

LIGHT = {
    "page": "#ffffff",
    "line": "#c1c7cd",
    "text": "#161616",
    "soft": "#525252",
    "worker": "#d0e2ff",
    "waiting": "#ffffff",
    "edge": "#0f62fe",
    "open": "#e0e0e0",
    "active": "#ffd6a5",
    "closed": "#f4f4f4",
    "state": "#8d8d8d",
}
DARK = {
    "page": "#161616",
    "line": "#525252",
    "text": "#f4f4f4",
    "soft": "#c6c6c6",
    "worker": "#003a8c",
    "waiting": "#161616",
    "edge": "#78a9ff",
    "open": "#393939",
    "active": "#8a4b08",
    "closed": "#262626",
    "state": "#8d8d8d",
}


@dataclass(frozen=True)
class Box:
    """A stretch of time: how it is drawn, and the lines of its text."""

    start: int
    end: int
    kind: str
    lines: tuple[str, ...]


COLUMNS: tuple[tuple[str, str, tuple[Box, ...]], ...] = (
    (
        "One task",
        "run jobs",
        (
            Box(OPENED, STARTED - 60, "worker", ("open,", "submit,", "drain")),
            Box(
                STARTED - 60,
                ENDED + 12,
                "waiting",
                ("deferred:", "waits in the", "triggerer,", "no worker slot"),
            ),
            Box(ENDED + 12, BOTTOM, "worker", ("collect", "the results")),
        ),
    ),
    (
        "One function",
        "decorator",
        (
            Box(OPENED, OPENED + 28, "worker", ("open",)),
            Box(
                OPENED + 28, ENDED, "worker", ("your Python,", "between jobs", "that depend", "on each other")
            ),
            Box(ENDED, ENDED + 28, "worker", ("drain",)),
        ),
    ),
    (
        "Several tasks",
        "four operators",
        (
            Box(OPENED, OPENED + 28, "worker", ("create",)),
            Box(OPENED + 28, STARTED - 28, "worker", ("your tasks",)),
            Box(STARTED - 28, STARTED, "worker", ("update",)),
            Box(STARTED, ENDED + 12, "waiting", ("sensor,", "deferred")),
            Box(ENDED + 12, BOTTOM, "worker", ("close,", "a teardown")),
        ),
    ),
    (
        "The session",
        "at IBM",
        (
            Box(OPENED, STARTED, "open", ("open:", "free")),
            Box(STARTED, ENDED, "active", ("active:", "billed by", "the second")),
            Box(ENDED, BOTTOM, "closed", ("closed",)),
        ),
    ),
)

MARKS = (
    (OPENED + 12, ("time ↓",)),
    (STARTED - 12, ("first job", "starts")),
    (ENDED - 12, ("last job", "ends")),
)

NOTES = (
    "Drained, a dedicated session closes itself with its last job: no idle",
    "second is billed. Not drained, it goes inactive some time after its",
    "last job (60 s is usual), and is free again. Without a job it closes",
    "itself after 30 minutes, free. Once a job has started, max_ttl ends it.",
)


def style(theme: str) -> str:
    """Return the style sheet: of one theme, or of both, by the reader's choice."""
    if theme == "auto":
        return f"{_rules(LIGHT)}\n@media (prefers-color-scheme: dark) {{\n{_rules(DARK)}\n}}"
    return _rules(DARK if theme == "dark" else LIGHT)


def draw(theme: str = "auto") -> str:
    """Return the picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="12">',
        '<title id="title">How the life of an IBM Quantum session maps to Airflow tasks</title>',
        f"<style>\n{style(theme)}\n</style>",
        f'<rect class="page line" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
    ]
    for y in (STARTED, ENDED):
        parts.append(
            f'<line class="line" x1="12" y1="{y}" x2="{WIDTH - 12}" y2="{y}" stroke-dasharray="3 4"/>'
        )
    for y, lines in MARKS:
        parts += [_text(12, y + 30 * index, line, "soft") for index, line in enumerate(lines)]
    for index, (name, note, boxes) in enumerate(COLUMNS):
        x = WIDTH - 10 - COLUMN * (len(COLUMNS) - index)
        parts.append(_text(x + COLUMN / 2, 32, name, "text", "middle", "bold"))
        parts.append(_text(x + COLUMN / 2, 52, note, "soft", "middle"))
        for box in boxes:
            parts += _box(box, x)
    parts += _legend()
    parts += [_text(12, 530 + 20 * index, note, "text") for index, note in enumerate(NOTES)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _rules(colours: dict[str, str]) -> str:
    fills = {name: colour for name, colour in colours.items() if name not in ("line", "edge", "state")}
    rules = [f".{name} {{ fill: {colour}; }}" for name, colour in fills.items()]
    rules += [
        f".line {{ stroke: {colours['line']}; }}",
        f".worker, .waiting {{ stroke: {colours['edge']}; }}",
        f".open, .active, .closed {{ stroke: {colours['state']}; }}",
    ]
    return "\n".join(rules)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start", weight: str = "normal") -> str:
    look = f'class="{kind}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:g}" y="{y:g}" {look}>{escape(text)}</text>'


def _box(box: Box, x: int) -> list[str]:
    dashes = ' stroke-dasharray="5 4"' if box.kind == "waiting" else ""
    place = f'x="{x + 1}" y="{box.start + 1}" width="{COLUMN - 2}" height="{box.end - box.start - 2}" rx="4"'
    first = (box.start + box.end) / 2 + 4 - 8 * (len(box.lines) - 1)
    lines = [
        _text(x + COLUMN / 2, first + 16 * index, line, "text", "middle")
        for index, line in enumerate(box.lines)
    ]
    return [f'<rect class="{box.kind}" {place}{dashes}/>', *lines]


def _legend() -> list[str]:
    parts = []
    for x, kind, meaning in ((12, "worker", "holds a worker slot"), (180, "waiting", "holds none")):
        dashes = ' stroke-dasharray="5 4"' if kind == "waiting" else ""
        parts.append(f'<rect class="{kind}" x="{x}" y="488" width="24" height="14" rx="3"{dashes}/>')
        parts.append(_text(x + 32, 500, meaning, "soft"))
    return parts


def main() -> None:
    """Print the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--theme", choices=["auto", "light", "dark"], default="auto")
    print(draw(parser.parse_args().theme), end="")


if __name__ == "__main__":
    main()
