# SPDX-License-Identifier: Apache-2.0
"""Waits for a session's state in the triggerer, without a worker slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, IBMQuantumError
from airflow_provider_ibm_sessions.client.waiting import (
    Patience,
    first_pause,
    has_reached,
    is_passing,
    jittered,
)
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

_LAST_POLL_SECONDS = 30.0


class IBMQuantumSessionTrigger(BaseTrigger):
    """
    Fires when a session is in one of the wanted states, can no longer get there, or the time is over.

    Holds ids only; may run twice, and in another triggerer, without harm. All triggers of a process share
    one HTTP client and one token.

    :param session_id: The session.
    :param target_states: States that end the waiting.
    :param end_time: Deadline in seconds since the epoch: it outlives restarts of the triggerer.
    :param poll_interval: Seconds between polls, on average.
    :param ibm_quantum_conn_id: The Airflow connection.
    """

    def __init__(
        self,
        session_id: str,
        target_states: Sequence[str],
        end_time: float,
        poll_interval: float,
        ibm_quantum_conn_id: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.session_id = session_id
        self.target_states = tuple(target_states)
        self.end_time = end_time
        self.poll_interval = poll_interval
        self.ibm_quantum_conn_id = ibm_quantum_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments: ids, states and times."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "session_id": self.session_id,
                "target_states": list(self.target_states),
                "end_time": self.end_time,
                "poll_interval": self.poll_interval,
                "ibm_quantum_conn_id": self.ibm_quantum_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until there is something to tell, then tell it once."""
        # Before anything else: a thousand that start together shall not ask for a connection together.
        await self._sleep(first_pause(self.poll_interval))
        try:
            async with IBMQuantumHook(self.ibm_quantum_conn_id).async_client() as client:
                event = await self._watch(client)
        except IBMQuantumError as error:
            event = {
                "status": "error",
                "message": str(error),
                "retryable": is_passing(error),
                "end_time": self.end_time,
            }
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _watch(self, client: AsyncIBMQuantumClient) -> dict[str, Any]:
        # Whoever deferred has had an answer: a web page now is passing trouble, not a wrong URL.
        patience = Patience(answered=True, makes_pauses=True)
        while True:
            # Read before looking at the clock: after an hour without a triggerer the session comes first.
            if event := await self._poll(client, patience):
                return event
            if time.time() >= self.end_time:
                return {"status": "timeout", "message": self._too_late()}
            await self._sleep(max(jittered(self.poll_interval), patience.pause))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline."""
        await asyncio.sleep(max(0.0, min(seconds, self.end_time - time.time())))

    async def _poll(self, client: AsyncIBMQuantumClient, patience: Patience) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(max(_LAST_POLL_SECONDS, self.end_time - time.time())):
                session = await client.get_session(self.session_id)
        except TimeoutError:
            return None
        except IBMQuantumError as error:
            if not patience.tolerates(error):
                raise
            self.log.warning("%s. Waiting on; failure %d in a row", error, patience.count)
            return None
        patience.reset()
        if has_reached(session, self.target_states):
            return {"status": "success", "session": session.to_json()}
        return None

    def _too_late(self) -> str:
        return f"Session {self.session_id} was not {' or '.join(self.target_states)} in time"
