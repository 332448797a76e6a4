# SPDX-License-Identifier: Apache-2.0
"""Codes of IBM's error registry that a job can end with; the sentences are this project's own."""

from __future__ import annotations

INPUT_INVALID = 1501
SESSION_CLOSED = 1217
BACKEND_RESERVED = 1233
RAN_TOO_LONG = 1305
NOT_ISA = 1517
TWIRLED_FRACTIONAL = 1519
TOO_LARGE = 5302
INTERNAL_ERROR = 9999
MAINTENANCE = 1999

UNBILLED = frozenset({INTERNAL_ERROR, MAINTENANCE})
"""Faults of IBM's own, which are not billed in job and batch mode."""

_REASONS = {
    SESSION_CLOSED: (
        "Session has been closed",
        "Raise the session's maximum time, or keep it active with less time between its jobs.",
    ),
    BACKEND_RESERVED: ("The backend is reserved", "Submit the job again later."),
    RAN_TOO_LONG: ("Ran too long", "Raise the job's maximum execution time, or make the job smaller."),
    INPUT_INVALID: ("The program's input is not valid", "Correct the program's parameters."),
    NOT_ISA: (
        "The circuit uses an instruction that the backend does not support",
        "Transpile the circuit for the backend before you submit it.",
    ),
    TWIRLED_FRACTIONAL: (
        "Fractional gates cannot be used with twirling",
        "Switch twirling or fractional gates off.",
    ),
    TOO_LARGE: ("The payload is too large", "Split the job into smaller ones."),
    INTERNAL_ERROR: ("Internal error", "Submit the job again."),
    MAINTENANCE: ("The service is under maintenance", "Submit the job again later."),
}


def reason_of(code: int) -> str:
    """Return a job's usual reason for this code."""
    return _REASONS.get(code, ("The job failed", ""))[0]


def solution_of(code: int) -> str:
    """Return the remedy that IBM's service would name for this code."""
    return _REASONS.get(code, ("", "See the list of error codes."))[1]
