# SPDX-License-Identifier: Apache-2.0
"""
Checks of the values that people and templates write: ids, names, times, durations, flags, lists.

Each ``validate_*`` function returns the value in one plain form, or raises ``ConfigurationError`` with the
field's name and what is allowed. Nothing is sent from here.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum, StrEnum
from numbers import Real
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from airflow_provider_ibm_sessions.client.enums import SessionMode, SessionState
from airflow_provider_ibm_sessions.client.errors import ConfigurationError

DEFAULT_MAX_TTL: Final = 28_800
"""IBM's default ``max_ttl`` on paid plans: 8 hours, in seconds."""

DEFAULT_WAIT_TIMEOUT: Final = 604_800
"""Seconds to wait for jobs by default: a week, as Airflow's sensors do."""

MAX_ID_LENGTH: Final = 500
ID_PATTERN: Final = "[A-Za-z0-9_-][A-Za-z0-9._~-]*"
BACKEND_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
PROGRAM_PATTERN: Final = BACKEND_PATTERN
MAX_CALIBRATION_ID_LENGTH: Final = 100
MAX_CONN_ID_LENGTH: Final = 250
MAX_TAGS: Final = 8
MAX_TAG_LENGTH: Final = 86
MAX_COST: Final = 10_800
"""The most QPU time of one job, in seconds."""

MAX_TIMESTAMP: Final = 1e11
"""The latest time that is accepted, in seconds since the epoch: in the year 5138."""

PATTERN_HINTS: Final[Mapping[str, str]] = {
    "backend": "must be the name of a QPU, such as 'ibm_fez'",
    "program_id": "must be the name of a program, such as 'sampler' or 'estimator'",
    "id": f"must be 1 to {MAX_ID_LENGTH} letters, digits, '-', '_', '.' or '~'",
}
"""What a field with a pattern must look like, by the field's name: nobody reads a regular expression."""

_TEN_YEARS: Final = 315_360_000.0
_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"\s*".join(rf"(?:(\d+)\s*{unit})?" for unit in _UNITS))
_INT32_MAX: Final = 2**31 - 1
_MAX_DEPTH: Final = 200
_MAX_SHOWN: Final = 60
_MAX_PRICE: Final = 1_000_000
# IBM Cloud API keys have 44 of these characters, UUIDs and IBM's own ids 36 at most.
_LIKE_A_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{40,}")

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 1000
_repr.maxlevel = 4

# -- ids and names --------------------------------------------------------------------------------


def validate_id(value: object, field: str = "session_id") -> str:
    """
    Return the id if it can be one of IBM's.

    An empty id, or one with a slash, would be answered by another resource or by IBM's web page.

    :raises ConfigurationError: If it is not 1 to 500 letters, digits, ``-``, ``_``, ``.`` or ``~``, or if it
        is what a template renders where there is no value (``"None"``).
    """
    text = _plain_string(value)
    _refuse_rendered_nothing(text, field)
    if isinstance(text, str) and len(text) <= MAX_ID_LENGTH and re.fullmatch(ID_PATTERN, text):
        return text
    raise _refusal(field, PATTERN_HINTS["id"], value)


def validate_ids(value: object, field: str = "job_ids") -> list[str]:
    """
    Return a list of at least one id, without repetitions.

    :param value: A list of ids, or the JSON of such a list.
    """
    ids = _parse_list(value, field, "a list of at least one id")
    return list(dict.fromkeys(validate_id(each, f"{field}[{index}]") for index, each in enumerate(ids)))


def validate_backend(value: object, field: str = "backend") -> str:
    """Return the name of a QPU, such as ``ibm_fez``, or raise ``ConfigurationError``."""
    return _validate_name(value, field, BACKEND_PATTERN, PATTERN_HINTS["backend"])


def validate_backends(value: object, field: str, *, allow_empty: bool = False) -> tuple[str, ...]:
    """
    Return names of QPUs as a tuple.

    :param value: A list of names, one name, or the JSON of a list, which is what a template renders.
    :raises ConfigurationError: If one is no name of a QPU, or there is none where there must be one.
    """
    _refuse_rendered_nothing(value, field)
    if isinstance(value, str) and re.fullmatch(BACKEND_PATTERN, value):
        value = [value]
    kind = "a list of names of QPUs, such as ['ibm_fez']"
    names = _parse_list(value, field, kind, allow_empty=allow_empty)
    found = [validate_backend(name, f"{field}[{index}]") for index, name in enumerate(names)]
    return tuple(dict.fromkeys(found))


