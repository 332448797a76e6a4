# SPDX-License-Identifier: Apache-2.0
"""Poll until there is an event or the time is over: in the triggerer or, in the same way, in a worker."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property
from typing import Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, IBMQuantumError
from airflow_provider_ibm_sessions.client.errors import AuthenticationError
from airflow_provider_ibm_sessions.client.polling import (
    FailureTolerance,
    initial_jitter,
    is_transient,
    jittered,
)
from airflow_provider_ibm_sessions.client.shared_list import Listing
from airflow_provider_ibm_sessions.client.shared_poll import Wait, poll_slots, shared_wait
from airflow_provider_ibm_sessions.client.validation import MAX_TIMESTAMP, validate_conn_id, validate_seconds
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

MIN_DEFERRAL = 10.0
"""
Seconds after the deferral before which no event is sent.

The scheduler may take the executor's report of the deferral for a failure if the event comes before it
(apache/airflow#72716).
"""

MAX_UNREAD_SECONDS = 1800.0
"""Seconds after which a poll is made although a shared list shows no change."""

_LAST_POLL_SECONDS = 30.0

_QUEUE_SECONDS = 600.0
"""Seconds beyond the deadline that a last poll may wait for its turn, where thousands are due together."""

T = TypeVar("T")


class IBMQuantumTrigger(BaseTrigger):
    """
    Poll until there is something to report, and report it once.

    Holds ids only; may run twice, and in another triggerer, without harm. All triggers of a process share one
    HTTP client and one token; many that wait for sessions or jobs share a list as well.

    :param end_time: Deadline in seconds since the epoch: it outlives restarts of the triggerer.
    :param poll_interval: Seconds between polls, on average.
    :param ibm_quantum_conn_id: The Airflow connection.
    :param created_at: When the task deferred, in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        end_time: float,
        poll_interval: float,
        ibm_quantum_conn_id: str,
        created_at: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.end_time = validate_seconds(end_time, "end_time", MAX_TIMESTAMP)
        self.poll_interval = validate_seconds(poll_interval, "poll_interval")
        self.ibm_quantum_conn_id = validate_conn_id(ibm_quantum_conn_id)
        self.created_at = time.time() if created_at is None else created_at
        self.doubted: Sequence[str] = ()
        """The ids that the shared list did not show as they were: the next poll is made for them."""

    @property
    def listing(self) -> Listing | None:
        """Return the list that shows what is awaited, if there is one."""
        return None

    def listed_states(self) -> tuple[dict[str, str], float]:
        """Return what the list shows for as long as no poll is needed, and the seconds after which one is."""
        return {}, 0.0

    async def log_unchanged(self, client: AsyncIBMQuantumClient) -> bool:
        """Log that the list shows no change; return False if that takes a poll."""
        return False

    @cached_property
    def hook(self) -> IBMQuantumHook:
        """Return the hook on the connection."""
        return IBMQuantumHook(self.ibm_quantum_conn_id)

    @abstractmethod
    def trigger_kwargs(self) -> dict[str, Any]:
        """Return the arguments that say what is awaited."""

    @abstractmethod
    async def poll_once(self, client: AsyncIBMQuantumClient) -> dict[str, Any] | None:
        """Poll once, and return the event if it is time for one."""

    @abstractmethod
    def timeout_message(self) -> str:
        """Say what was awaited in vain."""

    def payload(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the event as the task gets it."""
        return {**event, "end_time": self.end_time}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments: ids, states and times."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                **self.trigger_kwargs(),
                "end_time": self.end_time,
                "poll_interval": self.poll_interval,
                "ibm_quantum_conn_id": self.ibm_quantum_conn_id,
                "created_at": self.created_at,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until there is an event, then send it once. Called by the triggerer."""
        # Before anything else: a thousand that start together shall not poll together.
        await self._sleep(initial_jitter(self.poll_interval))
        event = await self._wait(renews_credentials=True)
        # At most: the clock of the worker may be ahead of this one, and either may be set back.
        await asyncio.sleep(min(MIN_DEFERRAL, self.created_at + MIN_DEFERRAL - time.time()))
        yield TriggerEvent(self.payload(event))  # type: ignore[no-untyped-call]

    def run_here(self) -> dict[str, Any]:
        """Wait in this worker, and return the event."""
        return self.payload(_run_in_event_loop(self._wait()))

    def poll_once_here(self) -> dict[str, Any] | None:
        """
        Poll once from this worker, and return the event if it is time for one.

        :raises IBMQuantumError: If the poll fails.
        """

        async def poll() -> dict[str, Any] | None:
            async with self.hook.async_client() as client:
                return await self.poll_once(client)

        event = _run_in_event_loop(poll())
        return None if event is None else self.payload(event)

    async def _wait(self, *, renews_credentials: bool = False) -> dict[str, Any]:
        """
        Wait for the event.

        :param renews_credentials: Go on with the connection's new API key if the old one is refused.
        """
        try:
            await self._find_connection()
            while True:
                try:
                    async with self.hook.async_client() as client:
                        return await self._poll_until_event(client)
                except AuthenticationError:
                    if not renews_credentials or not await self.hook.arenew_credentials():
                        raise
                    self.log.info("Connection '%s' has changed. Waiting on", self.ibm_quantum_conn_id)
        except IBMQuantumError as error:
            return {"status": "error", "message": str(error), "retryable": is_transient(error)}

    async def _find_connection(self) -> None:
        """Wait while Airflow does not answer: that is no reason to end the task's jobs."""
        while time.time() < self.end_time:
            try:
                await self.hook.aget_credentials()
            except AirflowApiUnavailableError as error:
                self.log.warning("%s. Waiting on", error)
                await self._sleep(jittered(self.poll_interval))
            else:
                return

    async def _poll_until_event(self, client: AsyncIBMQuantumClient) -> dict[str, Any]:
        # There was a valid response before the deferral: an HTML page now is transient, and no wrong URL.
        tolerance = FailureTolerance(answered=True, honours_retry_after=True)
        listing = self.listing
        with shared_wait(client, listing, self.poll_interval) if listing else nullcontext() as wait:
            await self._wait_for_list(client, wait, first=True)
            while True:
                # The poll comes before the deadline: an hour without a triggerer does not end the work.
                if event := await self._poll_tolerantly(client, tolerance):
                    return event
                if time.time() >= self.end_time:
                    return {"status": "timeout", "message": self.timeout_message()}
                if tolerance.has_failed or not await self._wait_for_list(client, wait):
                    await self._sleep(max(jittered(self.poll_interval), tolerance.delay))

    async def _wait_for_list(
        self, client: AsyncIBMQuantumClient, wait: Wait | None, *, first: bool = False
    ) -> bool:
        """Wait until a shared list calls for a poll; return False at once if there is none."""
        self.doubted = ()
        while True:
            states, seconds = self.listed_states()
            if wait is None or not wait.is_shared or not states:
                return False
            seconds = min(seconds, self.end_time - time.time())
            doubted = await wait.until_due(states, seconds, first=first)
            if doubted is not None or time.time() >= self.end_time or not await self.log_unchanged(client):
                self.doubted = doubted or ()
                return True
            first = False

    async def _poll_tolerantly(
        self, client: AsyncIBMQuantumClient, tolerance: FailureTolerance
    ) -> dict[str, Any] | None:
        left = max(0.0, self.end_time - time.time())
        try:
            # A poll that has not had its turn says nothing: it must not pass for one that found no end.
            async with asyncio.timeout(left + _QUEUE_SECONDS), poll_slots(client):
                async with asyncio.timeout(max(_LAST_POLL_SECONDS, self.end_time - time.time())):
                    event = await self.poll_once(client)
        except TimeoutError:
            return None
        except IBMQuantumError as error:
            if not tolerance.tolerates(error):
                raise
            self.log.warning("%s. Waiting on; failure %d in a row", error, tolerance.count)
            return None
        tolerance.reset()
        return event

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline."""
        await asyncio.sleep(max(0.0, min(seconds, self.end_time - time.time())))


def _run_in_event_loop(work: Coroutine[Any, Any, T]) -> T:
    """
    Run a coroutine from blocking code, in a thread of its own.

    The calling thread may have a running event loop, as in a notebook; and if it had this one,
    ``execution_timeout``, which Airflow raises in a signal's handler, could get lost in a callback of it.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)

    def run() -> T:
        try:
            return loop.run_until_complete(task)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    pool = ThreadPoolExecutor(1)
    result = pool.submit(run)
    try:
        return result.result()
    finally:
        if not result.done():  # execution_timeout or a kill has struck
            loop.call_soon_threadsafe(task.cancel)
        pool.shutdown(wait=False)
