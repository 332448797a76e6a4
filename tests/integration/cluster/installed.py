# SPDX-License-Identifier: Apache-2.0
"""The programs of the cluster: Debian's PostgreSQL and Redis, and an Airflow with Celery of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testing.subprocesses import ROOT
from testing.virtual_environment import virtual_environment

PACKAGES = (
    "apache-airflow==3.3.2",
    "apache-airflow-providers-celery==3.26.0",
    # With 5.7, this release of the Celery provider does not work.
    "celery==5.6.3",
    "redis==8.1.0",
    "psycopg2-binary==2.9.13",
    "asyncpg==0.32.0",
)
"""What workers, schedulers and triggerers of a cluster need besides this package and its constraints."""

DEBIAN = Path("/usr/lib/postgresql")
"""Debian's folder of PostgreSQL, which does not put ``initdb`` on the PATH."""


@dataclass(frozen=True)
class Programs:
    """The Python with Airflow and Celery, PostgreSQL's folder of programs, and Redis."""

    python: Path
    postgres: Path
    redis: Path


def find_programs() -> Programs:
    """Return the programs, and make the virtual environment; exit if one is missing, and name its package."""
    postgres, redis = _postgres(), shutil.which("redis-server")
    if postgres is None or redis is None:
        sys.exit("make cluster-tests needs PostgreSQL and Redis: apt-get install postgresql redis-server")
    made_from = (Path(__file__), ROOT / "constraints.txt")
    return Programs(virtual_environment(".venv-cluster", "3.11", made_from, _install), postgres, Path(redis))


def _postgres() -> Path | None:
    """Return the folder of Debian's newest PostgreSQL, else the one on the PATH."""
    newest = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = str(newest[-1]) if newest else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _install(pip: Sequence[str]) -> None:
    # Compiled once: a dozen processes import all of Airflow, and start again when they are killed.
    install = [*pip, "--compile-bytecode", "-c", "constraints.txt"]
    subprocess.run([*install, *PACKAGES, "-e", "."], cwd=ROOT, check=True)
