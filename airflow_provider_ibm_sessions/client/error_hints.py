# SPDX-License-Identifier: Apache-2.0
"""What IBM's error codes mean, and what a person can do about them."""

from __future__ import annotations

from typing import Final

ERROR_HINTS: Final[dict[str, str]] = {
    "1217": (
        "The session closed before the job ran. Raise max_ttl, or submit the session's jobs with less "
        "time between "
        "them"
    ),
    "1233": "The QPU is reserved for somebody else now. Try again later, or choose another backend",
    "1241": "IBM cannot read the connection's crn. Copy it again from the instance's page",
    "1279": (
        "This host does not know the crn. Its region decides the host, and its account must be the key's: "
        "check "
        "both in the connection"
    ),
    "1305": "The job ran longer than its maximum execution time. Raise cost, or split the job",
    "1348": "IBM cannot read the connection's crn. Copy it again from the instance's page",
    "1352": "The Open plan has no dedicated sessions: use mode='batch', or an instance of a paid plan",
    "1517": (
        "A circuit uses an instruction that the QPU does not have. Transpile it for this backend, and "
        "keep rzz "
        "angles within [0, pi/2]"
    ),
    "1519": "Fractional gates do not go with twirling. Switch one of them off",
    "1999": "IBM has an outage for maintenance, which is not billed in job and batch mode. Try again later",
    "5302": "The job's input or its results are too large. Split the job",
    "9999": "An internal error of IBM's, which is not billed in job and batch mode. Try again",
}
"""By code. Sources: IBM's registry of error codes, and third parties' records of live calls."""
