# SPDX-License-Identifier: Apache-2.0
"""
The cost of waiting: paid idle seconds of the QPU, worker slots, memory, requests.

The same experiment is run in four ways by one whole Airflow, each against a strict fake of IBM's service of
its own, on loopback.
"""

from __future__ import annotations

import argparse
import subprocess

from benchmarks import environment
from testing.subprocesses import ROOT

QUEUE_SECONDS = 60.0


def run(options: argparse.Namespace) -> None:
    """Measure and print, in the environment that has the other providers and Qiskit."""
    command = [str(environment.python()), "-m", "benchmarks.idle", "--queue", str(options.queue)]
    subprocess.run(command, cwd=ROOT, check=True)
