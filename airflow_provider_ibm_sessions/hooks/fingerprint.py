# SPDX-License-Identifier: Apache-2.0
"""The fingerprint that a task takes off ``max_ttl``, to find a session whose create response was lost."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from airflow_provider_ibm_sessions.client.recovery import fingerprints, is_distinct, with_fingerprint

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_PACKAGE = __name__.partition(".")[0]


def max_ttl_with_fingerprint(context: Context, max_ttl: int) -> tuple[int, bool]:
    """
    Return ``max_ttl`` less the running task's fingerprint, and True if no other task has the same.

    The fingerprint follows from the run and from the task's place among the tasks of its Dag that may open
    sessions, which a user's own code may do in any task; mapped tasks have places of their own. It needs no
    call to Airflow. The run's start is part of it, since another Airflow may have the same Dag and run on the
    same instance.
    """
    ti = context["ti"]
    openers = sorted(
        task.task_id
        for task in context["dag"].tasks
        if "max_ttl" in task.template_fields
        # Of this package's operators, the others open none.
        or not getattr(task, "operator_class", type(task)).__module__.startswith(f"{_PACKAGE}.")
    )
    if ti.task_id not in openers:  # a callback of the user's, on a task that opens none by itself
        return max_ttl, False
    place = openers.index(ti.task_id) + max(ti.map_index or 0, 0) * len(openers)
    if not is_distinct(max_ttl, place):
        return max_ttl, False
    run = f"{ti.dag_id} {ti.run_id} {context['dag_run'].start_date}"
    start = int.from_bytes(hashlib.sha256(run.encode()).digest()[:4], "big")
    return with_fingerprint(max_ttl, (start + place) % fingerprints(max_ttl)), True
