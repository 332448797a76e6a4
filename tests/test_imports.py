# SPDX-License-Identifier: Apache-2.0
"""Helpers live in testing/, which imports neither tests nor benchmarks; nothing imports a test file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "tests": {"tests", "testing"},
    "benchmarks": {"benchmarks", "testing"},
    "scripts": {"scripts", "testing"},
    "testing": {"testing"},
}
"""Which of these folders each of them may import."""


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", ALLOWED)
def test_helpers_are_imported_from_testing(folder):
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for module in imported_modules(path)
        if (parts := module.split("."))[0] in ALLOWED.keys() - ALLOWED[folder]
        or (parts[0] == "tests" and any(part.startswith("test_") for part in parts))
    ]
    assert wrong == []
