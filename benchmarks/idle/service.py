# SPDX-License-Identifier: Apache-2.0
"""
The tests' fake IBM service for one candidate; ends with its standard input and prints what happened.

It bills by its own clock.
"""

from __future__ import annotations

import dataclasses
import json
import sys

from benchmarks.idle.experiment import JOB_SECONDS, LANES, LATENCY
from testing.fake_ibm import FakeIBM


def main(queue_seconds: float) -> None:
    """Print the address, wait for the end of the input, print the recorded state."""
    settings = {"queue_seconds": queue_seconds, "job_seconds": JOB_SECONDS, "lanes": LANES}
    with FakeIBM(latency=LATENCY, **settings) as ibm:
        about = {"host": ibm.url, "iam_url": ibm.iam_url, "password": ibm.api_key, "crn": ibm.crn}
        print(json.dumps(about), flush=True)
        sys.stdin.read()
        print(json.dumps(account(ibm)), flush=True)


def account(ibm: FakeIBM) -> dict[str, object]:
    """Return the recorded state, with the full record of each session and job."""
    return {
        **ibm.state(),
        "session_records": [dataclasses.asdict(session) for session in ibm.sessions.values()],
        "job_records": [dataclasses.asdict(job) for job in ibm.jobs.values()],
    }


if __name__ == "__main__":
    main(float(sys.argv[1]))
