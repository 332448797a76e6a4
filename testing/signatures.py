# SPDX-License-Identifier: Apache-2.0
"""The tasks and triggers of this package, and their arguments, found in the code."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import airflow_provider_ibm_sessions as package
from airflow_provider_ibm_sessions.client.backend_selection import REQUIREMENTS
from airflow_provider_ibm_sessions.client.models.instance import BackendPropertiesQuery, WorkloadFilter
from airflow_provider_ibm_sessions.client.models.jobs import JobFilter, SubmitJob
from testing.bad_values import GOOD_ARGUMENTS

AIRFLOWS_OWN = {"retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay"}
"""Arguments of Airflow's tasks that have another default here."""
OF_FUNCTIONS = {"python_callable", "op_args", "op_kwargs"}
MODELS = {
    "backend_properties": BackendPropertiesQuery,
    "list_jobs": JobFilter,
    "list_workloads": WorkloadFilter,
    "submit_job": SubmitJob,
    "submit_job_once": SubmitJob,
}
FILTERS = {
    "select_backend": dict.fromkeys(REQUIREMENTS, False),
    **{
        name: {key: each.is_required() for key, each in model.model_fields.items()}
        for name, model in MODELS.items()
    },
}
"""Keyword arguments that methods take by ``**``, and True for those that must be given."""
INTERNAL = {"next", "single_attempt", "session", "authorization"}
"""Arguments that are this package's own, and that no user writes."""
UNCHECKED = {
    "short_lived_client",
    "create_pending_session",
    "find_pending_session",
    "run_flow",
    "send",
    "invalidate_token",
    "console_url",
    "estimate_usage",
    "session_usage",
    "unregister_session",
    "usage_to_json",
}
"""Methods whose arguments are objects of this package, or that clean up, or describe, and send nothing."""


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


def methods(owner: type) -> Iterator[tuple[str, set[str], dict[str, Any]]]:
    """Return the public methods of a hook or a client: name, arguments, and good values of those it needs."""
    for name, method in inspect.getmembers(owner, inspect.isfunction):
        if name.startswith("_") or not method.__module__.startswith(package.__name__) or name in UNCHECKED:
            continue
        arguments = dict(inspect.signature(method).parameters)
        del arguments["self"]
        named = {key: each for key, each in arguments.items() if each.kind != inspect.Parameter.VAR_KEYWORD}
        fields, good = set(named), required(named)
        if len(named) < len(arguments):
            fields |= set(FILTERS[name])
            good |= {key: GOOD_ARGUMENTS[key] for key, is_required in FILTERS[name].items() if is_required}
        yield name, fields, good


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
