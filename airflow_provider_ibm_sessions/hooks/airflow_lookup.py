# SPDX-License-Identifier: Apache-2.0
"""
Airflow's answer "there is none", as opposed to no answer.

In a task or a trigger, Airflow looks connections and variables up over its API, and reports each failure of
that as "not found". So where nothing was found, Airflow's supervisor is asked once more, and its response is
read here. That is no public interface of Airflow: this module is the only one that uses it.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError

TASK_RUNNER: Final = "airflow.sdk.execution_time.task_runner"
COMMS: Final = "SUPERVISOR_COMMS"


def ensure_connection_absent(conn_id: str) -> None:
    """
    Return if Airflow says that it has no such connection. Call it where none was found.

    :raises AirflowApiUnavailableError: If Airflow does not answer, or has the connection by now.
    """
    silent = AirflowApiUnavailableError(f"Airflow did not say if it has the connection '{conn_id}'")
    if _ask("GetConnection", "CONNECTION_NOT_FOUND", silent, conn_id=conn_id) is not None:
        raise silent


def ensure_variable_absent(key: str) -> str | None:
    """
    Return None if Airflow says that it has no such variable. Call it where none was found.

    :returns: The value, if the variable was written since.
    :raises AirflowApiUnavailableError: If Airflow does not answer.
    """
    silent = AirflowApiUnavailableError(f"Airflow did not say if it has the variable '{key}'")
    variable = _ask("GetVariable", "VARIABLE_NOT_FOUND", silent, key=key)
    value = getattr(variable, "value", None)
    if variable is not None and not isinstance(value, str):
        raise silent
    return value


def has_secrets_backend() -> bool:
    """Return True in a task or a trigger with a secrets backend, which can fail without a report as well."""
    from airflow.providers.common.compat.sdk import conf

    places = (("secrets", "backend"), ("workers", "secrets_backend"))
    return _supervisor() is not None and any(conf.get(*place, fallback=None) for place in places)


def _supervisor() -> Any:
    """
    Return the channel to Airflow's supervisor, which tasks, triggers and Dag files have; None elsewhere.

    A task runner without a channel is usual (``dag.test()``): Airflow declares it and sets it when it starts.
    """
    runner = sys.modules.get(TASK_RUNNER)
    if runner is None:
        return None
    if COMMS not in runner.__annotations__ and not hasattr(runner, COMMS):
        raise _incompatible(f"{TASK_RUNNER}.{COMMS}")
    channel = getattr(runner, COMMS, None)
    if channel is not None and not hasattr(channel, "send"):
        return None  # in-process: looked up in the database, which raises its own errors
    return channel


def _ask(request: str, absent: str, silent: AirflowApiUnavailableError, **named: str) -> Any:
    """Return the supervisor's response, or None if it says that there is none; raise ``silent`` otherwise."""
    supervisor = _supervisor()
    if supervisor is None:
        return None
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time import comms

    if not hasattr(comms, request) or not hasattr(ErrorType, absent):
        raise _incompatible(f"comms.{request} or ErrorType.{absent}")
    try:
        response = supervisor.send(getattr(comms, request)(**named))
    except Exception as error:  # any error means that there is no response
        raise silent from error
    error_type = getattr(response, "error", None)
    if response is None or error_type not in (None, ErrorType[absent]):
        raise silent
    return None if error_type else response


def _incompatible(part: str) -> RuntimeError:
    from importlib.metadata import version

    return RuntimeError(
        f"Airflow {version('apache-airflow-core')} has no {part}: this release of "
        "airflow-provider-ibm-sessions does not work with it. Upgrade the provider, or downgrade Airflow"
    )
