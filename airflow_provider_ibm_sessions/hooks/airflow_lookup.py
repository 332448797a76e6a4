# SPDX-License-Identifier: Apache-2.0
"""
Tells Airflow's "there is none" from its silence.

In a task or a trigger, Airflow looks connections and variables up over its API, and takes each failure of
that for "not here". So where nothing is found, it is asked once more, and the answer itself is read.
"""

from __future__ import annotations

import sys
from typing import Any

from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError


def ensure_connection_absent(conn_id: str) -> None:
    """
    Called where no connection was found.

    :raises AirflowApiUnavailableError: If Airflow does not say that there is none.
    """
    _check("GetConnection", f"connection '{conn_id}'", conn_id=conn_id)


def ensure_variable_absent(key: str) -> None:
    """
    Called where no variable was found.

    :raises AirflowApiUnavailableError: If Airflow does not say that there is none.
    """
    _check("GetVariable", f"variable '{key}'", key=key)


def has_secrets_backend() -> bool:
    """Whether a task or a trigger has a secrets backend besides, which may fail as silently."""
    from airflow.providers.common.compat.sdk import conf

    places = (("secrets", "backend"), ("workers", "secrets_backend"))
    return _asks_airflow() and any(conf.get(*place, fallback=None) for place in places)


def _asks_airflow() -> bool:
    """Whether this process has a way to Airflow's API on which answers can be read."""
    return hasattr(_supervisor(), "send")


def _supervisor() -> Any:
    """The way to Airflow's API that tasks, triggers and Dag files have."""
    return getattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS", None)


def _check(request: str, what: str, **named: str) -> None:
    if not _asks_airflow():
        return
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time import comms

    silent = AirflowApiUnavailableError(f"Airflow does not tell whether it has the {what}")
    try:
        answer = _supervisor().send(getattr(comms, request)(**named))
    except Exception as error:  # whatever it is, it is no answer
        raise silent from error
    if getattr(answer, "error", None) not in (ErrorType.CONNECTION_NOT_FOUND, ErrorType.VARIABLE_NOT_FOUND):
        raise silent