def validate_program_id(value: object, field: str = "program_id") -> str:
    """Return the name of one of IBM's programs, such as ``sampler``, or raise ``ConfigurationError``."""
    return _validate_name(value, field, PROGRAM_PATTERN, PATTERN_HINTS["program_id"])


def validate_conn_id(value: object, field: str = "ibm_quantum_conn_id") -> str:
    """Return the id of an Airflow connection, also one given as a string enum."""
    text = _plain_string(value)
    _refuse_rendered_nothing(text, field)
    if isinstance(text, str) and len(text) <= MAX_CONN_ID_LENGTH and text.isprintable():
        return text
    raise _refusal(
        field, f"must be the id of an Airflow connection, 1 to {MAX_CONN_ID_LENGTH} characters", value
    )


# -- choices --------------------------------------------------------------------------------------


def validate_choice(value: object, allowed: type[StrEnum], field: str) -> str:
    """Return the value if it is one of the enum's, else raise ``ConfigurationError`` with the list."""
    choices = [str(choice) for choice in allowed]
    text = _plain_string(value)
    if isinstance(text, str) and text in choices:
        return text
    raise _refusal(field, f"must be one of {', '.join(choices)}", value)


def validate_mode(value: object, field: str = "mode") -> str:
    """Return the mode of a session, ``dedicated`` or ``batch``, or raise ``ConfigurationError``."""
    return validate_choice(value, SessionMode, field)


def validate_states(value: object, field: str = "target_state") -> tuple[str, ...]:
    """
    Return one or several session states as a tuple without repetitions.

    :raises ConfigurationError: If there is none, or one is not a documented state.
    """
    value = _from_numpy(value, field)
    states = [value] if isinstance(value, str) or not isinstance(value, Sequence | Set) else list(value)
    if not states:
        raise ConfigurationError(f"{field} must name at least one of {', '.join(SessionState)}", field=field)
    return tuple(dict.fromkeys(validate_choice(state, SessionState, field) for state in states))


def validate_reason_codes(value: object, field: str) -> tuple[str, ...]:
    """
    Return IBM's codes for why a job failed, as strings without repetitions.

    :param value: A list of at least one code, each an int or a string.
    """
    codes = _from_numpy(value, field)
    if isinstance(codes, str | bytes) or not isinstance(codes, Sequence | Set) or not codes:
        raise _refusal(field, "must be a list of IBM's reason codes, such as [1999, 9999]", value)
    found = []
    for code in codes:
        text = _plain_string(code)
        number = (
            int(text) if isinstance(text, str) and re.fullmatch("[0-9]{4}", text) else _whole_number(text)
        )
        if number is None or not 1000 <= number <= 9999:
            raise _refusal(field, "must have codes from 1000 to 9999 only, such as 9999", code)
        found.append(str(number))
    return tuple(dict.fromkeys(found))


def validate_currency(value: object, field: str = "currency") -> str:
    """Return the code of a currency: three capital letters, as ISO 4217 has them."""
    if isinstance(value, str) and re.fullmatch("[A-Z]{3}", value):
        return value
    raise _refusal(field, "must be three capital letters such as USD", value)


def validate_bool(value: object, field: str) -> bool:
    """Return a bool; also reads ``"true"`` and ``"false"``, which is what a template renders."""
    value = _from_numpy(value, field)
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise _refusal(field, "must be true or false", value)


def validate_fractional_gates(value: object, field: str = "use_fractional_gates") -> bool | None:
    """Return what ``QiskitRuntimeService.backend`` takes as ``use_fractional_gates``: a bool, or None."""
    return None if value is None else validate_bool(value, field)


# -- numbers, durations and times -----------------------------------------------------------------


