# SPDX-License-Identifier: Apache-2.0
"""The README and the pages in ``docs/``, and the parts of them that tests compare with the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOWTO = DOCS / "howto"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted(HOWTO.glob("*.md")),
]


@dataclass(frozen=True)
class Block:
    """A block of code on a page. An excerpt, below ``<!-- excerpt -->``, is read by a test, and not run."""

    page: Path
    language: str
    source: str
    is_excerpt: bool

    @property
    def name(self) -> str:
        """Return the page with the Dag's id, or with the first line."""
        dag = re.search(r'DAG\("(\w+)"', self.source)
        return f"{self.page.name}: {dag[1] if dag else self.source.splitlines()[0]}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page. A directive of the site, such as an excerpt of a file, is none."""
    pattern = r"(<!-- excerpt -->\n+)?^ *```(\S*)[^\n]*\n(.*?)^ *```$"
    for found in re.finditer(pattern, page.read_text(), re.MULTILINE | re.DOTALL):
        if not found[2].startswith("{"):
            yield Block(page, found[2], found[3], is_excerpt=bool(found[1]))


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next of its level."""
    [found] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return str(found)


def table(text: str, first: str) -> Iterator[list[str]]:
    """Yield the rows of the table whose first column has this name, as lists of cells."""
    lines = iter(text.splitlines())
    next(line for line in lines if line.startswith(f"| {first} |"))
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
