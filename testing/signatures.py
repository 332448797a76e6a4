# SPDX-License-Identifier: Apache-2.0
"""The tasks and triggers of this package, and their arguments, found in the code."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import airflow_provider_ibm_sessions as package
from testing.bad_values import GOOD_ARGUMENTS

AIRFLOWS_OWN = {"retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay"}
"""Arguments of Airflow's tasks that have another default here."""
OF_FUNCTIONS = {"python_callable", "op_args", "op_kwargs"}


def classes(base: type, *folders: str) -> list[type]:
    """Return the classes of these folders that derive from ``base`` and can be made, without base classes."""
    found = []
    for folder in folders:
        path = [f"{each}/{folder}" for each in package.__path__]
        for info in pkgutil.iter_modules(path):
            module = importlib.import_module(f"{package.__name__}.{folder}.{info.name}")
            found += [
                each
                for each in vars(module).values()
                if isinstance(each, type)
                and issubclass(each, base)
                and each.__module__ == module.__name__
                and info.name != "base"
                and not inspect.isabstract(each)
            ]
    return found


def own_arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Return the arguments that the classes of this package add to Airflow's."""
    found: dict[str, inspect.Parameter] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith(package.__name__) and "__init__" in vars(each):
            found |= inspect.signature(each.__init__).parameters
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    others = AIRFLOWS_OWN | OF_FUNCTIONS | {"self"}
    return {name: each for name, each in found.items() if each.kind in kinds and name not in others}


def required(arguments: dict[str, inspect.Parameter]) -> dict[str, Any]:
    """Return good values of the arguments that have no default."""
    return {
        name: GOOD_ARGUMENTS[name]
        for name, each in arguments.items()
        if each.default is inspect.Parameter.empty
    }


def make(cls: type, **arguments: Any) -> Any:
    """Return a task; one that needs a session, a backend, jobs or a function, is given it."""
    own = own_arguments(cls)
    good = required(own)
    if "backend" in own:
        good |= {"backend": "ibm_fez"}
    elif "job_id" in own and "session_id" not in arguments:
        good |= {"job_id": "a-job"}
    elif "job_ids" in own and not {"job_ids", "session_id"} & arguments.keys():
        good |= {"tags": ["a-tag"]}
    if hasattr(cls, "custom_operator_name"):
        good |= {"python_callable": lambda session=None, backend=None: None}
    return cls(**{"task_id": "made", **good, **arguments})
