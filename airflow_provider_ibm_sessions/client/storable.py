# SPDX-License-Identifier: Apache-2.0
"""Values in a form that JSON, XCom and databases take, whatever IBM has sent: they are paid for."""

from __future__ import annotations

import json
import math
from typing import Any, Final

STORABLE_INTS: Final = range(-(2**63), 2**64)
"""Whole numbers that Airflow can send from a worker to its API server."""

RESERVED_KEYS: Final = ("__classname__", "__id__", "__var")
"""Keys by which Airflow tells objects from plain values: XCom refuses, or changes, a mapping that has one."""


def storable_text(text: str) -> str:
    """
    Return the text with question marks in place of what JSON can hold, and databases cannot.

    These are half characters, which nothing can write again, and NUL, which PostgreSQL refuses.
    """
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="replace").decode().replace("\0", "?")


def to_storable(value: Any) -> Any:
    """
    Return a value that is no container in a form that can be stored.

    Infinite numbers become the strings that ``float()`` reads, and integers of more than 64 bits those that
    ``int()`` reads; with more digits than Python writes, hexadecimal ones (``0x...``).
    """
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else json.dumps(value)
    if isinstance(value, int) and value not in STORABLE_INTS:
        try:
            return str(value)
        except ValueError:
            return hex(value)
    return value
