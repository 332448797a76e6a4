# SPDX-License-Identifier: Apache-2.0
"""localqpu, an independent emulator of IBM's platform that simulates circuits, as a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/local:local::"


@dataclass(frozen=True)
class LocalQPU:
    """A running emulator."""

    root: str
    backend: str = "ibm_fez"

    @property
    def connection(self) -> str:
        """Return an Airflow connection to it, as JSON."""
        host, _, port = self.root.rpartition(":")
        return json.dumps(
            {
                "conn_type": "ibm_quantum",
                "host": f"{host}/api",
                # Airflow 3.3.2's Test button works only for connections that have a port.
                "port": int(port),
                "password": "a-key-for-localqpu",
                "extra": {"crn": CRN, "iam_url": self.root},
            }
        )

    def jobs(self) -> list[dict[str, Any]]:
        """Return its own record of the jobs."""
        return httpx.get(f"{self.root}/_localqpu/jobs").json()["jobs"]

    def requests(self) -> list[dict[str, Any]]:
        """Return its journal of requests."""
        return httpx.get(f"{self.root}/_localqpu/requests").json()["requests"]


@contextmanager
def running_localqpu() -> Iterator[LocalQPU]:
    """Start the emulator on a free loopback port; stop it by its own process."""
    command = [sys.executable, "-c", "import sys, localqpu.cli; sys.exit(localqpu.cli.main())"]
    process = subprocess.Popen(
        [*command, "start", "--port", "0", "--backends", "ibm_fez"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        banner = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", banner)
        assert found, f"localqpu did not start: {banner!r}"
        yield LocalQPU(found.group())
    finally:
        process.terminate()
        process.wait(10)
