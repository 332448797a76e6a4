# SPDX-License-Identifier: Apache-2.0
"""
A process that computes jobs, one after the other: ``python -m ...simulation.worker``.

Reads pickled arguments of ``programs.run`` from standard input and writes pickled outcomes to standard
output, until its parent closes the pipe. Its first message says that it is ready.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import warnings
from pathlib import Path
from typing import BinaryIO, Final

READY: Final = "ready"
MEMORY_SHARE: Final = 0.5
"""Share of the machine's memory that a simulation may take before it fails."""


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not spoil the answers
    warnings.simplefilter("ignore")

    from . import programs

    programs.warm_up()
    _limit_memory()
    _send(output, READY)
    while True:
        try:
            arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the parent process
        except EOFError:
            return
        _send(output, programs.run(*arguments))


def _send(output: BinaryIO, message: object) -> None:
    pickle.dump(message, output)
    output.flush()


def _limit_memory() -> None:
    """Make a simulation that grows beyond all bounds fail, rather than the machine. On Linux only."""
    try:
        import resource

        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        return
    pages = mapped + int(os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE)
    limit = pages * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
