# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.faults [TEXT]``: run the cells whose name holds the text, by default all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import time

from tests.conftest import AIRFLOW_HOME

from .catalogue import cells
from .judging import Verdict
from .running import run_cell
from .table import table

PROCESSES = 6 * (os.cpu_count() or 1)
"""Cells wait more than they compute."""


def run_matrix(only: str = "") -> list[Verdict]:
    """Run the cells side by side, in forks of this process: what it has imported is there already."""
    chosen = list(cells(only))
    with multiprocessing.get_context("fork").Pool(min(PROCESSES, len(chosen) or 1)) as pool:
        return pool.map(run_cell, chosen, chunksize=1)


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
