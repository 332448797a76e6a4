# SPDX-License-Identifier: Apache-2.0
"""
What connects the attempts at a task, so that a retry goes on where the one before it was.

All attempts, also by clearing the task, share one key until one of them has delivered its outcome; a cleared
task that had delivered starts anew. Airflow 3.3+ keeps the key in the task state store. Older ones have none:
there the key is made from the task's own ids, automatic retries share it, and clearing always starts anew.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_KEY = "ibm_quantum_attempt"


class Attempt:
    """
    One attempt at a task.

    :param context: The task's context.
    """

    def __init__(self, context: Context) -> None:
        self._ti: Any = context["ti"]
        self._store: Any = context.get("task_state_store")
        self.can_remember = self._store is not None
        """Whether what is remembered outlives this attempt: in Airflow 3.3 and newer."""
        self._record, self.is_first = self._begin(context) if self._store else self._derive(context)

    @property
    def is_last(self) -> bool:
        """Whether Airflow will not retry the task if this attempt fails."""
        return bool(self._ti.try_number > self._ti.max_tries)

    def tag(self, index: int = 0) -> str:
        """The tag of the task's ``index``-th job: the same in each attempt, and of no other job."""
        return f"airflow-{self._record['key']}-{index}"

    def remember(self, name: str, value: Any) -> None:
        """Keep something for the attempts after this one; before Airflow 3.3 in an XCom, for people only."""
        if self._store is None:
            self._ti.xcom_push(key=name, value=value)
        else:
            self._set(self._name(name), value)

    def recall(self, name: str) -> Any:
        """What an attempt has kept, or None."""
        return self._store.get(self._name(name)) if self._store else None

    def delivered(self) -> None:
        """Note that the task's outcome is about to be told: a clear after this starts anew."""
        if self._store:
            self._record = {**self._record, "delivered": True, "max_tries": self._ti.max_tries}
            self._set(_KEY, self._record)

    def _begin(self, context: Context) -> tuple[dict[str, Any], bool]:
        known = self._store.get(_KEY)
        # Airflow raises max_tries when a task is cleared, and only then; here it is that of the delivery.
        if known and not (known["delivered"] and self._ti.max_tries > known["max_tries"]):
            return known, False
        record = {"key": secrets.token_hex(10), "max_tries": self._ti.max_tries, "delivered": False}
        self._set(_KEY, record)
        return record, True

    def _derive(self, context: Context) -> tuple[dict[str, Any], bool]:
        ti = self._ti
        # With the start of the run, since another Airflow may have the same Dag on the same instance.
        run = str(context["dag_run"].start_date)
        ids = [ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.max_tries, run]
        key = hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:20]
        return {"key": key}, ti.try_number <= 1

    def _name(self, name: str) -> str:
        """Each key has its own things: those of the time before a clear are no longer meant."""
        return f"ibm_quantum_{self._record['key']}_{name}"

    def _set(self, name: str, value: Any) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        self._store.set(name, value, retention=NEVER_EXPIRE)
