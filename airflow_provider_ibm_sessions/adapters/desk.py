# SPDX-License-Identifier: Apache-2.0
"""Where operations are carried out for callers who may leave before they have their answer."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeAlias

import anyio
from pydantic import BaseModel

from airflow_provider_ibm_sessions.adapters.callers import Caller, CallerLeftError, Debt
from airflow_provider_ibm_sessions.client.adoption import Opening, name_candidates
from airflow_provider_ibm_sessions.client.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, OutcomeUnknownError
from airflow_provider_ibm_sessions.client.operations import (
    CREATE_SESSION,
    LIST_BACKENDS,
    Call,
    Operation,
    alone,
)
from airflow_provider_ibm_sessions.client.results import plain

ClientSource: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncIBMQuantumClient]]
"""Lends a client, for as long as the process serves."""

PLACES: Final = 80
"""Of the client's hundred lanes, for all but closing: that never waits for others."""
PLACE_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 45.0
SETTLE_SECONDS: Final = 150.0
PROBE_SECONDS: Final = 5.0
PROBE_AGAIN: Final = 15.0

log = logging.getLogger(__name__)


class BusyError(IBMQuantumError):
    """So many wait for IBM that there was no place in time. Nothing was sent."""

    def __init__(self) -> None:
        super().__init__("Too many requests wait for IBM", status=503, retry_after=1.0, sent=False)


class Desk:
    """
    One client, for all callers of a process. A context manager.

    Who leaves cancels what was asked for, with two exceptions. What opens a session is seen through, and the
    session closed. What closes one is seen through.

    :param source: Lends the client.
    """

    def __init__(self, source: ClientSource) -> None:
        self._source = source
        self._stack = AsyncExitStack()
        self._places = asyncio.Semaphore(PLACES)
        self._waiting: set[asyncio.Task[Any] | None] = set()
        self._loose: set[asyncio.Task[None]] = set()
        self._probe = asyncio.Lock()
        self._probed, self._ready = -PROBE_AGAIN, False

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(self._source())
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            settling = asyncio.create_task(self.settle())
            while not settling.done():
                # A signal cancels the task itself, from which anyio does not shield.
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(settling)
            await self._stack.aclose()

    async def settle(self) -> None:
        """Wait until all that goes on without its caller is done, within reason."""
        if self._loose:
            await asyncio.wait(self._loose, timeout=SETTLE_SECONDS)

    async def carry_out(self, call: Call, caller: Caller) -> Any:
        """
        Make a call, for as long as the caller stays.

        :returns: The reply as plain JSON, or None if there is none.
        :raises IBMQuantumError: If the operation failed.
        :raises CallerLeftError: If the caller has left.
        """
        working = asyncio.create_task(self._work(call))
        try:
            await caller.wait_for(working)
        except (asyncio.CancelledError, CallerLeftError):
            self._let_go(call.operation, working)
            raise
        return self._answer(call.operation, working.result(), caller)

    async def is_ready(self) -> bool:
        """
        Whether IBM accepts key and instance: a free call, at most one every 15 seconds, whoever asks.

        Only who makes the call waits for it; the others are told what the last one gave.
        """
        if self._probe.locked():
            return self._ready
        async with self._probe:
            if time.monotonic() - self._probed >= PROBE_AGAIN:
                self._ready = await self._reaches_ibm()
                self._probed = time.monotonic()
            return self._ready

    async def _reaches_ibm(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._work(LIST_BACKENDS.call())
        except (IBMQuantumError, TimeoutError) as error:
            log.warning("Not ready: %s", str(error) or f"no answer within {PROBE_SECONDS:g} s")
            return False
        return True

    async def _work(self, call: Call) -> Any:
        if call.operation.seen_through:
            return await self._client.follow(alone(call))
        await self._take_place()
        began = datetime.now(UTC)
        try:
            return await self._client.follow(alone(call))
        except OutcomeUnknownError as error:
            if call.operation is CREATE_SESSION:
                await self._look(Opening(**call.values, since=began), error)
            raise
        finally:
            self._places.release()

    async def _look(self, opening: Opening, unknown: OutcomeUnknownError) -> None:
        """Name in the error what may have been opened. To close it is for a person: it may be another's."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await asyncio.sleep(self._client.retry.settling)
                name_candidates(unknown, await self._client.follow(opening.candidates()))
        except (IBMQuantumError, TimeoutError) as error:
            log.warning("Cannot look for what was opened: %s", str(error) or "no answer in time")

    async def _take_place(self) -> None:
        task = asyncio.current_task()
        self._waiting.add(task)
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise BusyError from None
        finally:
            self._waiting.discard(task)

    def _answer(self, operation: Operation[Any], reply: Any, caller: Caller) -> Any:
        """The reply in plain JSON; what opened something has to reach its caller."""
        undo = operation.undo
        if undo is None:
            return as_json(reply)
        try:
            answer = as_json(reply)
        except Exception:
            self._take_back(undo, reply)
            raise
        caller.owe(Debt(json.dumps(reply.id).encode(), lambda: self._take_back(undo, reply)))
        return answer

    def _let_go(self, operation: Operation[Any], working: asyncio.Task[Any]) -> None:
        if (operation.undo and working not in self._waiting) or operation.seen_through:
            self._keep(self._see_through(operation, working))
        else:
            working.cancel()

    async def _see_through(self, operation: Operation[Any], working: asyncio.Task[Any]) -> None:
        try:
            reply = await working
        except IBMQuantumError as error:
            log.error("%s. The caller has left", error)  # noqa: TRY400 - it has no bug to trace
            return
        if operation.undo:
            await self._undo(operation.undo, reply)

    def _take_back(self, undo: Operation[Any], reply: Any) -> None:
        self._keep(self._undo(undo, reply))

    async def _undo(self, operation: Operation[Any], reply: Any) -> None:
        try:
            await self._client.follow(alone(operation.call(reply.id)))
        except IBMQuantumError as error:
            log.error("%s. Nobody knows of %s but this line", error, reply.id)  # noqa: TRY400
        else:
            log.warning("%s: %s, whose caller left before the answer", operation.summary, reply.id)

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)


def as_json(reply: Any) -> Any:
    """A reply as IBM sent it, in strict JSON: infinite numbers are texts."""
    if isinstance(reply, BaseModel):
        reply = reply.model_dump(mode="json", exclude_unset=True)
    return plain(reply)
