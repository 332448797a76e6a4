# SPDX-License-Identifier: Apache-2.0
"""Checks of the plain values people write: ids, modes, states, lengths of time. Nothing is sent from here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum

from airflow_provider_ibm_sessions.client.enums import SessionState
from airflow_provider_ibm_sessions.client.errors import ConfigurationError

DEFAULT_MAX_TTL = 28_800
"""IBM's default ``max_ttl`` on paid plans: 8 hours, in seconds."""

DEFAULT_WAIT_TIMEOUT = 604_800
"""Seconds that waiting for jobs may take unless told otherwise, as with Airflow's sensors."""

MAX_ID_LENGTH = 500
ID_PATTERN = "[A-Za-z0-9_-][A-Za-z0-9._~-]*"
BACKEND_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_TEN_YEARS = 315_360_000.0
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"\s*".join(rf"(?:(\d+)\s*{unit})?" for unit in _UNITS))
_INT32_MAX = 2**31 - 1


MAX_TAGS = 8
MAX_TAG_LENGTH = 86
MAX_COST = 10_800
"""The most QPU time of one job, in seconds."""


def validate_id(value: object, field: str = "session_id") -> str:
    """
    Return the id if it can be one of IBM's.

    An empty id, or one with a slash, would be answered by another resource or by IBM's web page.

    :raises ConfigurationError: If it is not 1 to 500 letters, digits, ``-``, ``_``, ``.`` or ``~``.
    """
    if isinstance(value, str) and len(value) <= MAX_ID_LENGTH and re.fullmatch(ID_PATTERN, value):
        return value
    raise ConfigurationError(
        f"{field} must be 1 to {MAX_ID_LENGTH} letters, digits, '-', '_', '.' or '~', "
        f"got {short_repr(value)}",
        field=field,
    )


def validate_choice(value: object, allowed: type[StrEnum], field: str) -> str:
    """Return the value if it is one of the enum's, else raise ``ConfigurationError`` with the list."""
    choices = [str(choice) for choice in allowed]
    if isinstance(value, str) and value in choices:
        return str(value)
    raise ConfigurationError(
        f"{field} must be one of {', '.join(choices)}, got {short_repr(value)}", field=field
    )


def validate_states(value: object, field: str = "target_state") -> tuple[str, ...]:
    """
    Return one or several session states as a tuple without repetitions.

    :raises ConfigurationError: If there is none, or one is not a documented state.
    """
    states = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not states:
        raise ConfigurationError(f"{field} must name at least one of {', '.join(SessionState)}", field=field)
    return tuple(dict.fromkeys(validate_choice(state, SessionState, field) for state in states))


def validate_backend(value: object, field: str = "backend") -> str:
    """Return the name of a QPU, such as ``ibm_fez``, or raise ``ConfigurationError``."""
    if isinstance(value, str) and re.fullmatch(BACKEND_PATTERN, value):
        return value
    raise ConfigurationError(
        f"{field} must be the name of a QPU, such as 'ibm_fez', got {short_repr(value)}", field=field
    )


def validate_bool(value: object, field: str) -> bool:
    """Return a bool; also reads ``"true"`` and ``"false"``, which is what a template renders."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ConfigurationError(f"{field} must be true or false, got {short_repr(value)}", field=field)


def validate_seconds(value: object, field: str, at_most: float = _TEN_YEARS) -> float:
    """Return a number of seconds above zero, within reason; a ``timedelta`` is read as well."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= at_most:
        return float(value)
    raise ConfigurationError(
        f"{field} must be a number of seconds, above 0 and at most {at_most:g}, got {short_repr(value)}",
        field=field,
    )


def to_seconds(value: object, field: str = "max_ttl") -> int:
    """
    Read a length of time in whole seconds, as IBM wants its TTLs.

    :param value: Seconds (``5400``, ``"5400"``), a ``timedelta``, or text such as ``"1h 30m"``
        (units ``d``, ``h``, ``m``, ``s``, largest first).
    :raises ConfigurationError: If it is anything else, less than a second, or over 2**31 - 1 seconds.
    """
    seconds = _read_seconds(value)
    if seconds is None or not 1 <= seconds <= _INT32_MAX:
        raise ConfigurationError(
            f"{field} must be 1 to {_INT32_MAX} seconds: an int, a timedelta or text such as '2h 30m' (units "
            f"d, h, m, s), got {short_repr(value)}",
            field=field,
        )
    return seconds


def _read_seconds(value: object) -> int | None:
    if isinstance(value, timedelta):
        return int(value.total_seconds())
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _parse_seconds(value) if isinstance(value, str) else None


def _parse_seconds(text: str) -> int | None:
    text = text.strip().lower()
    if not text.isascii() or len(text) > 40:
        return None
    if text.isdigit():
        return int(text)
    match = _DURATION.fullmatch(text)
    if not match or not text:
        return None
    return sum(int(number or 0) * size for number, size in zip(match.groups(), _UNITS.values(), strict=True))


def short_repr(value: object) -> str:
    """Show a wrong value in an error: short, on one line, with its type where that is the trouble."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python writes
        text = "a very large number"
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return short if isinstance(value, str) else f"{short} ({type(value).__name__})"
