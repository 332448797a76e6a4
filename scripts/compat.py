# SPDX-License-Identifier: Apache-2.0
"""
Run tests on another version of Airflow, in a virtual environment of its own.

These are ``tests/integration/compat``, those with a whole Airflow in ``tests/integration/standalone``, those
of broken triggers, and some of the kill tests. ``python -m scripts.compat 3.1`` installs Airflow 3.1.8 with
what its users could install on the day of its release: no constraints of this project apply. It needs uv,
and the version of Python that the cell names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from testing.subprocesses import ROOT
from testing.virtual_environment import virtual_environment

TEST_TOOLS = ("pytest>=8.3", "pytest-xdist>=3.6", "playwright>=1.50")
AIRFLOW_312_NEEDS = ("pyjwt<2.12",)
"""The constraints of Airflow 3.1.2 hold PyJWT below this; with a newer one, nobody can sign in."""
COMMON_COMPAT = "apache-airflow-providers-common-compat"
COMMON_COMPAT_DAY = "2026-03-20"
"""Day by which the oldest release that is allowed, 1.14.1, was published: shortly after Airflow 3.1.8."""
TESTS = (
    "tests/integration/compat",
    "tests/integration/standalone",
    "tests/operators/test_broken_triggers.py",  # before 3.3, a task that starts again has no record
)
KILLS = (
    "create: POST carried out, no response (worker)",
    "run-jobs: waits in the worker (worker)",
    "run-jobs: waits in the worker (user: mark failed)",
    "run-jobs: deferred (user: clear)",
    "close: DELETE carried out (worker)",
)
MARK_DEFERRED_FAILED = "run-jobs: deferred (user: mark failed)"
"""From Airflow 3.3 on, a trigger is told that a user has ended its task."""
CLEAR_RUNNING = "run-jobs: waits in the worker (user: clear)"
"""
From Airflow 3.3 on, a killed task knows of another try. The scheduler of 3.4.0b2 ends with an IntegrityError
if a task that was cleared while it ran sends no heartbeat any more.
"""


@dataclass(frozen=True)
class Cell:
    """
    One combination of versions.

    :param airflow: The version of Airflow; None: the newest, also a pre-release.
    :param python: The version of Python.
    :param day: Newest upload day of all that is installed, but for the extra ``qiskit``; None: today.
    :param lowest: Install the lowest versions that ``pyproject.toml`` allows.
    :param kills: The kill tests that it passes.
    """

    airflow: str | None
    python: str
    day: str | None
    lowest: bool = False
    kills: tuple[str, ...] = KILLS


CELLS = {
    "lowest": Cell("3.1.2", "3.11", COMMON_COMPAT_DAY, lowest=True),
    "3.1": Cell("3.1.8", "3.11", "2026-03-11"),
    "3.2": Cell("3.2.2", "3.12", "2026-05-29"),
    "3.3": Cell("3.3.2", "3.13", "2026-09-17", kills=(*KILLS, MARK_DEFERRED_FAILED, CLEAR_RUNNING)),
    "pre": Cell(None, "3.11", None, kills=(*KILLS, MARK_DEFERRED_FAILED)),
}
"""The claimed versions: the matrix of ``.github/workflows/ci.yml`` names the same."""


def install(cell: Cell, pip: Sequence[str]) -> None:
    """Install Airflow and this package as on the cell's day, then the test tools and Qiskit as of today."""
    airflow = f"apache-airflow=={cell.airflow}" if cell.airflow else "apache-airflow>=3.1.2"
    dated = ["--exclude-newer", cell.day] if cell.day else ["--prerelease", "allow"]
    if cell.day and cell.day < COMMON_COMPAT_DAY:
        dated += ["--exclude-newer-package", f"{COMMON_COMPAT}={COMMON_COMPAT_DAY}"]
    if cell.lowest:
        # Here the project's own requirements are the direct ones.
        lowest = ["--resolution", "lowest-direct", "-r", "pyproject.toml", *AIRFLOW_312_NEEDS]
        subprocess.run([*pip, *dated, *lowest, airflow], cwd=ROOT, check=True)
        subprocess.run([*pip, "--no-deps", "-e", "."], cwd=ROOT, check=True)
    else:
        subprocess.run([*pip, *dated, airflow, "-e", "."], cwd=ROOT, check=True)
        # Its releases need a newer pydantic than the constraints of Airflow 3.1 allow.
        subprocess.run([*pip, airflow, "-e", ".[qiskit]"], cwd=ROOT, check=True)
    subprocess.run([*pip, *TEST_TOOLS], cwd=ROOT, check=True)


def main() -> int:
    """Run one cell; return 0 if all of it passed."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in CELLS:
        sys.exit(f"AIRFLOW must be one of {', '.join(CELLS)}, got '{name}': make compat AIRFLOW=3.1")
    cell = CELLS[name]
    python = virtual_environment(
        f".venv-compat-{name}", cell.python, [Path(__file__)], partial(install, cell)
    )
    print(f"Airflow {cell.airflow or 'pre-release'} on Python {cell.python}", flush=True)
    variables = {"COMPAT_AIRFLOW": cell.airflow} if cell.airflow else {}
    commands = [
        ["pytest", "-n", "2", *TESTS, *arguments],
        ["tests.integration.process_kills", "--only", *cell.kills],
    ]
    codes = [
        subprocess.run(
            [str(python), "-m", *command], cwd=ROOT, env={**os.environ, **variables}, check=False
        ).returncode
        for command in commands
    ]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
