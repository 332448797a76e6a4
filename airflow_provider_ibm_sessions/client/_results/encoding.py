# SPDX-License-Identifier: Apache-2.0
"""
Qiskit's encoding of results (``RuntimeEncoder``), read without Qiskit.

An object is ``{"__type__": ..., "__value__": ...}``. Reading it here bounds what it expands to, imports
nothing that a response names, and gives the same report where Qiskit is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_ibm_sessions.client._results.arrays import VALUE_BYTES, Array, MemoryBudget, is_tensor
from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.storable import to_storable

_SPANS: Final = {"ExecutionSpan", "DoubleSliceSpan", "TwirledSliceSpan", "TwirledSliceSpanV2"}
_WRAPPERS: Final = {"_json", "settings"}
"""Objects that are encoded by the arguments of their class, such as learned noise and lists of Paulis."""


def type_of(value: Any) -> str | None:
    """Return the name of the type of an encoded object, or None if it is none."""
    if isinstance(value, Mapping) and "__value__" in value and isinstance(value.get("__type__"), str):
        return str(value["__type__"])
    return None


def value_of(encoded: Any, *types: str) -> Any:
    """
    Return the value of an encoded object.

    :raises BadResponseError: If it is of none of these types.
    """
    if type_of(encoded) in types:
        return encoded["__value__"]
    found = type_of(encoded) or type(encoded).__name__
    raise BadResponseError(f"{types[0]} was expected in Qiskit's encoding, and {found} found")


def member(value: Any, name: str, kind: type) -> Any:
    """Return a member of a JSON object, or raise ``BadResponseError`` if it is missing or of another type."""
    found = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(found, kind):
        return found
    raise BadResponseError(f"its {name} is missing, or of another type than expected")


def to_plain(value: Any, budget: MemoryBudget) -> Any:
    """
    Return what is encoded as strict JSON.

    Arrays and tensors become nested lists, complex numbers ``[re, im]``, times ISO 8601 strings. What has no
    plain form, such as a circuit, stays encoded.

    :raises BadResponseError: If an array is unreadable, or all together is too large.
    """
    if isinstance(value, list):
        budget.take(len(value) * VALUE_BYTES)
        return [to_plain(item, budget) for item in value]
    if not isinstance(value, Mapping):
        return to_storable(value)
    if is_tensor(value):
        return Array.from_tensor(value, budget).to_json(budget)
    if name := type_of(value):
        return _plain_object(name, value, budget)
    return {to_storable(key): to_plain(item, budget) for key, item in value.items()}


def _plain_object(name: str, encoded: Mapping[str, Any], budget: MemoryBudget) -> Any:
    value = encoded["__value__"]
    if name == "ndarray" and isinstance(value, str):
        # IBM writes the names of some extrapolators as arrays; base64 of zlib has a capital second letter.
        return to_storable(value) if value.islower() else Array.from_npy(value, budget).to_json(budget)
    plain = to_plain(value, budget)
    if name in ("ndarray", "complex", "datetime", "set"):
        return plain
    if name in _SPANS and isinstance(plain, dict):
        return {"type": name, **plain}
    if name == "ExecutionSpans" and isinstance(plain, dict) and "spans" in plain:
        return plain["spans"]
    if name in _WRAPPERS:
        return plain["data"] if isinstance(plain, dict) and plain.keys() == {"data"} else plain
    others = {to_storable(key): to_plain(item, budget) for key, item in encoded.items() if key != "__value__"}
    return {**others, "__value__": plain}
