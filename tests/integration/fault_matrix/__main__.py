# SPDX-License-Identifier: Apache-2.0
"""
``python -m tests.integration.fault_matrix [TEXT]``: run the fault matrix.

With a text, only the cells whose name contains it are run.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import time

from testing.airflow_home import AIRFLOW_HOME

from .cells import Cell, cells
from .checks import CellResult
from .report import report
from .runner import run_cell

PROCESSES = 6 * (os.cpu_count() or 1)
"""Cells wait more than they compute."""
TIMING_COLUMNS = {"too slow", "no fault"}
GAVE_UP = "failed, though the fault passed"
MAX_REPEATED = 20
"""If more cells are not clean, the machine's load is not the reason."""


def run_matrix(only: str = "") -> list[CellResult]:
    """Run the cells side by side, in forks of this process, which has everything imported already."""
    results = _run(list(cells(only)), PROCESSES)
    repeated = [each.cell for each in results if _may_be_due_to_load(each)][:MAX_REPEATED]
    if not repeated:
        return results
    for each in results:
        if each.cell in repeated:
            print(f"Repeated alone: {each.cell}: {'; '.join(text for _, text in each.findings)}")
    alone = {str(each.cell): each for each in _run(repeated, 1)}
    return [alone.get(str(each.cell), each) for each in results]


def _run(chosen: list[Cell], processes: int) -> list[CellResult]:
    with multiprocessing.get_context("fork").Pool(min(processes, len(chosen) or 1)) as pool:
        return pool.map(run_cell, chosen, chunksize=1)


def _may_be_due_to_load(result: CellResult) -> bool:
    """Return True if a slow machine explains everything that is wrong. It never explains a wrong result."""
    return bool(result.findings) and all(
        column in TIMING_COLUMNS or text.startswith(GAVE_UP) for column, text in result.findings
    )


def main(only: str = "") -> int:
    """Run the cells and print the report; return 1 if one is not clean."""
    started = time.monotonic()
    try:
        results = run_matrix(only)
    finally:
        shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)
    print(report(results, time.monotonic() - started))
    return int(not results or any(result.findings for result in results))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
