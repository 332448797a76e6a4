# SPDX-License-Identifier: Apache-2.0
"""The environment of the benchmarks that compare: published providers and Qiskit, in our versions."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from testing.subprocesses import ROOT

VENV = ROOT / ".venv-bench"
PROVIDERS = (
    "apache-airflow-providers-airbyte",
    "apache-airflow-providers-dbt-cloud",
    "apache-airflow-providers-http",
)
_BIN, _SUFFIX = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
_PYTHON = VENV / _BIN / f"python{_SUFFIX}"


def python() -> Path:
    """Return the environment's interpreter; make the environment first, if versions have changed."""
    stamp, wanted = VENV / "made-of.txt", _recipe()
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"making {VENV.name} (once; takes a minute or two) ...", flush=True)
        shutil.rmtree(VENV, ignore_errors=True)
        _install()
        stamp.write_text(wanted, encoding="utf-8")
    return _PYTHON


def version_of(distribution: str) -> str:
    """Return the version that is installed in the environment."""
    script = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    return _output(str(_PYTHON), "-c", script, distribution)


def _requirements() -> list[str]:
    """
    Return what this project and its extra ``qiskit`` need, and the providers.

    Not the project itself: installed, Airflow would discover it and load parts of it into the base that
    the import is measured against. It is imported from the work tree.
    """
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["qiskit"], *PROVIDERS]


def _constraints() -> str:
    """Return the repository's constraints, else the versions in the running environment."""
    file = ROOT / "constraints.txt"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    installed = {(found.name.lower(), found.version) for found in distributions() if found.name}
    installed = {pair for pair in installed if pair[0] != "airflow-provider-ibm-sessions"}
    return "".join(f"{name}=={version}\n" for name, version in sorted(installed))


def _recipe() -> str:
    return "\n".join([sys.version, *_requirements(), _constraints()])


def _install() -> None:
    uv = _uv()
    _output(*([*uv, "venv", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]), str(VENV))
    constraints = VENV / "constraints.txt"
    constraints.write_text(_constraints(), encoding="utf-8")
    pip = [*uv, "pip", "install", "--python", str(_PYTHON)] if uv else [str(_PYTHON), "-m", "pip", "install"]
    _output(*pip, "--quiet", "--constraint", str(constraints), *_requirements())


def _uv() -> list[str]:
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    found = shutil.which("uv")
    return [found] if found else []


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed:\n{done.stderr[-4000:]}")
    return done.stdout.strip()