def validate_int(value: object, field: str, *, at_least: int = 0, at_most: int = _INT32_MAX) -> int:
    """
    Return a whole number; whole floats and NumPy's integers are read as well.

    Strings and booleans are refused.
    """
    number = _whole_number(value)
    if number is not None and at_least <= number <= at_most:
        return number
    raise _refusal(field, f"must be a whole number from {at_least} to {at_most}", value)


def validate_number(value: object, field: str, *, at_most: float) -> float:
    """Return a number from 0 to ``at_most`` as a float; also reads ``"0.01"``, which a template renders."""
    number = _number(number_in(value))
    if number is not None and 0 <= number <= at_most:
        return number
    raise _refusal(field, f"must be a number from 0 to {at_most:g}", value)


def number_in(value: object) -> object:
    """Return the number that a string holds, as a template renders it; other values as they are."""
    try:
        return float(value) if isinstance(value, str) and len(value) <= _MAX_SHOWN else value
    except ValueError:
        return value


def validate_price(value: object, field: str = "price_per_second") -> Decimal:
    """
    Return a price as a decimal, which adds up exactly.

    :param value: A number, or one in a string, as the form of a connection keeps it.
    """
    try:
        price = Decimal(str(value if isinstance(value, str | Decimal) else _number(value)).strip())
        if 0 <= price <= _MAX_PRICE:
            return price
    except InvalidOperation:  # no number, or a comparison with NaN
        pass
    raise _refusal(field, f"must be a number from 0 to {_MAX_PRICE}, such as 1.6", value)


def validate_seconds(
    value: object, field: str, at_most: float = _TEN_YEARS, *, allow_zero: bool = False
) -> float:
    """
    Return a number of seconds as a float; a ``timedelta`` is read as well.

    :raises ConfigurationError: If it is no number, below 0, 0 where that is not allowed, or more than
        ``at_most`` seconds.
    """
    number = _number(value.total_seconds() if isinstance(value, timedelta) else value)
    if number is not None and (0 < number <= at_most or (allow_zero and number == 0)):
        return number
    least = "from 0 to" if allow_zero else "above 0 and at most"
    raise _refusal(field, f"must be a number of seconds, {least} {at_most:g}", value)


def to_seconds(value: object, field: str = "max_ttl") -> int:
    """
    Return a duration in whole seconds, as IBM wants its TTLs.

    :param value: Seconds (``5400``, ``5400.0``, ``"5400"``), a ``timedelta``, or a string such as
        ``"1h 30m"`` (units ``d``, ``h``, ``m``, ``s``, largest first).
    :raises ConfigurationError: If it is anything else, less than a second, or over 2**31 - 1 seconds.
    """
    if isinstance(value, timedelta):
        seconds: int | None = int(value.total_seconds())
    elif isinstance(value, str):
        seconds = _parse_seconds(value)
    else:
        seconds = _whole_number(value)
    if seconds is not None and 1 <= seconds <= _INT32_MAX:
        return seconds
    raise _refusal(
        field,
        f"must be 1 to {_INT32_MAX} seconds: an int, a timedelta or a string such as '2h 30m' (units "
        "d, h, m, s)",
        value,
    )


def validate_datetime(value: object, field: str) -> datetime:
    """
    Return a point in time in UTC, from a datetime with a time zone or its ISO 8601 string.

    A time without a zone is refused: IBM would read it as UTC, whatever the writer meant.
    """
    moment: object = value
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        if isinstance(moment, datetime) and moment.utcoffset() is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _refusal(field, "must be a time with a time zone, such as 2026-04-15T12:00:00+00:00", value)


# -- strings, lists and mappings ------------------------------------------------------------------


def validate_string(value: object, field: str, max_length: int = MAX_CALIBRATION_ID_LENGTH) -> str:
    """
    Return a short printable string, such as a ``calibration_id``.

    Numbers, dates and UUIDs are read as well: Airflow's native rendering makes them of strings.

    :param max_length: The most characters that are allowed.
    """
    text = _plain_string(value)
    if isinstance(text, date):
        text = text.isoformat()
    elif isinstance(text, Real | UUID) and not isinstance(text, bool):
        try:
            text = str(text)
        except ValueError:  # an int with more digits than Python prints
            text = None
    if isinstance(text, str) and 1 <= len(text) <= max_length and text.isprintable():
        return text
    raise _refusal(field, f"must be a string of 1 to {max_length} printable characters", value)


