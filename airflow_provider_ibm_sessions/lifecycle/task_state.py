# SPDX-License-Identifier: Apache-2.0
"""
The state of a task that a retry resumes from.

It is one record, loaded once at the start of a try and saved at named points. Airflow 3.3 and newer keep it
in the task state store. Older ones have no such store, and 3.4 empties it when a task is cleared. So nothing
that must survive is in the record alone: the tags of the jobs follow from the ids of the task and from its
input, and open sessions are registered for their task. (Airflow's ``ResumableJobMixin`` keeps the id of one
job once it is known. A job whose submission went unanswered, a session with many jobs, and deferral are
outside of what it does.)
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self, cast

from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError, IBMQuantumTaskError
from airflow_provider_ibm_sessions.hooks.airflow_id import airflow_id
from airflow_provider_ibm_sessions.hooks.airflow_lookup import ensure_variable_absent
from airflow_provider_ibm_sessions.hooks.session_record import retention

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.recovery import PendingCreate

log = logging.getLogger(__name__)

_RECORD = "ibm_quantum_task_state"
_RESULTS = "ibm_quantum_results"

_MAX_CLOCK_LEAD: Final = timedelta(hours=1)
"""By how much Airflow's clock may be ahead of IBM's before a task's own job seems too old to be its own."""

_names_of_records: dict[str, set[str]] = {}
"""Names of the records that this process's task instances had once, by the instances' ids."""

_returned_here: set[tuple[str, str]] = set()
"""Keys, with the id of the task instance, of what has returned in this process."""


def is_last_try(ti: Any) -> bool:
    """Return True if Airflow will not retry the task when this try fails."""
    return bool(ti.try_number > ti.max_tries)


