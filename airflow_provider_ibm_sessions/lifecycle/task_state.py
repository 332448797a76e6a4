# SPDX-License-Identifier: Apache-2.0
"""
What connects the attempts at a task, so that a retry goes on where the one before it was.

All attempts, also by clearing the task, share one key until one of them has delivered its outcome, or the
input has changed; a cleared task that had delivered starts anew. Airflow 3.3+ keeps the key in the task state
store. Older ones have none: there the key is made from the task's own ids, automatic retries share it, and
clearing always starts anew. (Airflow's ``ResumableJobMixin`` keeps the id of one job once it is known. A job
whose submission went unanswered, a session with many jobs, and deferral are outside of what it does.)
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

_RECORD = "ibm_quantum_attempt"

_SEEN: set[str] = set()
"""The task instances of this process that had a record once."""


class Attempt:
    """
    One attempt at a task.

    :param context: The task's context.
    """

    def __init__(self, context: Context) -> None:
        self._ti: Any = context["ti"]
        self._run: Any = context["dag_run"]
        self._store = cast("Any", context.get("task_state_store"))
        self.can_remember = self._store is not None
        """Whether what is remembered outlives this attempt: in Airflow 3.3 and newer."""
        self._record: dict[str, Any] = self._store.get(_RECORD, {}) if self._store else self._derived()
        if self._record:
            _SEEN.add(str(self._ti.id))
        self.is_first = True
        """Whether no attempt before has begun with the same, and may have left something."""

    @property
    def is_last(self) -> bool:
        """Whether Airflow will not retry the task if this attempt fails."""
        return bool(self._ti.try_number > self._ti.max_tries)

    def begin(self, inputs: Any) -> None:
        """
        Take up the key of the attempts before, or a new one.

        :param inputs: All that decides on the outcome, as plain JSON.
        """
        if self._store is None:
            self.is_first = self._ti.try_number <= 1
            return
        forsaken = self.forsaken
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        if self._record and not (self._record["delivered"] and self._record["clears"] != self._clears()):
            if self._record["inputs"] == digest:
                self.is_first = False
                self._note(tried=self._ti.try_number)
                return
            forsaken = [*forsaken, self._record["key"]]
        self._note(
            key=secrets.token_hex(10),
            inputs=digest,
            delivered=False,
            forsaken=forsaken,
            tried=self._ti.try_number,
        )

    @property
    def is_pending(self) -> bool:
        """Whether an attempt before has begun, and none has delivered."""
        if self._store is None:
            return bool(self._ti.try_number > 1)
        return bool(self._record) and not self._record["delivered"]

    @property
    def is_superseded(self) -> bool:
        """Whether a later attempt had begun when this was made; known in Airflow 3.3 and newer."""
        # Airflow gives a new id to the task instance of the next attempt. By the old one nothing is found.
        is_gone = self.can_remember and not self._record and str(self._ti.id) in _SEEN
        return is_gone or bool(self._record.get("tried", 0) > self._ti.try_number)

    @property
    def forsaken(self) -> list[str]:
        """The keys of attempts that began with other input, and may have left something behind."""
        return list(self._record.get("forsaken", ()))

    def ended_forsaken(self, key: str) -> None:
        """Note that nothing is left of one."""
        self._note(forsaken=[other for other in self.forsaken if other != key])

    def tag(self, index: int = 0, key: str | None = None) -> str:
        """The tag of the task's ``index``-th job: the same in each attempt, and of no other job."""
        return f"airflow-{key or self._record['key']}-{index}"

    def remember(self, name: str, value: Any, *, for_ever: bool = True) -> None:
        """Keep something for the attempts after this one; before Airflow 3.3 in an XCom, for people only."""
        if self._store is None:
            self._ti.xcom_push(key=name, value=value)
        else:
            self._set(self._name(name), value, for_ever=for_ever)

    def recall(self, name: str, key: str | None = None) -> Any:
        """What an attempt has kept, or None."""
        known = self._store and (key or self._record)
        return self._store.get(self._name(name, key)) if known else None

    def delivered(self) -> None:
        """Note that the task's outcome is about to be told: a clear after this starts anew."""
        if self._store is None:
            return
        try:
            self._note(delivered=True)
        except Exception:  # what was paid for is told all the same; a clear then goes on with it
            log.exception("Cannot note that the outcome is delivered")

    def _clears(self) -> list[int]:
        """What changes when somebody clears the task: it may be one of them only."""
        return [self._ti.max_tries, getattr(self._run, "clear_number", None) or 0]

    def _note(self, **changes: Any) -> None:
        self._record = {**self._record, "clears": self._clears(), **changes}
        self._set(_RECORD, self._record)
        _SEEN.add(str(self._ti.id))

    def _derived(self) -> dict[str, Any]:
        ti = self._ti
        # With the start of the run, since another Airflow may have the same Dag on the same instance.
        run = str(self._run.start_date)
        ids = [ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.max_tries, run]
        return {"key": hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:20]}

    def _name(self, name: str, key: str | None = None) -> str:
        """Each key has its own things: those of the time before a clear are no longer meant."""
        return f"ibm_quantum_{key or self._record['key']}_{name}"

    def _set(self, name: str, value: Any, *, for_ever: bool = True) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        self._store.set(name, value, retention=NEVER_EXPIRE if for_ever else None)