def validate_calibration_id(value: object, field: str = "calibration_id") -> str | None:
    """Return the id of a calibration, or None for IBM's default."""
    return None if value is None else validate_string(value, field)


def validate_tags(value: object, field: str = "tags", at_most: int = MAX_TAGS) -> list[str]:
    """
    Return labels of a job as a list of strings; ``None`` is an empty list.

    :param value: A list of strings, numbers or dates, or the JSON of such a list.
    :param at_most: The most tags that are allowed; IBM takes 8.
    """
    kind = f"a list of at most {at_most} strings"
    tags = _parse_list(() if value is None else value, field, kind, allow_empty=True)
    if len(tags) > at_most:
        raise _refusal(field, f"must be {kind}", value)
    return [validate_string(tag, f"{field}[{index}]", MAX_TAG_LENGTH) for index, tag in enumerate(tags)]


def validate_path(value: object, field: str = "results_path") -> str:
    """
    Return a folder as a string, from a string or a path object (``ObjectStoragePath``, ``pathlib``).

    :raises ConfigurationError: If it is empty, or one of its parts is what a template renders where there is
        no value (``"None"``): results would be written to a folder of that name.
    """
    # Airflow's ObjectStoragePath is no os.PathLike, but has the methods of pathlib.
    is_path = isinstance(value, os.PathLike | PurePath) or (
        hasattr(value, "joinpath") and hasattr(value, "fs")
    )
    text = str(value) if is_path else _plain_string(value)
    _refuse_rendered_nothing(text, field)
    if not isinstance(text, str) or not text.isprintable():
        raise _refusal(
            field, "must be a path such as 's3://conn_id@bucket/folder' or 'file:///folder'", value
        )
    for part in text.split("/"):
        if part == "None":
            _refuse_rendered_nothing(part, field)
    return text


def validate_params(value: object, field: str = "program_params") -> dict[str, Any]:
    """
    Return a program's input as plain values.

    :param value: A mapping, or the JSON of an object. NumPy arrays and numbers in it become lists and
        numbers.
    """
    params = _parse_json(value, field, "a mapping")
    if not isinstance(params, Mapping):
        raise _refusal(field, "must be a mapping such as {'pubs': [...]} or its JSON", value)
    plain: dict[str, Any] = to_plain(params, field)
    return plain


def validate_jobs(value: object, field: str = "jobs") -> list[dict[str, Any]]:
    """
    Return a list of at least one job, each a mapping of plain values; its fields are not checked here.

    :param value: A list of mappings, or the JSON of such a list.
    """
    jobs = _from_numpy(_parse_json(value, field, "a list"), field)
    if isinstance(jobs, str | bytes) or not isinstance(jobs, Sequence) or not jobs:
        raise _refusal(field, "must be a list of at least one job, or its JSON", value)
    found = []
    for index, job in enumerate(jobs):
        if not isinstance(job, Mapping):
            raise _refusal(
                f"{field}[{index}]", "must be a mapping such as {'program_id': 'sampler', ...}", job
            )
        found.append(to_plain(job, f"{field}[{index}]"))
    return found


# -- values of any kind ---------------------------------------------------------------------------


