# SPDX-License-Identifier: Apache-2.0
"""The programs beside the tests start: the fault matrix, the process kills, the demo, the benchmarks."""

from __future__ import annotations

import importlib.util
import os
import re
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


@pytest.mark.parametrize(
    "small",
    [
        "from benchmarks import sweep as benchmark; benchmark.SESSIONS = 60",
        "from benchmarks import submission as benchmark; benchmark.JOBS = 20",
        "from benchmarks import triggerer_load as benchmark; "
        "options.triggers, options.latency, options.interval, options.seconds = [60], [0], 1, 4",
    ],
    ids=["sweep", "submit", "waits"],
)
def test_a_benchmark_measures(small, tmp_path):
    program = f"import argparse; options = argparse.Namespace(); {small}; benchmark.run(options)"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "target: " in ran.stdout


@pytest.mark.parametrize("program", sorted(ROOT.glob("benchmarks/**/*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_the_programs_that_it_starts(program):
    started = re.findall(r'"(benchmarks\.[a-z_.]+)"', program.read_text())
    assert [module for module in started if importlib.util.find_spec(module) is None] == []
