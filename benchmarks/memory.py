# SPDX-License-Identifier: Apache-2.0
"""Resident memory of this process, in MB of 10**6 bytes. Imports nothing that would be measured along."""

from __future__ import annotations

import os
import resource
import sys

MB = 10**6


def peak_mb() -> float:
    """The largest resident size so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def resident_mb() -> float:
    """The resident size now; where there is no /proc, the largest one so far."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB
    except OSError:
        return peak_mb()
