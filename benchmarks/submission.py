# SPDX-License-Identifier: Apache-2.0
"""
Submission of 500 jobs to one session, one at a time and several at once.

The tests' fake IBM service runs in another process and takes 50 ms for each response. Each job gets a tag of
its own and is submitted exactly once, as run-jobs does it.
"""

from __future__ import annotations

import argparse
import time

from airflow_provider_ibm_sessions.client import Credentials, IBMQuantumClient
from airflow_provider_ibm_sessions.client.submission import IN_FLIGHT, submit_each, submit_once
from testing.subprocesses import Server, serving
from testing.tables import table, target

JOBS, LATENCY = 500, 0.05
MIN_RATIO = 5.0
_JOB = {"program_id": "sampler", "backend": "ibm_fez", "params": {"pubs": [["OPENQASM 3.0;"]]}}


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    print((__doc__ or "").strip().partition("\n\n")[2] + "\n")
    with serving("benchmarks.fake_service", "2", str(LATENCY)) as server:
        alone, together = (
            submit(server, number, in_flight) for number, in_flight in enumerate((1, IN_FLIGHT))
        )
        jobs = server.stop()["requests"]["create_job"]
    table(
        (f"{JOBS} jobs", "seconds", "jobs/s"),
        [
            ("one at a time", alone, f"{JOBS / alone:.1f}"),
            (f"{IN_FLIGHT} in flight", together, f"{JOBS / together:.1f}"),
        ],
    )
    print()
    ratio = alone / together
    target(f"at least {MIN_RATIO:.0f} times as fast", f"{ratio:.1f}", met=ratio >= MIN_RATIO)
    target("one request for each job", f"{jobs / (2 * JOBS):g}", met=jobs == 2 * JOBS)


def submit(server: Server, number: int, in_flight: int) -> float:
    """Submit all jobs to the server's session of this number; return how many seconds it took."""
    about = server.about
    credentials = Credentials(
        api_key=about["password"], crn=about["crn"], url=about["host"], iam_url=about["iam_url"]
    )
    with IBMQuantumClient(credentials) as client:
        session_id = about["sessions"][number]
        client.get_session(session_id)  # gets the token

        def submit_one(index: int) -> None:
            submit_once(client, f"{session_id}-{index}", session_id=session_id, **_JOB)

        started = time.perf_counter()
        submit_each(submit_one, range(JOBS), in_flight=in_flight)
        return time.perf_counter() - started
