# SPDX-License-Identifier: Apache-2.0
"""Processes that a benchmark starts, exchanges JSON lines with, and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_STOP_SECONDS = 10


class Server:
    """A server in a process of its own. ``about`` is the first line that it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.about: dict[str, Any] = json.loads(_line_of(process))

    def stop(self) -> dict[str, Any]:
        """End it by closing its standard input; return its last line: what it counted."""
        last, _ = self._process.communicate(timeout=_STOP_SECONDS)
        return dict(json.loads(last))


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[Server]:
    """
    Run a server from this directory.

    It ends when its standard input does, so that it cannot outlive this process however that ends.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def answer_of(
    command: Sequence[str], timeout: float, request: object = None, **variables: str
) -> dict[str, Any]:
    """
    Run a process to its end, with the request on its input as JSON; return its last line, read as JSON.

    :param variables: Set in its environment.
    """
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**_environment(), **variables},
        input=json.dumps(request),
        timeout=timeout,
        text=True,
        capture_output=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command[1:])} failed ({done.returncode}):\n{done.stderr[-4000:]}")
    return dict(json.loads(lines[-1]))


def _environment() -> dict[str, str]:
    """Return our environment, with a cache of compiled modules: packages may be installed without one."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PYTHONPYCACHEPREFIX": str(ROOT / ".bench" / "pycache")}


def _line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the server did not start; see its message above")
    return line
