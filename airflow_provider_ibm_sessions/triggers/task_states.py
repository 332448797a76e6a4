# SPDX-License-Identifier: Apache-2.0
"""
The states of tasks whose triggers are killed.

A user may mark hundreds of mapped tasks failed at once, and Airflow gives their triggers 30 s. So those that
ask while a request is on its way share the next one.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, Final, NamedTuple

from airflow_provider_ibm_sessions.hooks.owner_lookup import FINISHED_TASK_STATES, read_task_states

_THREADS: Final = ThreadPoolExecutor(2, "ibm-quantum-task-state")
"""
Threads that ask Airflow. In those of the event loop, Airflow writes the logs of its triggers: when hundreds
are killed and the threads are busy, Airflow cancels a trigger again before its first line is written, and
does not call ``on_kill`` at all.
"""


class _Question(NamedTuple):
    task_instance: Any
    answer: Future[bool]


_lock: Final = Lock()
_waiting: Final[dict[tuple[str, str], list[_Question]]] = {}
"""Questions that no request has taken up, by Dag and task: one request tells the states of one task."""


async def task_has_finished(task_instance: Any) -> bool:
    """
    Return True if the task is final, or unknown by now. Ask Airflow's API.

    What Airflow raises is raised, for all that have shared a request.
    """
    question = _Question(task_instance, Future())
    task = task_instance.dag_id, task_instance.task_id
    with _lock:
        is_first = task not in _waiting
        _waiting.setdefault(task, []).append(question)
    if is_first:
        _THREADS.submit(_answer, task)
    return await asyncio.wrap_future(question.answer)


def _answer(task: tuple[str, str]) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    with _lock:
        questions = [each for each in _waiting.pop(task) if each.answer.set_running_or_notify_cancel()]
    instances = [each.task_instance for each in questions]
    indexes = {ti.map_index for ti in instances}
    one = indexes.pop() if len(indexes) == 1 else None
    try:
        states = read_task_states(RuntimeTaskInstance, *task, {ti.run_id for ti in instances}, one)
    except BaseException as error:  # noqa: BLE001  each that waits is to hear of it
        for question in questions:
            question.answer.set_exception(error)
        return
    for question in questions:
        known = (question.task_instance.run_id, question.task_instance.map_index)
        question.answer.set_result(known not in states or states[known] in FINISHED_TASK_STATES)
