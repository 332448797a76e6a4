# SPDX-License-Identifier: Apache-2.0
"""
The states of tasks whose triggers are killed.

A user may mark hundreds of tasks failed at once, and Airflow gives their triggers 30 s. So those that ask
while a request is on its way share the next one.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, Final, NamedTuple

from airflow_provider_ibm_sessions.hooks.owner_lookup import (
    FINISHED_TASK_STATES,
    instance_name,
    read_task_states,
)

_THREADS: Final = ThreadPoolExecutor(4, "ibm-quantum-task-state")
"""
Threads that ask Airflow. In those of the event loop, Airflow writes the logs of its triggers: when hundreds
are killed and the threads are busy, Airflow cancels a trigger again before its first line is written, and
does not call ``on_kill`` at all.
"""


class _Question(NamedTuple):
    task_instance: Any
    answer: Future[bool]


_lock: Final = Lock()
_waiting: Final[dict[tuple[str, str | None], list[_Question]]] = {}
"""
Questions for the next request, by Dag and task; no entry where no request is on its way.

All tasks of a Dag that are not mapped share the key None, and a request. The names of mapped ones may be
those of others.
"""


async def task_has_finished(task_instance: Any) -> bool:
    """
    Return True if the task is final, or unknown by now. Ask Airflow's API.

    What Airflow raises is raised, for all that have shared a request.
    """
    question = _Question(task_instance, Future())
    is_mapped = task_instance.map_index >= 0
    key = (task_instance.dag_id, task_instance.task_id if is_mapped else None)
    with _lock:
        is_first = key not in _waiting
        _waiting.setdefault(key, []).append(question)
    if is_first:
        try:
            _THREADS.submit(_answer, key)
        except RuntimeError as error:  # no thread can be started: the next question tries again
            with _lock:
                refused = _waiting.pop(key)
            for each in refused:
                each.answer.set_exception(error)
    return await asyncio.wrap_future(question.answer)


def _answer(key: tuple[str, str | None]) -> None:
    """Answer the questions, and those that come meanwhile, until there are none."""
    while True:
        with _lock:
            if not _waiting[key]:
                del _waiting[key]
                return
            questions = [each for each in _waiting[key] if each.answer.set_running_or_notify_cancel()]
            _waiting[key] = []
        try:
            answers = _ask(key[0], [each.task_instance for each in questions])
        except BaseException as error:  # noqa: BLE001  each that waits is to hear of it
            for question in questions:
                question.answer.set_exception(error)
        else:
            for question, answer in zip(questions, answers, strict=True):
                question.answer.set_result(answer)


def _ask(dag_id: str, instances: list[Any]) -> list[bool]:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    tasks = {ti.task_id for ti in instances}
    runs = {ti.run_id for ti in instances}
    indexes = {ti.map_index for ti in instances}
    index = indexes.pop() if len(indexes) == 1 else None
    states = read_task_states(RuntimeTaskInstance, dag_id, tasks, runs, index)
    known = [(ti.run_id, instance_name(ti.task_id, ti.map_index)) for ti in instances]
    return [each not in states or states[each] in FINISHED_TASK_STATES for each in known]
