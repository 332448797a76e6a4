# SPDX-License-Identifier: Apache-2.0
"""
The states of many owners of sessions, in few requests to Airflow's API.

It tells the states of a task in several runs, but of runs only how many are in a state. So the runs of a Dag
are counted together; where some are active and others are not, each half is counted again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote_plus

from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner

ACTIVE_RUN_STATES: Final = ["queued", "running"]
FINISHED_TASK_STATES: Final = ["success", "failed", "skipped", "upstream_failed", "removed"]

_MAX_QUERY: Final = 3500
"""Characters of ids of a kind in one request: runs and tasks stand in its URL, of which proxies take 8 kB."""


class ActiveOwners(NamedTuple):
    """
    The owners that may still use their sessions, as far as Airflow tells.

    :param active: Those that may. An owner is active as long as its run is; one that is a task, until the
        task has finished.
    :param errors: Those that Airflow does not tell of, and why.
    """

    active: Collection[SessionOwner]
    errors: Mapping[SessionOwner, AirflowApiUnavailableError]


def find_active(ti: Any, owners: Iterable[SessionOwner]) -> ActiveOwners:
    """
    Return which of these owners may still use their sessions.

    :param ti: The running task's instance, whose methods ask Airflow.
    """
    active: set[SessionOwner] = set()
    errors: dict[SessionOwner, AirflowApiUnavailableError] = {}
    by_dag = defaultdict(set)
    for owner in owners:
        by_dag[owner.dag_id].add(owner)
    for dag_id, of_dag in by_dag.items():
        try:
            runs = _active_runs(ti, dag_id, {owner.run_id for owner in of_dag})
            in_runs = {owner for owner in of_dag if owner.run_id in runs}
            tasks = [owner for owner in in_runs if not owner.dag_run_scoped]
            active |= in_runs - _finished_tasks(ti, dag_id, tasks)
        except Exception as error:  # noqa: BLE001  Airflow documents none
            unavailable = AirflowApiUnavailableError(
                f"Airflow does not answer whether {min(map(str, of_dag))} is active: is its API server up?"
            )
            unavailable.__cause__ = error
            errors |= dict.fromkeys(of_dag, unavailable)
    return ActiveOwners(active, errors)


def read_task_states(
    ti: Any, dag_id: str, task_ids: Collection[str], run_ids: Collection[str], map_index: int | None = None
) -> dict[tuple[str, str], str | None]:
    """
    Return the states of tasks, by run id and :func:`instance_name`. None says that a task was cleared.

    :param ti: A task instance, or its class, whose method asks Airflow.
    :param task_ids: One task; or several with ``map_index`` -1, as names of mapped tasks may be alike.
    :param map_index: Ask for this instance of each task only; -1 is that of a task which is not mapped.
    """
    states: dict[tuple[str, str], str | None] = {}
    for tasks in _chunks(task_ids):
        for runs in _chunks(run_ids):
            found = ti.get_task_states(dag_id=dag_id, task_ids=tasks, run_ids=runs, map_index=map_index)
            for run_id, named in found.items():
                states |= {(run_id, name): state for name, state in named.items()}
    return states


def instance_name(task_id: str, map_index: int) -> str:
    """Return what Airflow calls a task in its answer: the mapped task 3 of "a" is named like a task "a_3"."""
    return task_id if map_index < 0 else f"{task_id}_{map_index}"


def _active_runs(ti: Any, dag_id: str, run_ids: Collection[str]) -> set[str]:
    active: set[str] = set()
    waiting = list(_chunks(run_ids))
    while waiting:
        chunk = waiting.pop()
        count = ti.get_dr_count(dag_id=dag_id, run_ids=chunk, states=ACTIVE_RUN_STATES)
        if count >= len(chunk):
            active.update(chunk)
        elif count:
            # Both halves, not one and a difference: a run may have ended or been cleared between.
            middle = len(chunk) // 2
            waiting += [chunk[:middle], chunk[middle:]]
    return active


def _finished_tasks(ti: Any, dag_id: str, owners: Iterable[SessionOwner]) -> set[SessionOwner]:
    by_task = defaultdict(set)
    for owner in owners:
        by_task[owner.task_id].add(owner)
    finished = set()
    for task_id, of_task in by_task.items():
        states = read_task_states(ti, dag_id, [task_id], {owner.run_id for owner in of_task})
        for owner in of_task:
            if states.get((owner.run_id, instance_name(task_id, owner.map_index))) in FINISHED_TASK_STATES:
                finished.add(owner)
    return finished


def _chunks(ids: Collection[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for each in sorted(ids):
        length = len(quote_plus(each)) + len("&task_ids=")
        if chunk and size + length > _MAX_QUERY:
            yield chunk
            chunk = []
            size = 0
        chunk.append(each)
        size += length
    if chunk:
        yield chunk
