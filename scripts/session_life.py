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

WIDTH, HEIGHT = 960, 424
LEFT = 168
OPENED, STARTED, ENDED, RIGHT = LEFT, 424, 724, 936
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
    """A stretch of time: what it is called, and how it is drawn."""

    start: int
    end: int
    kind: str
    label: str


ROWS: tuple[tuple[int, str, str, tuple[Box, ...]], ...] = (
    (
        64,
        "One task",
        "run jobs",
        (
            Box(OPENED, STARTED - 96, "worker", "open, submit, drain"),
            Box(STARTED - 96, ENDED + 12, "waiting", "deferred: waits in the triggerer, no worker slot"),
            Box(ENDED + 12, RIGHT, "worker", "collect the results"),
        ),
    ),
    (
        124,
        "One function",
        "session decorator",
        (
            Box(OPENED, OPENED + 64, "worker", "open"),
            Box(OPENED + 64, ENDED, "worker", "your Python, between jobs that depend on each other"),
            Box(ENDED, ENDED + 64, "worker", "drain"),
        ),
    ),
    (
        184,
        "Several tasks",
        "four operators",
        (
            Box(OPENED, OPENED + 64, "worker", "create"),
            Box(OPENED + 64, STARTED - 64, "worker", "your tasks"),
            Box(STARTED - 64, STARTED, "worker", "update"),
            Box(STARTED, ENDED + 12, "waiting", "sensor, deferred"),
            Box(ENDED + 12, RIGHT, "worker", "close, a teardown"),
        ),
    ),
    (
        268,
        "The session",
        "dedicated, at IBM",
        (
            Box(OPENED, STARTED, "open", "open: free"),
            Box(STARTED, ENDED, "active", "active: billed by the second"),
            Box(ENDED, RIGHT, "closed", "closed"),
        ),
    ),
)

MARKS = ((STARTED, "first job starts"), (ENDED, "last job ends"))

NOTES = (
    "Drained, a session closes itself with its last job: no idle second is billed.",
    "Not drained, it goes inactive some time after its last job (60 s is usual), and is free again.",
    "Without a job it closes itself after 30 minutes, free. max_ttl ends it whatever happens.",
)


def style(theme: str) -> str:
    """Return the style sheet: of one theme, or of both, by the reader's choice."""
    if theme == "auto":
        return f"{_rules(LIGHT)}\n@media (prefers-color-scheme: dark) {{\n{_rules(DARK)}\n}}"
    return _rules(DARK if theme == "dark" else LIGHT)


def draw(theme: str = "auto") -> str:
    """Return the picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-labelledby="title" font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="13">',
        '<title id="title">How the life of an IBM Quantum session maps to Airflow tasks</title>',
        f"<style>\n{style(theme)}\n</style>",
        f'<rect class="page line" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
    ]
    for x, name in MARKS:
        parts.append(f'<line class="line" x1="{x}" y1="44" x2="{x}" y2="314" stroke-dasharray="3 4"/>')
        parts.append(_text(x, 32, name, "soft", "middle"))
    parts.append(_text(OPENED, 32, "time →", "soft"))
    for y, name, note, boxes in ROWS:
        parts.append(_text(20, y + 16, name, "text", weight="bold"))
        parts.append(_text(20, y + 33, note, "soft"))
        parts += [_box(box, y) for box in boxes]
    parts += [_text(20, 350 + 21 * index, note, "text") for index, note in enumerate(NOTES)]
    parts += _legend()
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


def _box(box: Box, y: int) -> str:
    dashes = ' stroke-dasharray="5 4"' if box.kind == "waiting" else ""
    place = f'x="{box.start + 1}" y="{y}" width="{box.end - box.start - 2}" height="40" rx="4"'
    label = _text((box.start + box.end) / 2, y + 25, box.label, "text", "middle")
    return f'<rect class="{box.kind}" {place}{dashes}/>\n{label}'


def _legend() -> list[str]:
    parts = []
    for y, kind, meaning in ((340, "worker", "holds a worker slot"), (362, "waiting", "holds none")):
        dashes = ' stroke-dasharray="5 4"' if kind == "waiting" else ""
        parts.append(f'<rect class="{kind}" x="700" y="{y}" width="24" height="14" rx="3"{dashes}/>')
        parts.append(_text(732, y + 12, meaning, "soft"))
    return parts


def main() -> None:
    """Print the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--theme", choices=["auto", "light", "dark"], default="auto")
    print(draw(parser.parse_args().theme), end="")


if __name__ == "__main__":
    main()
