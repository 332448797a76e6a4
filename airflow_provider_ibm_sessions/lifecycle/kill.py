# SPDX-License-Identifier: Apache-2.0
"""
Whether a task goes on elsewhere, while the process or the trigger that ran it is being killed.

A scheduler that gave a worker up, a user who clears a task, and a triggerer that hands its triggers over all
leave a successor, and what was begun is the successor's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.hooks.session_registry import FINISHED_TASK_STATES
from airflow_provider_ibm_sessions.lifecycle.task_state import Attempt

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def is_over(ti: Any) -> bool:
    """Whether the task has ended, or is not known any more. Asks Airflow's API."""
    return _has_ended(_states_of(ti))


def another_try_is_active(context: Context) -> bool:
    """
    Whether another attempt at the running task has begun, or is about to. Asks Airflow's API.

    Before Airflow 3.3 it is not known; nor may it be asked there while the task asks something else.
    """
    if context.get("task_state_store") is None:
        return False
    states = _states_of(context["ti"])
    if _has_ended(states):
        return False
    # "running" is this attempt itself, unless a later one has left its number.
    return "running" not in states or Attempt(context).is_superseded


def has_failed(context: Context) -> bool:
    """
    Whether the task has ended, and not well: a user has marked it, say. Asks Airflow's API.

    Before Airflow 3.3 it is not known.
    """
    if context.get("task_state_store") is None:
        return False
    return bool(_states_of(context["ti"]).intersection(FINISHED_TASK_STATES) - {"success"})


def _has_ended(states: set[str]) -> bool:
    return not states or bool(states.intersection(FINISHED_TASK_STATES))


def _states_of(ti: Any) -> set[str]:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    runs = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    return {str(state or "cleared") for tasks in runs.values() for state in tasks.values()}
