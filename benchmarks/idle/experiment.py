# SPDX-License-Identifier: Apache-2.0
"""The experiment that all candidates run: for their Dags and for the benchmark. Standard library only."""

from __future__ import annotations

from typing import Any

BACKEND = "ibm_fez"
JOBS, JOB_SECONDS, LANES, SHOTS = 10, 1.0, 1, 1000
LATENCY = 0.1
MAX_TTL = 600
HTTP_POLL_SECONDS = 10
API_VERSION = "2026-04-15"
BELL = """OPENQASM 3.0;
include "stdgates.inc";
bit[2] meas;
rz(pi/2) $0; sx $0; rz(pi/2) $0;
rz(pi/2) $1; sx $1; rz(pi/2) $1;
cz $0, $1;
rz(pi/2) $1; sx $1; rz(pi/2) $1;
meas[0] = measure $0;
meas[1] = measure $1;
"""


def sampler_params() -> dict[str, Any]:
    """The parameters of one job."""
    return {"pubs": [[BELL, None, SHOTS]], "shots": SHOTS}
