# SPDX-License-Identifier: Apache-2.0
"""Virtual environments with other versions than those of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from testing.subprocesses import ROOT


def virtual_environment(
    name: str, version: str, made_from: Sequence[Path], install: Callable[[Sequence[str]], None]
) -> Path:
    """
    Return the Python of a virtual environment; it is made again after a change of what it is made from.

    :param name: Its folder in the repository.
    :param version: The version of Python.
    :param install: Gets the command that installs into it, without what is to be installed.
    """
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        sys.exit(f"{name} is made with uv: pip install uv")
    folder = ROOT / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = max(path.stat().st_mtime for path in (ROOT / "pyproject.toml", *made_from))
    if not ready.exists() or ready.stat().st_mtime < wanted:
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", version, str(folder)], check=True)
        install([uv, "pip", "install", "--quiet", "--python", str(python)])
        ready.touch()
    return python
