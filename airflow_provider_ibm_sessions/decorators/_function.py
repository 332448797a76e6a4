# SPDX-License-Identifier: Apache-2.0
"""The user's function: checked when the Dag is parsed, and identified when a task is retried."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import date, timedelta
from types import CodeType
from typing import Any

from airflow_provider_ibm_sessions.client.errors import ConfigurationError


def reserve_argument(
    python_callable: Callable[..., Any],
    argument: str,
    op_args: Sequence[Any] | None,
    op_kwargs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """
    Return the function's keyword arguments, with None for the one that the task sets when it runs.

    :raises ConfigurationError: If the function has no such argument, if the Dag sets it, or if the function
        does not run to its end when it is called.
    """
    name = python_callable.__name__
    parameters = list(inspect.signature(python_callable).parameters)
    if argument not in parameters:
        raise ConfigurationError(f"{name} must have an argument '{argument}'", field=argument)
    if argument in (op_kwargs or {}) or argument in parameters[: len(op_args or ())]:
        raise ConfigurationError(
            f"'{argument}' of {name} is set by the task: give other arguments by keyword", field=argument
        )
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(python_callable) for is_kind in kinds):
        raise ConfigurationError(
            f"{name} must be a plain function: neither 'async def' nor one that yields",
            field="python_callable",
        )
    # Airflow checks, when it parses the Dag, that the function can be called; the value comes later.
    return {**(op_kwargs or {}), argument: None}


def refuse_awaitable(python_callable: Callable[..., Any], returned: Any) -> None:
    """
    Refuse what a function returns that has not run to its end, which cannot be seen before it is called.

    :raises ConfigurationError: If it is a coroutine, or an iterator of values that are to be awaited.
    """
    if not (inspect.isawaitable(returned) or inspect.isasyncgen(returned)):
        return
    if inspect.iscoroutine(returned):
        returned.close()
    raise ConfigurationError(
        f"{python_callable.__name__} must run to its end when it is called: it returned a "
        f"{type(returned).__name__}, which nobody awaits",
        field="python_callable",
    )


def call_digest(python_callable: Callable[..., Any], arguments: Any) -> str:
    """
    Return a digest of a function's code and of what it is called with, the same in every process.

    Functions that it calls are not part of it, nor is what stands for an argument that is no plain value.
    """
    code = getattr(inspect.unwrap(python_callable), "__code__", None)
    parts = list(_code_parts(code)) if code else [type(python_callable).__qualname__]
    text = json.dumps([parts, arguments], default=_to_plain, skipkeys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _code_parts(code: CodeType) -> Iterator[Any]:
    """Yield what a code object does, without line numbers and the path of its file."""
    yield from (code.co_code.hex(), code.co_names, code.co_varnames)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_parts(constant)
        else:
            # The order of a set differs between processes.
            yield sorted(map(repr, constant)) if isinstance(constant, frozenset) else repr(constant)


def _to_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return sorted(map(repr, value))
    if isinstance(value, Sequence):
        return list(value)
    if isinstance(value, date | timedelta):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        return value.tolist()
    return type(value).__qualname__
