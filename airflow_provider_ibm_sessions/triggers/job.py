# SPDX-License-Identifier: Apache-2.0
"""Wait for jobs in the triggerer, without a worker slot; end them when their task is killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.enums import SessionState
from airflow_provider_ibm_sessions.client.flows import JobSet, Progress, close_and_cancel, drain
from airflow_provider_ibm_sessions.client.shared_list import Listing
from airflow_provider_ibm_sessions.client.validation import validate_bool, validate_seconds
from airflow_provider_ibm_sessions.triggers.base import MAX_UNREAD_SECONDS, IBMQuantumTrigger
from airflow_provider_ibm_sessions.triggers.progress import ProgressLog
from airflow_provider_ibm_sessions.triggers.task_states import task_has_finished

_STATE_TIMEOUT = 10.0
"""Seconds to wait for the task's state: Airflow itself waits without a limit."""

_STATE_DELAYS = (2.0, 4.0, 8.0, 0.0)
"""Seconds to wait after each question for the task's state without an answer."""

_OLDEST_EVERY = 6
"""Polls in which the oldest job is read once, beside the list of its session's jobs."""

_cleanups: set[asyncio.Task[None]] = set()
"""Cleanups that are running: asyncio itself does not keep its tasks."""


class IBMQuantumJobTrigger(IBMQuantumTrigger):
    """
    Fire when jobs are final, well or not, or the time is over.

    :param job_ids: The jobs; none: all of the session.
    :param session_id: Their session, if they have one in common.
    :param cancel_on_kill: Cancel the jobs when a user ends the deferred task (Airflow 3.3+). Clearing it
        does not: the task resumes with them.
    :param owns_session: Close the session as well then: only for the task that has opened it.
    :param settle_seconds: Once the jobs are final, wait that long at most until IBM's usage is final as well.
        A session that still accepts jobs is not waited for: the task is to close it.
    :param resume_data: What the task wants back with the event, as plain JSON.
    :param base: ``end_time``, ``poll_interval``, ``ibm_quantum_conn_id`` and ``created_at``.
    """

    def __init__(
        self,
        *,
        job_ids: Sequence[str] = (),
        session_id: str | None = None,
        cancel_on_kill: bool = False,
        owns_session: bool = False,
        settle_seconds: float = 0.0,
        resume_data: Any = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        JobSet(job_ids, session_id)  # validates them
        self.job_ids = tuple(job_ids)
        self.session_id = session_id
        self.cancel_on_kill = validate_bool(cancel_on_kill, "cancel_on_kill")
        self.owns_session = validate_bool(owns_session, "owns_session")
        self.settle_seconds = validate_seconds(settle_seconds, "settle_seconds", allow_zero=True)
        self.resume_data = resume_data
        self._progress = ProgressLog()
        self._settles_until: float | None = None
        self._polls = 0
        self._pending: dict[str, str] = {}
        self._last: Progress | None = None
        self._polled_at = 0.0

    def trigger_kwargs(self) -> dict[str, Any]:
        """Return the jobs, and what becomes of them when the task is killed."""
        return {
            "job_ids": list(self.job_ids),
            "session_id": self.session_id,
            "cancel_on_kill": self.cancel_on_kill,
            "owns_session": self.owns_session,
            "settle_seconds": self.settle_seconds,
            "resume_data": self.resume_data,
        }

    @property
    def listing(self) -> Listing | None:
        """Return the list of jobs."""
        return Listing.JOBS

    def listed_states(self) -> tuple[dict[str, str], float]:
        """Return the states of the pending jobs as of the last poll, and when a line is to be logged."""
        return self._pending, self._progress.seconds_left

    async def poll_once(self, client: AsyncIBMQuantumClient) -> dict[str, Any] | None:
        """Poll the jobs, and log what has changed, and every five minutes that nothing has."""
        seen = None if self._settles_until else self._progress.seen
        doubted = self.doubted if self._polls % _OLDEST_EVERY else None
        progress = await client.run_flow(JobSet(self.job_ids, self.session_id).poll(seen, doubted))
        self._polls += 1
        self._pending = {job.id: job.final_status or "" for job in progress.jobs if not job.is_final}
        known = self._last.session if self._last else None
        self._last = replace(progress, session=progress.session or known)
        self._polled_at = time.monotonic()
        await self._log_progress(client, progress)
        if not progress.is_done or self._is_settling(progress):
            return None
        return {
            "status": "success",
            "jobs": [job.to_json() for job in progress.jobs],
            "session": progress.session.to_json() if progress.session else None,
        }

    async def log_unchanged(self, client: AsyncIBMQuantumClient) -> bool:
        """
        Log the jobs as of the last poll, where nothing else can have changed.

        The seconds of an active session grow, so it is polled. So is, from time to time, all the rest.
        """
        if self._last is None or time.monotonic() - self._polled_at >= MAX_UNREAD_SECONDS:
            return False
        if self._last.session and self._last.session.state == SessionState.ACTIVE:
            return False
        await self._log_progress(client, self._last)
        return True

    async def _log_progress(self, client: AsyncIBMQuantumClient, progress: Progress) -> None:
        if self._progress.is_due(progress):
            credentials = await self.hook.aget_credentials()
            line = progress.describe(credentials.price_per_second, credentials.currency)
            self.log.info("%s%s", line, await self._progress.queue(client, credentials, progress))

    def _is_settling(self, progress: Progress) -> bool:
        """Return True if the jobs are final, IBM's usage is not, and there is time to wait for it."""
        session = progress.session
        stays_open = session is not None and session.accepts_jobs
        if not self.settle_seconds or stays_open or progress.usage.settled:
            return False
        if self._settles_until is None:
            self._settles_until = min(time.time() + self.settle_seconds, self.end_time)
            self.log.info(
                "The jobs are final. Waiting up to %.0f s until IBM's usage is final", self.settle_seconds
            )
        return time.time() < self._settles_until

    def payload(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the event as the task gets it, with what it wanted back."""
        ids = {"job_ids": list(self.job_ids), "session_id": self.session_id}
        return super().payload({**event, **ids, "resume_data": self.resume_data})

    def timeout_message(self) -> str:
        """Say which jobs were awaited in vain."""
        what = f"Job {', '.join(self.job_ids)}" if self.job_ids else f"Jobs of session {self.session_id}"
        return f"{what} not final in time"

    async def on_kill(self) -> None:
        """
        End the jobs if the task has finished. Called by Airflow 3.3+, which gives it 30 s.

        Airflow 3.3.2 cancels it as well, each second for as long as it runs: so the cleanup runs beside it.
        """
        if not (self.cancel_on_kill or self.owns_session):
            return
        cleanup = asyncio.create_task(self._clean_up_unless_active())
        _cleanups.add(cleanup)
        cleanup.add_done_callback(_cleanups.discard)
        await asyncio.shield(cleanup)

    async def _clean_up_unless_active(self) -> None:
        """
        End what nobody waits for.

        Airflow 3.3.2 calls ``on_kill`` whenever a trigger leaves a triggerer, for whatever reason. So while
        the task is active, or Airflow does not answer, the jobs may well be waited for elsewhere.
        """
        has_finished = await self._task_has_finished()
        owned = self.session_id if self.owns_session else None
        if has_finished is False:
            return
        if self.cancel_on_kill and has_finished:
            self.log.info("The task was killed: ending its session and its jobs %s", ", ".join(self.job_ids))
            cleanup = close_and_cancel(owned, self.job_ids)
        elif owned:
            self.log.info(
                "The task may have been killed: draining its session %s, letting its jobs run", owned
            )
            cleanup = drain(owned)
        else:
            return
        async with self.hook.async_short_lived_client() as client:
            for error in await client.run_flow(cleanup):
                self.log.error("%s. See %s", error, self.hook.console_url(owned or ""))

    async def _task_has_finished(self) -> bool | None:
        """Return True if the task is final, False if it is active, None if Airflow does not answer."""
        if self.task_instance is None:
            return True
        for delay in _STATE_DELAYS:
            try:
                async with asyncio.timeout(_STATE_TIMEOUT):
                    return await task_has_finished(self.task_instance)
            except Exception:  # whatever failed, the question is asked again
                self.log.exception(
                    "Airflow does not answer whether the task of jobs %s is active", self.job_ids
                )
            await asyncio.sleep(delay)
        return None
