# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL and Redis on loopback, with their data in a temporary directory."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from testing.airflow_standalone import free_ports, until
from tests.integration.cluster.installed import Programs
from tests.integration.cluster.supervisor import Component, Supervisor

DATABASE, BROKER = "postgres", "redis"
_USER = "airflow"
_UNSAFE_AND_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_LIMITS = ("max_connections=200", "shared_buffers=64MB")
_START_SECONDS = 30.0


def start_postgres(programs: Programs, home: Path, supervisor: Supervisor) -> str:
    """Make a PostgreSQL with an empty database, and start it; return its host, port and name, as in a URL."""
    account = _account()
    data, [port] = home / "postgres", free_ports(1)
    data.mkdir()
    if account is not None:
        shutil.chown(data, account, account)
    options = ["--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--locale=C", "--no-sync"]
    with (home / "initdb.log").open("wb") as log:
        subprocess.run(
            [programs.postgres / "initdb", "-D", data, *options],
            cwd="/",
            env={**os.environ, "TZ": "UTC"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
            user=account,
            group=account,
            extra_groups=[] if account else None,
        )
    settings = (*_UNSAFE_AND_FAST, *_LIMITS, "listen_addresses=127.0.0.1", f"unix_socket_directories={data}")
    arguments = [part for setting in settings for part in ("-c", setting)]
    command = [str(programs.postgres / "postgres"), "-D", str(data), "-p", str(port), *arguments]
    supervisor.add(
        Component(DATABASE, command, dict(os.environ), home / "postgres.log", account, signal.SIGINT)
    )
    place = ["-h", "127.0.0.1", "-p", str(port), "-U", _USER]
    until(lambda: _succeeds([programs.postgres / "pg_isready", *place]), _START_SECONDS)
    subprocess.run([programs.postgres / "createdb", *place, _USER], cwd="/", check=True)
    return f"{_USER}@127.0.0.1:{port}/{_USER}"


def start_redis(programs: Programs, home: Path, supervisor: Supervisor) -> int:
    """Start a Redis that keeps all in memory; return its port."""
    [port] = free_ports(1)
    settings = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    command = [str(programs.redis), *settings, "--dir", str(home)]
    supervisor.add(
        Component(BROKER, command, dict(os.environ), home / "redis.log", stop_signal=signal.SIGTERM)
    )
    until(lambda: redis_says(programs, port, "ping") == "PONG", _START_SECONDS)
    return port


def redis_says(programs: Programs, port: int, command: str) -> str:
    """Send a command to Redis; return what it says."""
    client = [str(programs.redis.with_name("redis-cli")), "-p", str(port), command]
    return subprocess.run(client, capture_output=True, text=True, check=False).stdout.strip()


def _account() -> str | None:
    """Return the user of PostgreSQL, which refuses to run as root; None: the user of the tests."""
    if os.geteuid() != 0:
        return None
    return "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"


def _succeeds(command: list[str | Path]) -> bool:
    return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0
