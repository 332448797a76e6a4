# SPDX-License-Identifier: Apache-2.0
"""The tests' fake IBM service with as many sessions as asked for; ends with its standard input."""

from __future__ import annotations

import json
import sys
import time

from testing.connections import connection_to
from testing.fake_ibm import FakeIBM


def main(sessions: int, latency: float) -> None:
    """Print the address, wait for the end of the input, print the recorded state."""
    with FakeIBM(latency=latency) as ibm:
        ids = [ibm.add_session().id for _ in range(sessions)]
        about = {"host": ibm.url, "iam_url": ibm.iam_url, "password": ibm.api_key, "crn": ibm.crn}
        print(json.dumps({**about, "connection": connection_to(ibm), "sessions": ids}), flush=True)
        sys.stdin.read()
        print(json.dumps({**ibm.state(), "cpu_seconds": time.process_time()}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