def is_template(value: object) -> bool:
    """Return True if only the running task knows the value: a Jinja template, or another task's output."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    return hasattr(value, "resolve") or (
        isinstance(value, Sequence | Set) and any(is_template(item) for item in value)
    )


def to_plain(value: Any, field: str) -> Any:
    """
    Return a copy in which NumPy's arrays and numbers, enums and tuples are lists, numbers and strings.

    Other objects stay as they are; IBM's request model refuses what is not JSON.

    :raises ConfigurationError: If it is nested deeper than 200 levels, or a key is not a string.
    """
    return _to_plain(value, field, 0)


def short_repr(value: object) -> str:
    """
    Return a wrong value for an error message: at most 60 characters, on one line.

    What is as long as an API key is not shown: keys are pasted into the wrong field.
    """
    try:
        text = repr(value[:1000]) if isinstance(value, str) else _repr.repr(value)
    except Exception:  # noqa: BLE001  a repr that fails, an int with more digits than Python prints
        text = "a value that cannot be shown"
    text = _LIKE_A_SECRET.sub(lambda run: f"<{len(run[0])} characters>", text.replace("\n", " "))
    short = text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
    return short if isinstance(value, str) else f"{short} ({type(value).__name__})"


def looks_like_secret(text: str) -> bool:
    """Return True if a part of the string is as long as an API key, which must not be shown."""
    return _LIKE_A_SECRET.search(text) is not None


def _validate_name(value: object, field: str, pattern: str, allowed: str) -> str:
    text = _plain_string(value)
    _refuse_rendered_nothing(text, field)
    if isinstance(text, str) and re.fullmatch(pattern, text):
        return text
    raise _refusal(field, allowed, value)


def _refusal(field: str, allowed: str, value: object) -> ConfigurationError:
    return ConfigurationError(f"{field} {allowed}, got {short_repr(value)}", field=field)


def _refuse_rendered_nothing(value: object, field: str) -> None:
    """Refuse what Jinja and ``xcom_pull`` give where there is no value, and say where it comes from."""
    if value is None or (isinstance(value, str) and value.strip() in ("", "None", "null")):
        raise ConfigurationError(
            f"{field} is empty (got {short_repr(value)[:20]}). If a template was to fill it, it rendered to "
            "nothing: check the task id of its xcom_pull, which needs the prefix of a TaskGroup",
            field=field,
        )


def _plain_string(value: object) -> object:
    """Return the value of a string enum as a plain string: its own ``str`` can be ``Color.RED``."""
    if isinstance(value, Enum) and isinstance(value, str):
        value = value.value
    return str.__str__(value) if isinstance(value, str) else value


def _number(value: object) -> float | None:
    """Return a real number as a float, also NumPy's; None for anything else and for booleans."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # NumPy's durations are real numbers, and no floats
        return None


def _whole_number(value: object) -> int | None:
    """Return an int, a whole float or a NumPy integer as an int; None for anything else and for booleans."""
    if isinstance(value, int):
        return None if isinstance(value, bool) else int(value)
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


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


def _parse_json(value: object, field: str, kind: str) -> object:
    """Return what a string holds as JSON; other values as they are."""
    if not isinstance(value, str):
        return value
    _refuse_rendered_nothing(value, field)
    try:
        parsed: object = json.loads(value)
    except (ValueError, RecursionError):
        raise _refusal(
            field, f"must be {kind} or its JSON (in a template: {{{{ value | tojson }}}})", value
        ) from None
    return parsed


def _parse_list(
    value: object, field: str, kind: str, *, allow_empty: bool = False
) -> Sequence[object] | Set[object]:
    """Return a list as it is, NumPy's as a list, and what a string holds as JSON if that is a list."""
    items = _from_numpy(_parse_json(value, field, kind), field)
    if isinstance(items, str | bytes) or not isinstance(items, Sequence | Set) or not (items or allow_empty):
        raise _refusal(field, f"must be {kind}", value)
    return items


def _from_numpy(value: object, field: str) -> object:
    """Return NumPy's arrays as lists and its scalars as numbers; other values as they are."""
    if type(value).__module__.partition(".")[0] != "numpy" or not hasattr(value, "tolist"):
        return value
    try:
        return value.tolist()
    except Exception as error:  # an array may be of any class that calls itself NumPy's
        raise ConfigurationError(
            f"{field} holds an array that cannot be read: {error}", field=field
        ) from error


def _to_plain(value: Any, field: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ConfigurationError(f"{field} is nested deeper than {_MAX_DEPTH} levels", field=field)
    value = _from_numpy(value, field)
    if isinstance(value, Enum):
        return _to_plain(value.value, field, depth + 1)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        plain = {}
        for key, item in value.items():
            name = _plain_string(key)
            if not isinstance(name, str):
                raise _refusal(field, "must have strings as keys", key)
            plain[name] = _to_plain(item, field, depth + 1)
        return plain
    if isinstance(value, list | tuple):
        return [_to_plain(item, field, depth + 1) for item in value]
    return value
