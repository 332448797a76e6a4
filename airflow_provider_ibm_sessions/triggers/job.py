# SPDX-License-Identifier: Apache-2.0
"""Waits for jobs in the triggerer, without a worker slot; may cancel them when their task is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.flows import JobSet, drain, end_all
from airflow_provider_ibm_sessions.lifecycle.kill import is_over
from airflow_provider_ibm_sessions.triggers.base import IBMQuantumTrigger

_ASK_AGAIN = (2.0, 4.0, 8.0, 0.0)
"""Seconds to wait after each question without an answer, well within Airflow's 30."""

_endings: set[asyncio.Task[None]] = set()
"""What is under way: asyncio itself does not keep its tasks."""


class IBMQuantumJobTrigger(IBMQuantumTrigger):
    """
    Fires when jobs are final, well or not, or the time is over.

    :param job_ids: The jobs; none: all of the session.
    :param session_id: Their session, if they have one in common.
    :param cancel_on_kill: Cancel the jobs when a user ends the deferred task (Airflow 3.3+). Clearing it
        does not: the task goes on with them.
    :param owns_session: Close the session as well then: only for the task that has opened it.
    :param echo: What the task wants back with the event, as plain JSON.
    :param waiting: ``end_time``, ``poll_interval`` and ``ibm_quantum_conn_id``.
    """

    def __init__(
        self,
        *,
        job_ids: Sequence[str] = (),
        session_id: str | None = None,
        cancel_on_kill: bool = False,
        owns_session: bool = False,
        echo: Any = None,
        **waiting: Any,
    ) -> None:
        super().__init__(**waiting)
        self.job_ids = tuple(job_ids)
        self.session_id = session_id
        self.cancel_on_kill = cancel_on_kill
        self.owns_session = owns_session
        self.echo = echo
        self._told: int | None = None

    def trigger_kwargs(self) -> dict[str, Any]:
        """The jobs, and what becomes of them when the task is killed."""
        return {
            "job_ids": list(self.job_ids),
            "session_id": self.session_id,
            "cancel_on_kill": self.cancel_on_kill,
            "owns_session": self.owns_session,
            "echo": self.echo,
        }

    async def look(self, client: AsyncIBMQuantumClient) -> dict[str, Any] | None:
        """See how far they are, and log what has changed."""
        progress = await client.run_flow(JobSet(self.job_ids, self.session_id).look(self._told))
        if self._told != progress.count:
            self._told = progress.count
            self.log.info("%s", progress)
        if not progress.is_done:
            return None
        return {"status": "success", "jobs": [job.to_json() for job in progress.jobs]}

    def event(self, **facts: Any) -> TriggerEvent:
        """What is told to the task, with what it wanted back."""
        return super().event(**{**facts, "end_time": self.end_time, "echo": self.echo})

    def timeout_message(self) -> str:
        """What to tell when the time is over."""
        what = f"Job {', '.join(self.job_ids)}" if self.job_ids else f"Jobs of session {self.session_id}"
        return f"{what} not final in time"

    async def on_kill(self) -> None:
        """
        End the jobs if the task is over. Called by Airflow 3.3+, which gives it 30 s.

        Airflow 3.3.2 cancels it as well, each second for as long as it runs: so the work is done beside it.
        """
        if not (self.cancel_on_kill or self._owned):
            return
        ending = asyncio.create_task(self._end_unless_it_goes_on())
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)
        await asyncio.shield(ending)

    async def _end_unless_it_goes_on(self) -> None:
        goes_on = await self._goes_on()
        if goes_on:
            return
        if self.cancel_on_kill and goes_on is False:
            self.log.info("The task was killed: ending what it has begun")
            calls = end_all(self._owned, self.job_ids)
        elif self._owned:
            self.log.info("What was begun may run to its end, and its session takes nothing more")
            calls = drain(self._owned)
        else:
            return
        async with self.hook.async_short_lived_client() as client:
            for text in await client.run_flow(calls):
                self.log.error("%s", text)

    @property
    def _owned(self) -> str | None:
        """The session, if it is to end with the jobs."""
        return self.session_id if self.owns_session else None

    async def _goes_on(self) -> bool | None:
        """
        Whether the task is not over: another triggerer has taken it over, or it was cleared and runs anew.

        Airflow 3.3.2 calls ``on_kill`` whenever a trigger leaves a triggerer, for whatever reason. So where
        Airflow does not tell (None), the jobs may well be somebody's.
        """
        ti = self.task_instance
        if ti is None:
            return False
        for pause in _ASK_AGAIN:
            try:
                return not await asyncio.to_thread(is_over, ti)
            except Exception:
                self.log.exception("Cannot read the state of the task")
            await asyncio.sleep(pause)
        return None
