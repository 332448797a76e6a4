# SPDX-License-Identifier: Apache-2.0
"""The programs beside the tests start: the fault matrix, the process kills, the demo, the benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "module",
    [
        "benchmarks.__main__",
        "scripts.demo",
        "tests.integration.fault_matrix.__main__",
        "tests.integration.fault_matrix.mutation_check",
        "tests.integration.process_kills.__main__",
    ],
)
def test_it_finds_everything_it_imports(module):
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, cwd=ROOT, timeout=120)
