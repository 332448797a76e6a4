# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.integration.fault_matrix [TEXT]``: run the cells whose name holds the text, by default
all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import time

from testing.airflow_home import AIRFLOW_HOME

from .cells import Cell, cells
from .checks import Verdict
from .report import table
from .runner import run_cell

PROCESSES = 6 * (os.cpu_count() or 1)
"""Cells wait more than they compute."""
OF_TIME = {"too slow", "no fault"}
GAVE_UP = "failed, though the fault passed"
MOST_DOUBTFUL = 20
"""If there are more, it is not the machine."""


def run_matrix(only: str = "") -> list[Verdict]:
    """Run the cells side by side, in forks of this process: what it has imported is there already."""
    verdicts = _run(list(cells(only)), PROCESSES)
    doubtful = [each.cell for each in verdicts if _may_be_the_machine(each)][:MOST_DOUBTFUL]
    if not doubtful:
        return verdicts
    for each in verdicts:
        if each.cell in doubtful:
            print(f"Once more, alone: {each.cell}: {'; '.join(text for _, text in each.findings)}")
    alone = {str(each.cell): each for each in _run(doubtful, 1)}
    return [alone.get(str(each.cell), each) for each in verdicts]


def _run(chosen: list[Cell], processes: int) -> list[Verdict]:
    with multiprocessing.get_context("fork").Pool(min(processes, len(chosen) or 1)) as pool:
        return pool.map(run_cell, chosen, chunksize=1)


def _may_be_the_machine(verdict: Verdict) -> bool:
    """Whether all that is wrong can come of a machine that is too slow. A wrong outcome never does."""
    return bool(verdict.findings) and all(
        column in OF_TIME or text.startswith(GAVE_UP) for column, text in verdict.findings
    )


def main(only: str = "") -> int:
    began = time.monotonic()
    try:
        verdicts = run_matrix(only)
    finally:
        shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)
    print(table(verdicts, time.monotonic() - began))
    return int(not verdicts or any(verdict.findings for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
