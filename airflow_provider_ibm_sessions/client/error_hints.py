# SPDX-License-Identifier: Apache-2.0
"""What a person can do about IBM's error codes, and what they mean."""

from __future__ import annotations

from typing import Final

_UNREADABLE_CRN: Final = "Copy the connection's crn again from the instance's page: IBM cannot read it"

ERROR_HINTS: Final[dict[str, str]] = {
    "1217": "Raise max_ttl, or submit with less time between the jobs: the session closed before the job ran",
    "1233": "Try again later, or choose another backend: the QPU is reserved for somebody else now",
    "1241": _UNREADABLE_CRN,
    "1279": (
        "Check crn and host of the connection: the crn's region decides the host, and its account must be "
        "the key's"
    ),
    "1305": "Raise cost, or split the job: it ran longer than its maximum execution time",
    "1348": _UNREADABLE_CRN,
    "1352": "Use mode='batch', or an instance of a paid plan: the Open plan has no dedicated sessions",
    "1517": (
        "Transpile the circuits for this backend: one uses an instruction that the QPU does not have, or rzz "
        "with an angle outside of [0, pi/2]"
    ),
    "1519": "Switch off twirling or fractional gates: they do not go together",
    "1999": "Try again later: IBM is down for maintenance, which is not billed in job and batch mode",
    "5302": "Split the job: its input or its results are too large",
    "9999": "Try again: it is an internal error of IBM's, which is not billed in job and batch mode",
}
"""
By code, the remedy first: Airflow's list of log lines shows 100 characters.

Sources: IBM's registry of error codes, and third parties' records of live calls.
"""

UNBILLED_CODES: Final = ("1999", "9999")
"""IBM's own errors, which it does not bill in job and batch mode: the job itself may be all right."""
