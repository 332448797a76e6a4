# SPDX-License-Identifier: Apache-2.0
"""How triggers wait: they poll until there is something to tell or the time is over."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, IBMQuantumError
from airflow_provider_ibm_sessions.client.polling import (
    FailureTolerance,
    initial_jitter,
    is_transient,
    jittered,
)
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from airflow.triggers.base import TriggerEvent

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

_LAST_POLL_SECONDS = 30.0


class IBMQuantumTrigger(BaseTrigger):
    """
    Polls until there is something to tell, and tells it once.

    Holds ids only; may run twice, and in another triggerer, without harm. All triggers of a process share
    one HTTP client and one token.

    :param end_time: Deadline in seconds since the epoch: it outlives restarts of the triggerer.
    :param poll_interval: Seconds between polls, on average.
    :param ibm_quantum_conn_id: The Airflow connection.
    """

    def __init__(self, *, end_time: float, poll_interval: float, ibm_quantum_conn_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.end_time = end_time
        self.poll_interval = poll_interval
        self.ibm_quantum_conn_id = ibm_quantum_conn_id

    @cached_property
    def hook(self) -> IBMQuantumHook:
        """The hook on the connection."""
        return IBMQuantumHook(self.ibm_quantum_conn_id)

    @abstractmethod
    def trigger_kwargs(self) -> dict[str, Any]:
        """The arguments that say what is awaited."""

    @abstractmethod
    async def look(self, client: AsyncIBMQuantumClient) -> dict[str, Any] | None:
        """Poll once; returns the event, if it is time for one."""

    @abstractmethod
    def timeout_message(self) -> str:
        """What to tell when the time is over."""

    def event(self, **facts: Any) -> TriggerEvent:
        """What is told to the task."""
        return TriggerEvent(facts)  # type: ignore[no-untyped-call]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments: ids, states and times."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                **self.trigger_kwargs(),
                "end_time": self.end_time,
                "poll_interval": self.poll_interval,
                "ibm_quantum_conn_id": self.ibm_quantum_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until there is something to tell, then tell it once."""
        # Before anything else: a thousand that start together shall not ask for a connection together.
        await self._sleep(initial_jitter(self.poll_interval))
        try:
            await self._find_connection()
            async with self.hook.async_client() as client:
                facts = await self._watch(client)
        except IBMQuantumError as error:
            facts = {
                "status": "error",
                "message": str(error),
                "retryable": is_transient(error),
                "end_time": self.end_time,
            }
        yield self.event(**facts)

    async def _find_connection(self) -> None:
        """Airflow may not give it for a while; what was begun is not to be ended for that."""
        while time.time() < self.end_time:
            try:
                await self.hook.aget_credentials()
            except AirflowApiUnavailableError as error:
                self.log.warning("%s. Waiting on", error)
                await self._sleep(jittered(self.poll_interval))
            else:
                return

    async def _watch(self, client: AsyncIBMQuantumClient) -> dict[str, Any]:
        # Whoever deferred has had an answer: a web page now is passing trouble, not a wrong URL.
        patience = FailureTolerance(answered=True, honours_retry_after=True)
        while True:
            # Read before looking at the clock: after an hour without a triggerer the work comes first.
            if facts := await self._poll(client, patience):
                return facts
            if time.time() >= self.end_time:
                return {"status": "timeout", "message": self.timeout_message()}
            await self._sleep(max(jittered(self.poll_interval), patience.delay))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline."""
        await asyncio.sleep(max(0.0, min(seconds, self.end_time - time.time())))

    async def _poll(self, client: AsyncIBMQuantumClient, patience: FailureTolerance) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(max(_LAST_POLL_SECONDS, self.end_time - time.time())):
                facts = await self.look(client)
        except TimeoutError:
            return None
        except IBMQuantumError as error:
            if not patience.tolerates(error):
                raise
            self.log.warning("%s. Waiting on; failure %d in a row", error, patience.count)
            return None
        patience.reset()
        return facts


class Waiting(Protocol):
    """An operator that can wait in either way; it is resumed at ``execute_complete``."""

    deferrable: bool

    @property
    def hook(self) -> IBMQuantumHook:
        """Its hook."""

    @property
    def defer(self) -> Callable[..., Any]:
        """Airflow's."""


def wait_for(task: Waiting, trigger: IBMQuantumTrigger) -> dict[str, Any]:
    """
    Wait until the trigger fires.

    :returns: Its event; to a deferred task Airflow brings it.
    """
    if task.deferrable:
        # No timeout here: the deadline inside of the trigger holds, and tells what was awaited.
        task.defer(trigger=trigger, method_name="execute_complete", timeout=None)
    trigger.hook = task.hook
    return asyncio.run(_first_event(trigger))


async def _first_event(trigger: IBMQuantumTrigger) -> dict[str, Any]:
    async with aclosing(cast("AsyncGenerator[TriggerEvent]", trigger.run())) as events:
        event = await anext(events)
    return cast("dict[str, Any]", event.payload)
