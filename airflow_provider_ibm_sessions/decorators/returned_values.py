# SPDX-License-Identifier: Apache-2.0
"""Values that a decorated function returns, made fit for XCom while its session is still open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import XCom

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.results import to_plain_result
from airflow_provider_ibm_sessions.client.storable import RESERVED_KEYS, STORABLE_INTS, to_storable
from airflow_provider_ibm_sessions.client.validation import short_repr

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

_MAX_DEPTH: Final = 100


class XComValueError(TypeError):
    """A value that XCom cannot hold; names the type, and where it stands."""


def to_xcom(value: Any, task: BaseOperator, ti: Any) -> Any:
    """
    Return a value in which Qiskit's results and NumPy's arrays are plain, as :func:`to_plain_result` has it.

    Lists, tuples and dictionaries are searched for them. Everything else stays as it is, if XCom can hold it.

    :param task: The task that returns it, which says if XCom is to hold it at all.
    :param ti: The running task instance.
    :raises XComValueError: If XCom cannot hold it.
    """
    if not task.do_xcom_push:
        return value
    if task.multiple_outputs:
        if not isinstance(value, Mapping):
            raise _refusal("", value, "multiple_outputs needs a dictionary")
        if odd := [key for key in value if not isinstance(key, str)]:
            raise _refusal("a key", odd[0], "multiple_outputs needs strings as keys")
    ids = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
    # As Airflow will, by a backend of the user's if there is one.
    return _plain(value, "", 0, partial(XCom.serialize_value, key="return_value", **ids))


def _plain(value: Any, place: str, depth: int, write: Callable[[Any], Any]) -> Any:
    if depth > _MAX_DEPTH:
        raise XComValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        if reserved := value.keys() & set(RESERVED_KEYS):
            raise _refusal(place, value, f"Airflow reserves its key {reserved.pop()}")
        return {
            to_storable(key): _plain(item, f"{place}[{short_repr(key)}]", depth + 1, write)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{place}[{index}]", depth + 1, write) for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if type(value) is int and value not in STORABLE_INTS:
        raise _refusal(place, value, "more than 64 bits: return it as a string")
    if value is None or type(value) in (str, bool, float, int):
        return to_storable(value)
    try:
        plain = to_plain_result(value)
        if plain is value:
            _check_written(write(value))
    except IBMQuantumError as error:
        raise _refusal(place, value, error.message) from error
    except Exception as error:  # whatever it is: Airflow names no exceptions here
        raise _refusal(place, value, str(error)) from error
    return plain


def _check_written(written: Any) -> None:
    """Raise ValueError if an object's own serializer has written what Airflow cannot send."""
    pending = [written]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            pending += value
        elif to_storable(value) != value:
            raise ValueError(f"it holds {short_repr(value)}, which cannot be stored")


def _refusal(place: str, value: Any, reason: str) -> XComValueError:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return XComValueError(f"{place + ' of it' if place else 'it'} is of the type {name} ({reason:.200})")
