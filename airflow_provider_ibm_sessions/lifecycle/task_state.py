# SPDX-License-Identifier: Apache-2.0
"""
The state of a task that a retry resumes from.

It is one record, loaded once at the start of a try and saved at named points. All tries share one key, also
after the task was cleared, as long as the input is the same. Airflow 3.3 and newer keep the record in the
task state store. Older ones have none: there the key follows from the task's own ids, and nothing else is
known to a retry. (Airflow's ``ResumableJobMixin`` keeps the id of one job once it is known. A job whose
submission went unanswered, a session with many jobs, and deferral are outside of what it does.)
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from typing import TYPE_CHECKING, Any, Self, cast

from airflow_provider_ibm_sessions.exceptions import IBMQuantumTaskError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.recovery import PendingCreate

log = logging.getLogger(__name__)

_RECORD = "ibm_quantum_task_state"
_RESULTS = "ibm_quantum_results"

_task_instances_with_record: set[str] = set()
"""Ids of this process's task instances that had a record once."""

_finished_here: set[tuple[str, int]] = set()
"""Keys, with the number of the try, of the runs that have finished in this process."""


class TaskState:
    """
    What one try at a task knows of the tries before, and leaves to those after it.

    :param context: The task's context.
    :param name: Tells several operators apart that run inside one task.
    """

    def __init__(self, context: Context, name: str = "") -> None:
        self._ti: Any = context["ti"]
        self._dag_run: Any = context["dag_run"]
        self._store = cast("Any", context.get("task_state_store"))
        self._record_key = _RECORD if name in ("", self._ti.task_id) else f"{_RECORD}_{name}"
        self._record: dict[str, Any] = {}
        self._is_resumed = False

    @classmethod
    def load(cls, context: Context, name: str = "") -> Self:
        """Load the record of the tries before, if there is one."""
        state = cls(context, name)
        if state.is_durable:
            state._record = state._store.get(state._record_key, {})
            if state._record:
                _task_instances_with_record.add(str(state._ti.id))
        else:
            state._record = {"key": state._derive_key()}
        return state

    @property
    def is_durable(self) -> bool:
        """Return True if the record outlives this try: in Airflow 3.3 and newer."""
        return self._store is not None

    @property
    def is_last_try(self) -> bool:
        """Return True if Airflow will not retry the task when this try fails."""
        return bool(self._ti.try_number > self._ti.max_tries)

    @property
    def is_resumed(self) -> bool:
        """Return True if a try before has started with the same input, and may have left work."""
        return self._is_resumed

    @property
    def has_unfinished_run(self) -> bool:
        """Return True if a try before has started, and none has finished."""
        if not self.is_durable:
            return bool(self._ti.try_number > 1)
        return bool(self._record) and not self._record["finished"]

    @property
    def is_superseded(self) -> bool:
        """Return True if a later try had started when this was loaded; known in Airflow 3.3 and newer."""
        # Airflow gives a new id to the task instance of the next try. By the old one nothing is found.
        is_gone = self.is_durable and not self._record and str(self._ti.id) in _task_instances_with_record
        return is_gone or bool(self._record.get("try_number", 0) > self._ti.try_number)

    @property
    def session_id(self) -> str | None:
        """Return the id of the session that was opened, if it is known."""
        return self._record.get("session_id")

    @property
    def pending_create(self) -> PendingCreate | None:
        """Return the request to create a session whose outcome was not stored."""
        from airflow_provider_ibm_sessions.client.recovery import PendingCreate

        stored = self._record.get("pending_create")
        return PendingCreate.from_json(stored) if stored else None

    def input_has_changed(self, inputs: Any) -> bool:
        """Return True if a try before has started with other input, and what it has opened is to be ended."""
        return self.has_unfinished_run and self.is_durable and self._record["inputs"] != _digest(inputs)

    def resume_or_start(self, inputs: Any) -> None:
        """
        Take the key of the tries before if their input was the same, else a new one.

        Nothing is saved: the next save stores the key along with what it is about.

        :param inputs: All that decides on the outcome, as plain JSON.
        """
        if not self.is_durable:
            self._is_resumed = bool(self._ti.try_number > 1)
            return
        digest = _digest(inputs)
        if self._record and self._record["inputs"] == digest and not self._starts_again():
            self._is_resumed = True
            return
        self.start(inputs)

    def start(self, inputs: Any) -> None:
        """Take a new key, when the tries before have left no work."""
        if self.is_durable:
            self._record = {"key": secrets.token_hex(10), "inputs": _digest(inputs), "finished": False}
            self._is_resumed = False

    def job_tag(self, index: int = 0) -> str:
        """Return the tag of the task's ``index``-th job: the same in each try, and of no other job."""
        return f"airflow-{self._record['key']}-{index}"

    def save_pending_create(self, pending: PendingCreate) -> None:
        """Save the request to create a session before it is sent."""
        self._save(session_id=None, pending_create=pending.to_json())

    def save_session(self, session_id: str) -> None:
        """
        Save the id of the session that was opened.

        :raises Exception: If Airflow does not store it, such as where another try has taken over.
        """
        self._save(session_id=session_id, pending_create=None)

    def clear_pending_create(self) -> None:
        """Save that no session was opened. A failure is logged: the error of the request is what matters."""
        try:
            self._save(pending_create=None)
        except Exception:
            log.warning(
                "Could not clear the create request from the task state; the next try will search for a "
                "session that does not exist",
                exc_info=True,
            )

    def save_started(self) -> None:
        """Save that this try has started, before it submits."""
        self._save()

    def mark_finished(self, *, clear_collects: bool) -> None:
        """
        Save that the outcome is about to be returned.

        :param clear_collects: True if clearing the task is to collect the results of the same jobs again;
            else clearing it starts again.
        """
        self.mark_returned()
        try:
            self._save(finished=True, clear_collects=clear_collects)
        except Exception:  # what was paid for is returned all the same; a retry then resumes
            log.exception("Could not save that the task has finished; clearing it will not start again")

    def mark_returned(self) -> None:
        """Let the task start again if this process executes it once more, as a user's loop does."""
        if self.is_durable:
            _finished_here.add((self._record["key"], self._ti.try_number))

    @property
    def recorded_jobs(self) -> dict[str, Any] | None:
        """Return the summary that was saved with the jobs that a function has made."""
        return self._record.get("recorded_jobs")

    def get_recorded_content(self) -> str | None:
        """Return the content that was saved with :attr:`recorded_jobs`, unless Airflow has removed it."""
        stored = self._store.get(f"{self._record_key}_jobs") if self.is_durable else None
        return stored["content"] if stored and stored["key"] == self._record["key"] else None

    def save_recorded_jobs(self, summary: dict[str, Any], content: str) -> None:
        """
        Save the jobs that a function has made, before the first is submitted.

        :param summary: What is kept for as long as the record.
        :param content: What is kept for as long as Airflow keeps task state.
        """
        if self.is_durable:
            self._store.set(f"{self._record_key}_jobs", {"key": self._record["key"], "content": content})
            self._save(recorded_jobs=summary)

    def get_results(self, job_id: str) -> Any:
        """Return the stored results of a private job, or None."""
        return self._store.get(f"{_RESULTS}_{job_id}") if self.is_durable else None

    def save_results(self, job_id: str, results: Any) -> None:
        """
        Store the results of a private job, which IBM gives out once, for as long as Airflow keeps task state.

        Before Airflow 3.3 they are an XCom of the task, which a retry cannot read.
        """
        if self.is_durable:
            self._store.set(f"{_RESULTS}_{job_id}", results)
        else:
            self._ti.xcom_push(key=job_id, value=results)

    def _starts_again(self) -> bool:
        """Return True if the record is of a run that is over."""
        record = self._record
        # A user's loop executes the operator once more; a retry is a process of its own.
        if (record["key"], self._ti.try_number) in _finished_here:
            return True
        return record["finished"] and not record["clear_collects"] and record["clears"] != self._clears()

    def _clears(self) -> list[int]:
        """Return what changes when somebody clears the task: it may be one of them only."""
        return [self._ti.max_tries, getattr(self._dag_run, "clear_number", None) or 0]

    def _save(self, **changes: Any) -> None:
        if not self.is_durable:
            return
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        if self.is_superseded:
            raise IBMQuantumTaskError("A later try of this task has started")
        self._record.update(changes, clears=self._clears(), try_number=self._ti.try_number)
        self._store.set(self._record_key, self._record, retention=NEVER_EXPIRE)
        _task_instances_with_record.add(str(self._ti.id))

    def _derive_key(self) -> str:
        ti = self._ti
        # With the start of the run, since another Airflow may have the same Dag on the same instance.
        ids = [
            ti.dag_id,
            ti.run_id,
            ti.task_id,
            ti.map_index,
            str(self._dag_run.start_date),
            self._record_key,
        ]
        return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:20]


def _digest(inputs: Any) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
