# SPDX-License-Identifier: Apache-2.0
"""
The tests' fake IBM service for one contender; ends with its standard input and tells what happened.

It bills by its own clock. Added here: what Qiskit needs to know of a QPU, from the copy in Qiskit's package.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.idle.experiment import JOB_SECONDS, LANES, LATENCY
from testing.fake_ibm import FakeIBM
from testing.fake_ibm.replies import Reply, ok
from testing.fake_ibm.requests import Request


def main(queue_seconds: float) -> None:
    """Print where it is, wait for the end of the input, print the books."""
    settings = {"queue_seconds": queue_seconds, "job_seconds": JOB_SECONDS, "lanes": LANES}
    with FakeIBM(latency=LATENCY, **settings) as ibm:
        serve_qiskit(ibm)
        about = {"host": ibm.url, "iam_url": ibm.iam_url, "password": ibm.api_key, "crn": ibm.crn}
        print(json.dumps(about), flush=True)
        sys.stdin.read()
        print(json.dumps(account(ibm)), flush=True)


def account(ibm: FakeIBM) -> dict[str, object]:
    """The books, and the full record of each session and job."""
    return {
        **ibm.books(),
        "session_records": [dataclasses.asdict(session) for session in ibm.sessions.values()],
        "job_records": [dataclasses.asdict(job) for job in ibm.jobs.values()],
    }


def serve_qiskit(ibm: FakeIBM) -> None:
    """Answer with a QPU's full configuration and properties."""
    for name, file in (("configuration", "conf_fez.json"), ("properties", "props_fez.json")):
        path = ["v1", "backends", "{id}", name]
        ibm.service._routes.insert(0, ("GET", path, f"get_backend_{name}", _answering(file)))


def _answering(file: str):
    spec = find_spec("qiskit_ibm_runtime")
    assert spec is not None
    assert spec.origin is not None
    described = Path(spec.origin).parent / "fake_provider" / "backends" / "fez" / file
    content = json.loads(described.read_text(encoding="utf-8"))

    def answer(_: Request) -> Reply:
        return ok(content)

    return answer


if __name__ == "__main__":
    main(float(sys.argv[1]))
