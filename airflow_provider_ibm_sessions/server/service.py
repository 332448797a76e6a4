# SPDX-License-Identifier: Apache-2.0
"""Where operations are carried out for callers who may leave before they have their answer."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import chain, repeat
from typing import Any, Final, Self, TypeAlias

import anyio
from pydantic import BaseModel

from airflow_provider_ibm_sessions.client.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, NotFoundError, OutcomeUnknownError
from airflow_provider_ibm_sessions.client.operations import (
    CREATE_SESSION,
    LIST_BACKENDS,
    Operation,
    OperationCall,
)
from airflow_provider_ibm_sessions.client.recovery import PendingCreate, attach_candidates
from airflow_provider_ibm_sessions.client.results import to_strict_json
from airflow_provider_ibm_sessions.server.callers import Caller, CallerLeftError, Debt

ClientSource: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncIBMQuantumClient]]
"""Lends a client, for as long as the process serves."""

POOL_SHARDS: Final = 30
"""Of the client: 300 requests in flight."""
PLACES: Final = 280
"""Of those, for all but closing."""
CLOSINGS: Final = 15
"""For closing, which so waits for no other work. What is left is for what nobody else knows of."""
PLACE_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 45.0
SETTLE_SECONDS: Final = 150.0
PROBE_SECONDS: Final = 5.0
PROBE_AGAIN: Final = 15.0
UNDO_PAUSES: Final = (1.0, 5.0, 20.0, 60.0)
"""Seconds between attempts at what has to be undone; the last again and again."""

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
        self._closings = asyncio.Semaphore(CLOSINGS)
        self._under_way: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._waiting: set[asyncio.Task[Any] | None] = set()
        self._loose: set[asyncio.Task[Any]] = set()
        self._probe = asyncio.Lock()
        self._probed, self._ready = -PROBE_AGAIN, False

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(self._source())
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            list_lag = asyncio.create_task(self.settle())
            while not list_lag.done():
                # A signal cancels the task itself, from which anyio does not shield.
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(list_lag)
            await self._stack.aclose()

    async def settle(self) -> None:
        """Wait until all that goes on without its caller is done, within reason; then give it up."""
        give_up = time.monotonic() + SETTLE_SECONDS
        while self._loose and (left := give_up - time.monotonic()) > 0:
            await asyncio.wait(self._loose, timeout=left)
        rest = list(self._loose)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def carry_out(self, call: OperationCall, caller: Caller) -> Any:
        """
        Make a call, for as long as the caller stays.

        :returns: The reply as plain JSON, or None if there is none.
        :raises IBMQuantumError: If the operation failed.
        :raises CallerLeftError: If the caller has left.
        """
        working = self._begun(call)
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
                await self._client.run_flow(LIST_BACKENDS.call().as_flow())
        except (IBMQuantumError, TimeoutError) as error:
            log.warning("Not ready: %s", str(error) or f"no answer within {PROBE_SECONDS:g} s")
            return False
        return True

    def _begun(self, call: OperationCall) -> asyncio.Task[Any]:
        """What is seen through is under way once, however many ask for it."""
        if not call.operation.seen_through:
            return asyncio.create_task(self._work(call, self._places))
        key = (call.operation.name, str(call.path_id))
        if key not in self._under_way:
            working = self._under_way[key] = self._keep(self._work(call, self._closings))
            working.add_done_callback(partial(self._is_done, key))
        return self._under_way[key]

    def _is_done(self, key: tuple[str, str], working: asyncio.Task[Any]) -> None:
        del self._under_way[key]
        if not working.cancelled() and (error := working.exception()):
            log.warning("%s %s: %s", *key, error)  # whoever asked may have left

    async def _work(self, call: OperationCall, places: asyncio.Semaphore) -> Any:
        await self._take_place(places)
        began = datetime.now(UTC)
        try:
            return await self._client.run_flow(call.as_flow())
        except OutcomeUnknownError as error:
            if call.operation is CREATE_SESSION:
                await self._look(PendingCreate(**call.values, created_after=began), error)
            raise
        finally:
            places.release()

    async def _look(self, opening: PendingCreate, unknown: OutcomeUnknownError) -> None:
        """Name in the error what may have been opened. To close it is for a person: it may be another's."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await asyncio.sleep(self._client.retry.list_lag)
                attach_candidates(unknown, await self._client.run_flow(opening.candidates()))
        except (IBMQuantumError, TimeoutError) as error:
            log.warning("Cannot look for what was opened: %s", str(error) or "no answer in time")

    async def _take_place(self, places: asyncio.Semaphore) -> None:
        task = asyncio.current_task()
        self._waiting.add(task)
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await places.acquire()
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
        if operation.undo and working not in self._waiting:
            self._keep(self._see_through(operation.undo, working))
        elif not operation.seen_through:
            working.cancel()

    async def _see_through(self, undo: Operation[Any], working: asyncio.Task[Any]) -> None:
        try:
            reply = await working
        except IBMQuantumError as error:
            log.error("%s. The caller has left", error)  # noqa: TRY400 - it has no bug to trace
        except asyncio.CancelledError:
            log.warning("Given up, without knowing whether something was opened for a caller who left")
            raise
        else:
            await self._undo(undo, reply)

    def _take_back(self, undo: Operation[Any], reply: Any) -> None:
        self._keep(self._undo(undo, reply))

    async def _undo(self, operation: Operation[Any], reply: Any) -> None:
        """Try until it is done: nobody else knows of it."""
        try:
            for pause in chain(UNDO_PAUSES, repeat(UNDO_PAUSES[-1])):
                if await self._undone(operation, reply.id):
                    return
                await asyncio.sleep(pause)
        except asyncio.CancelledError:
            log.warning("%s: not done for %s. Nobody knows of it but this line", operation.summary, reply.id)
            raise

    async def _undone(self, operation: Operation[Any], name: str) -> bool:
        try:
            await self._client.run_flow(operation.call(name).as_flow())
        except NotFoundError as error:
            log.warning("%s", error)
        except IBMQuantumError as error:
            log.error("%s. Trying again: nobody knows of %s but this line", error, name)  # noqa: TRY400
            return False
        else:
            log.warning("%s: %s, whose caller left before the answer", operation.summary, name)
        return True

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)
        return task


def as_json(reply: Any) -> Any:
    """A reply as IBM sent it, in strict JSON: infinite numbers are texts."""
    if isinstance(reply, BaseModel):
        reply = reply.model_dump(mode="json", exclude_unset=True)
    return to_strict_json(reply)