class TaskState:
    """
    Knowledge that the tries of a task share.

    :param context: The task's context.
    :param name: Tells several operators apart that run inside one task.
    """

    def __init__(self, context: Context, name: str = "") -> None:
        self._ti: Any = context["ti"]
        self._dag_run: Any = context["dag_run"]
        self._task: Any = context.get("task")
        self._store = cast("Any", context.get("task_state_store"))
        self.is_of_whole_task = name in ("", self._ti.task_id)
        """False for an operator that runs inside of another task."""
        self._name = "" if self.is_of_whole_task else name
        self._record_key = f"{_RECORD}_{name}" if self._name else _RECORD
        self._record: dict[str, Any] = {}
        self._result_variables: set[str] = set()
        self._is_resumed = False
        self._repeats_failed_jobs = False
        self._retried: frozenset[str] = frozenset()
        self.may_have_unrecorded_work = False
        """True if a try before may have left sessions or jobs of which there is no record."""

    @classmethod
    def load(cls, context: Context, name: str = "", *, after_deferral: bool = False) -> Self:
        """
        Load the record of the tries before, if there is one.

        :param after_deferral: This try may have left work itself, before it was deferred. A record says so,
            except before Airflow 3.3.
        """
        state = cls(context, name)
        if state.is_durable:
            state._record = state._store.get(state._record_key, {})
            if state._record:
                state._remember_name()
        may_have_left_work = state._ti.try_number > 1 or (after_deferral and not state.is_durable)
        is_missing = not state._record and may_have_left_work and not state.is_superseded
        state.may_have_unrecorded_work = is_missing or bool(state._record.get("may_have_unrecorded_work"))
        return state

    @classmethod
    def load_all(cls, context: Context) -> list[Self]:
        """Load all records that this process has used for the task: operators inside of it have their own."""
        return [cls.load(context, name) for name in _names_of_records.get(str(context["ti"].id), {""})]

    @property
    def is_durable(self) -> bool:
        """Return True if the record outlives this try: in Airflow 3.3 and newer."""
        return self._store is not None

    @property
    def is_last_try(self) -> bool:
        """Return True if Airflow will not retry the task when this try fails."""
        return is_last_try(self._ti)

    @property
    def is_resumed(self) -> bool:
        """Return True if a try before may have left work for the same input."""
        return self._is_resumed

    @property
    def is_finished(self) -> bool:
        """Return True if a try before has returned, or was about to."""
        return bool(self._record.get("finished"))

    @property
    def is_superseded(self) -> bool:
        """Return True if a later try had started when this was loaded; known in Airflow 3.3 and newer."""
        # Airflow gives a new id to the task instance of the next try. By the old one nothing is found.
        names = _names_of_records.get(str(self._ti.id), ())
        is_gone = self.is_durable and not self._record and self._name in names
        return is_gone or bool(self._record.get("try_number", 0) > self._ti.try_number)

    @property
    def session_id(self) -> str | None:
        """Return the id of the session that was opened, if it is known."""
        return self._record.get("session_id")

    @property
    def session_ids(self) -> list[str]:
        """Return the ids of all sessions that were opened for the task, as far as they are known."""
        return list(self._record.get("session_ids", ()))

    @property
    def jobs_created_after(self) -> datetime | None:
        """
        Return a time before which this Dag run has submitted nothing, if it is known.

        A run that was deleted, and created again with the same id, finds the jobs of the old one under its
        own tags.
        """
        started = self._record.get("started")
        return datetime.fromisoformat(started) - _MAX_CLOCK_LEAD if started else None

    @property
    def knows_all_sessions(self) -> bool:
        """Return True if :attr:`session_ids` are all: each was saved before its first job was submitted."""
        is_complete = bool(self._record.get("knows_all_sessions", True))
        return is_complete and self.is_durable and not self.may_have_unrecorded_work

    @property
    def clears(self) -> int:
        """Return a number that changes when a task that does not run is cleared, and only then."""
        return int(self._ti.max_tries)

    @property
    def retries_jobs(self) -> bool:
        """Return True if this very try submits jobs again that have failed."""
        return bool(self._retried)

    @property
    def unfinished_job_tag(self) -> str | None:
        """Return the tag of a job outside of a session that may not be final, if it is known."""
        return None if self.is_finished else self._record.get("job_tag")

    @property
    def pending_create(self) -> PendingCreate | None:
        """Return the request to create a session whose outcome was not stored."""
        from airflow_provider_ibm_sessions.client.recovery import PendingCreate

        stored = self._record.get("pending_create")
        return PendingCreate.from_json(stored) if stored else None

    def input_has_changed(self, inputs: Any) -> bool:
        """Return True if a try before has started with other input, and what it has opened is to be ended."""
        return bool(self._record) and not self.is_finished and self._record["inputs"] != _digest(inputs)

    def resume_or_start(self, inputs: Any) -> None:
        """
        Resume from the tries before if their input was the same.

        Nothing is saved: the next save stores the record along with what it is about.

        :param inputs: All that decides on the outcome, as plain JSON.
        """
        digest = _digest(inputs)
        ti = self._ti
        ids = [ti.dag_id, ti.run_id, ti.task_id, ti.map_index, self._record_key, digest]
        # A user's loop executes an operator several times in one try: each time has a key of its own.
        number = 0
        while (_digest([*ids, number]), str(ti.id)) in _returned_here:
            number += 1
        key = _digest([*ids, number])
        if number == 0 and self._record.get("inputs") == digest:
            self._is_resumed = True
            counters = self._clear_counters()
            was_cleared = self._record.get("clear_counters", counters) != counters
        else:
            self._is_resumed = self.may_have_unrecorded_work or (ti.try_number > 1 and number > 0)
            # Clearing allows a task its retries once more, so the number of the try tells of it.
            retries = getattr(self._task, "retries", None) or 0
            was_cleared = ti.try_number > 1 and ti.try_number == ti.max_tries - retries + 1
            self._record = {"inputs": digest, "finished": False, **self._kept()}
        self._repeats_failed_jobs = bool(was_cleared) and not self.retries_jobs
        if self._record.get("key") != key:
            self._record.update(key=key, job_key=None)
        if self._repeats_failed_jobs:
            lost = self._record.pop("jobs_without_results", [])
            self._record["repeated"] = [*self._record.get("repeated", []), *lost]

    def start_again(self) -> None:
        """Keep nothing of the tries before, whose work has been ended."""
        kept = {name: self._record[name] for name in ("inputs", "key")}
        self._record = {**kept, "finished": False, **self._kept()}
        self._is_resumed = False

    def job_tag(self, index: int = 0) -> str:
        """
        Return the tag of the task's ``index``-th job: the same in each try, and of no other job.

        It follows from the ids of the task and from its input, so that clearing the task does not change it.
        Jobs that a function has made are part of the input: it may make others when it is called again.
        """
        if not self._record.get("job_key"):
            airflow = airflow_id(getattr(self._dag_run, "team_name", None))
            made = self.recorded_jobs["digest"] if self.recorded_jobs else None
            self._record["job_key"] = _digest([airflow, self._record["key"], made])[:20]
        return f"airflow-{self._record['job_key']}-{index}"

    def is_repeated(self, job: Job) -> bool:
        """
        Return True if a job that has failed is to be submitted again, or was already.

        It is once the task was cleared, and as :meth:`retry_jobs` says. That is recorded: a retry of the task
        then does not submit it once more.
        """
        repeated: list[str] = self._record.setdefault("repeated", [])
        has_failed = job.is_final and not job.is_completed
        is_due = job.id in self._retried or (self._repeats_failed_jobs and has_failed)
        if is_due and job.id not in repeated:
            repeated.append(job.id)
        return job.id in repeated

    def retry_jobs(self, job_ids: Iterable[str]) -> None:
        """
        Let this very try submit jobs again that have failed.

        It is saved with the request for their session. A try that dies before finds the same jobs failed.
        """
        self._retried = frozenset(job_ids)

    def count_retries(self, index: int, attempts: int) -> int:
        """Return how often the ``index``-th job was submitted again since the task was last cleared."""
        return attempts - int(self._record.get("first_attempts", {}).get(str(index), 1))

    def save_first_attempt(self, index: int, attempt: int) -> None:
        """Note which attempt at a job is the first since the task was cleared; the next save stores it."""
        if self._repeats_failed_jobs:
            self._record.setdefault("first_attempts", {})[str(index)] = attempt

    def save_pending_create(self, pending: PendingCreate) -> None:
        """Save the request to create a session before it is sent."""
        self._save(
            session_id=None,
            pending_create=pending.to_json(),
            finished=False,
            may_have_unrecorded_work=False,
        )

    def save_session(self, session_id: str) -> None:
        """
        Save the id of the session that was opened.

        :raises Exception: If Airflow does not store it, such as where another try has taken over.
        """
        known = dict.fromkeys([*self.session_ids, session_id])
        self._save(
            session_id=session_id,
            session_ids=list(known),
            pending_create=None,
            may_have_unrecorded_work=False,
        )

    def clear_pending_create(self) -> None:
        """Save that no session was opened. A failure is logged: the error of the request is what matters."""
        try:
            self._save(pending_create=None)
        except Exception:  # whatever failed, the request's own error is to be raised
            log.warning(
                "Could not clear the create request from the task state; the next try will search for a "
                "session that does not exist",
                exc_info=True,
            )

    def save_job_tag(self, tag: str) -> None:
        """Save the tag of a job outside of a session, before the job is submitted."""
        self._save(job_tag=tag, finished=False)

    def mark_finished(self, jobs_without_results: Iterable[str] = ()) -> None:
        """
        Save that the outcome is about to be returned.

        :param jobs_without_results: Ids of completed jobs of which IBM has no results. Clearing the task
            submits them again, like those that have failed, and collects the results of the others again.
        """
        self.mark_returned()
        try:
            self._save(finished=True, jobs_without_results=list(jobs_without_results))
        except Exception:  # what was paid for is returned all the same; a retry then resumes
            log.exception("Could not save that the task has finished; a retry will collect its results again")
        self.discard_results()

    def mark_returned(self) -> None:
        """Let the task start again if this process executes it once more, as a user's loop does."""
        if "key" in self._record:
            _returned_here.add((self._record["key"], str(self._ti.id)))

    @property
    def recorded_jobs(self) -> dict[str, Any] | None:
        """Return the summary that was saved with the jobs that a function has made."""
        return self._record.get("recorded_jobs")

    def get_recorded_content(self) -> str | None:
        """Return the content that was saved with :attr:`recorded_jobs`, unless Airflow has removed it."""
        stored = self._store.get(f"{self._record_key}_jobs") if self.is_durable else None
        summary = self.recorded_jobs
        return stored["content"] if stored and summary and stored["digest"] == summary["digest"] else None

    def save_recorded_jobs(self, summary: dict[str, Any], content: str) -> None:
        """
        Save the jobs that a function has made, before the first is submitted.

        :param summary: What is kept for as long as the record, with the jobs' ``digest``.
        :param content: What is kept for as long as Airflow keeps task state.
        """
        if self.is_durable:
            self._store.set(f"{self._record_key}_jobs", {"digest": summary["digest"], "content": content})
        self._record.update(recorded_jobs=summary, job_key=None)
        # Until a session is saved, a retry has to look for those of tries before that have no record.
        self._save(may_have_unrecorded_work=self.may_have_unrecorded_work)

    def get_results(self, job_id: str) -> Any:
        """
        Return the stored results of a private job, or None.

        :raises AirflowApiUnavailableError: If Airflow does not answer. IBM may have given them out already.
        """
        from airflow.providers.common.compat.sdk import Variable

        key = f"{_RESULTS}_{job_id}"
        try:
            if self.is_durable:
                return self._store.get(key)
            stored = Variable.get(key, default=None) or ensure_variable_absent(key)
        except Exception as error:  # a retry is right, whatever it is
            raise AirflowApiUnavailableError(
                f"Airflow does not return the results of private job {job_id}: is its API server up?"
            ) from error
        if stored:
            self._result_variables.add(key)
        return json.loads(stored) if stored else None

    def save_results(self, job_id: str, results: Any) -> None:
        """
        Store the results of a private job, which IBM gives out once, for as long as Airflow keeps task state.

        Before Airflow 3.3 they are kept in a variable until the task is about to return.
        """
        key = f"{_RESULTS}_{job_id}"
        if self.is_durable:
            self._store.set(key, results)
            return
        from airflow.providers.common.compat.sdk import Variable

        description = f"Results of a private job of {self._ti.dag_id}.{self._ti.task_id}"
        Variable.set(key, json.dumps(results), description)
        self._result_variables.add(key)

    def discard_results(self) -> None:
        """Delete the variables with results of private jobs, which the task is about to return."""
        from airflow.providers.common.compat.sdk import Variable

        while self._result_variables:
            key = self._result_variables.pop()
            try:
                Variable.delete(key)
            except Exception:  # whatever failed, the results are returned
                log.warning("Delete the variable %s: it holds results of a private job", key, exc_info=True)

    def _kept(self) -> dict[str, Any]:
        """Return what a record keeps for good: the task's sessions, and when it first ran."""
        started = self._record.get("started")
        if not (self._record or self.may_have_unrecorded_work):
            started = datetime.now(UTC).isoformat()
        return {
            "session_ids": self.session_ids,
            "knows_all_sessions": self.knows_all_sessions,
            "started": started,
        }

    def _clear_counters(self) -> list[int]:
        """Return the numbers of which one at least changes when somebody clears the task."""
        return [self._ti.max_tries, getattr(self._dag_run, "clear_number", None) or 0]

    def _save(self, **changes: Any) -> None:
        if not self.is_durable:
            return
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        if self.is_superseded:
            raise IBMQuantumTaskError("A later try of this task has started")
        self._record.update(changes, clear_counters=self._clear_counters(), try_number=self._ti.try_number)
        # A finished task has delivered, and collects again without a record: the jobs have their tags.
        kept_for = retention() if self.is_finished else None
        self._store.set(self._record_key, self._record, retention=kept_for or NEVER_EXPIRE)
        self._remember_name()

    def _remember_name(self) -> None:
        _names_of_records.setdefault(str(self._ti.id), set()).add(self._name)


def _digest(inputs: Any) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
