# SPDX-License-Identifier: Apache-2.0
"""Calls to IBM for clients that may disconnect before they have the response, and the service's health."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from itertools import chain, repeat
from typing import Any, Final, Self, TypeAlias

import anyio
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from airflow_provider_ibm_sessions.client.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    NotFoundError,
    OutcomeUnknownError,
)
from airflow_provider_ibm_sessions.client.operations import (
    CREATE_SESSION,
    LIST_BACKENDS,
    Operation,
    OperationCall,
)
from airflow_provider_ibm_sessions.client.recovery import PendingCreate, attach_candidates
from airflow_provider_ibm_sessions.client.results import to_strict_json
from airflow_provider_ibm_sessions.client.shared import shared_client
from airflow_provider_ibm_sessions.client.validation import DEFAULT_MAX_TTL
from airflow_provider_ibm_sessions.server.exposure import Exposure
from airflow_provider_ibm_sessions.server.problem_details import http_status_for
from airflow_provider_ibm_sessions.server.security import ClientConnection, ClientDisconnected

ClientFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncIBMQuantumClient]]
"""Opens the client that a process uses for as long as it serves."""

POOL_SHARDS: Final = 30
"""Of the client's connection pool: 300 requests in flight."""
MAX_IN_FLIGHT: Final = 280
"""Requests to IBM in flight, other than closing. The pool's remaining places serve compensations."""
MAX_CLOSING: Final = 15
"""Closing requests in flight. They have places of their own, so closing never waits for other work."""
MAX_QUEUED: Final = 100
"""Calls that wait for a place."""
QUEUE_TIMEOUT: Final = 60.0
CANDIDATES_TIMEOUT: Final = 45.0
SHUTDOWN_TIMEOUT: Final = 150.0
PROBE_TIMEOUT: Final = 5.0
PROBE_INTERVAL: Final = 15.0
COMPENSATION_DELAYS: Final = (1.0, 5.0, 20.0, 60.0)
"""Seconds between the attempts at a compensation; the last one repeats."""
CLIENT_CLOSED_REQUEST: Final = 499

log = logging.getLogger(__name__)


class BusyError(IBMQuantumError):
    """Too many calls wait for IBM. Nothing was sent."""

    def __init__(self) -> None:
        super().__init__(
            "Too many requests wait for IBM; try again later", status=503, retry_after=1.0, sent=False
        )


def client_factory(credentials: Credentials) -> ClientFactory:
    """Return what opens one client, with all its connections and its token, for the whole process."""
    return partial(shared_client, credentials, pool_shards=POOL_SHARDS)


class SessionService:
    """
    One IBM Quantum client for all requests of a process. An async context manager.

    A disconnect cancels the call, with two exceptions: a session that was being opened is closed, and closing
    runs to completion.

    :param client_factory: Opens the client.
    :param max_ttl: The longest ``max_ttl`` that may be asked for, in seconds. None: what IBM grants.
    """

    def __init__(self, client_factory: ClientFactory, *, max_ttl: int | None = DEFAULT_MAX_TTL) -> None:
        self._client_factory = client_factory
        self._max_ttl = max_ttl
        self._stack = AsyncExitStack()
        self._in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._closing = asyncio.Semaphore(MAX_CLOSING)
        self._queued = 0
        self._shared: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._probe = asyncio.Lock()
        self._probed_at, self._ready = -PROBE_INTERVAL, False

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(self._client_factory())
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            shutdown = asyncio.create_task(self.shutdown())
            while not shutdown.done():
                # A signal cancels the task itself, from which anyio does not shield.
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(shutdown)
            await self._stack.aclose()

    async def shutdown(self) -> None:
        """Wait for background work, at most ``SHUTDOWN_TIMEOUT`` seconds; then cancel it."""
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT
        while self._background and (remaining := deadline - time.monotonic()) > 0:
            await asyncio.wait(self._background, timeout=remaining)
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def call(
        self, exposure: Exposure, arguments: Mapping[str, Any], connection: ClientConnection | None = None
    ) -> Any:
        """
        Call an operation for a client.

        :param arguments: As ``Operation.parse_arguments`` reads them.
        :returns: IBM's response as plain JSON, or None if it has no body.
        :raises IBMQuantumError: If the operation failed.
        :raises ClientDisconnected: If the client has disconnected.
        """
        connection = connection or ClientConnection()
        connection.reached_service = True
        subject, status, refused = "-", CLIENT_CLOSED_REQUEST, False
        try:
            call = exposure.operation.parse_arguments(arguments)
            self._check_max_ttl(call)
            subject = str(call.path_id or "-")
            response = await self._call(exposure, call, connection)
            subject = getattr(response, "id", subject)
            status = HTTPStatus.OK if exposure.operation.response_model else HTTPStatus.NO_CONTENT
            return as_json(response)
        except IBMQuantumError as error:
            status = http_status_for(error)
            refused = not error.sent
            raise
        except ClientDisconnected:
            raise
        except Exception:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            if connection.address and (refused or not exposure.is_read_only):
                level = logging.INFO if status < 400 else logging.WARNING
                facts = (
                    exposure.operation.method,
                    exposure.operation.name,
                    subject,
                    connection.address,
                    status,
                )
                log.log(level, "%s %s %s from %s: %d", *facts)

    async def is_ready(self) -> bool:
        """
        Return True if IBM accepts the API key and the instance.

        The check is a free request, sent at most every ``PROBE_INTERVAL`` seconds. Only the caller that sends
        it waits for it; the others get the last result.
        """
        if self._probe.locked():
            return self._ready
        async with self._probe:
            if time.monotonic() - self._probed_at >= PROBE_INTERVAL:
                try:
                    async with asyncio.timeout(PROBE_TIMEOUT):
                        await self._client.run_flow(LIST_BACKENDS.call().as_flow())
                    self._ready = True
                except (IBMQuantumError, TimeoutError) as error:
                    self._ready = False
                    log.warning("Not ready: %s", str(error) or f"no response within {PROBE_TIMEOUT:g} s")
                self._probed_at = time.monotonic()
            return self._ready

    def _check_max_ttl(self, call: OperationCall) -> None:
        if self._max_ttl is not None and call.values.get("max_ttl", 0) > self._max_ttl:
            raise ConfigurationError(
                f"max_ttl: must be at most {self._max_ttl} seconds here", field="max_ttl"
            )

    async def _call(self, exposure: Exposure, call: OperationCall, connection: ClientConnection) -> Any:
        task = self._start(exposure, call, connection)
        try:
            await connection.wait_for(task)
        except (asyncio.CancelledError, ClientDisconnected):
            if exposure.runs_to_completion:
                task.add_done_callback(lambda done: _log_failure(call, done))
            else:
                task.cancel()
                connection.disconnect()  # what has just been opened is closed
            raise
        return task.result()

    def _start(
        self, exposure: Exposure, call: OperationCall, connection: ClientConnection
    ) -> asyncio.Task[Any]:
        """Start a call; one that runs to completion is shared by all that ask for the same."""
        if not exposure.runs_to_completion:
            task = asyncio.create_task(self._run(exposure, call, connection))
            task.add_done_callback(_retrieve)
            return task
        key = (call.operation.name, str(call.path_id))
        if key not in self._shared:
            self._shared[key] = self._in_background(self._run(exposure, call, connection))
            self._shared[key].add_done_callback(lambda _: self._shared.pop(key))
        return self._shared[key]

    async def _run(self, exposure: Exposure, call: OperationCall, connection: ClientConnection) -> Any:
        """Send a request when there is a place for it. Cancelling compensates what was sent already."""
        async with self._place(self._closing if exposure.runs_to_completion else self._in_flight):
            if not (operation := exposure.compensation):
                return await self._send(call)
            sending = self._in_background(self._send(call))
            try:
                response = await asyncio.shield(sending)
            except asyncio.CancelledError:
                self._in_background(self._compensate(operation, sending))
                raise
        connection.compensate_unless_delivered(
            lambda: self._in_background(self._compensate(operation, sending))
        )
        return response

    @asynccontextmanager
    async def _place(self, places: asyncio.Semaphore) -> AsyncIterator[None]:
        if places is self._in_flight and places.locked() and self._queued >= MAX_QUEUED:
            raise BusyError
        self._queued += 1
        try:
            async with asyncio.timeout(QUEUE_TIMEOUT):
                await places.acquire()
        except TimeoutError:
            raise BusyError from None
        finally:
            self._queued -= 1
        try:
            yield
        finally:
            places.release()

    async def _send(self, call: OperationCall) -> Any:
        started_at = datetime.now(UTC)
        try:
            return await self._client.run_flow(call.as_flow())
        except OutcomeUnknownError as error:
            if call.operation is CREATE_SESSION:
                await self._attach_candidates(PendingCreate(**call.values, created_after=started_at), error)
            raise

    async def _attach_candidates(self, create: PendingCreate, unknown: OutcomeUnknownError) -> None:
        """Name the sessions that may have been opened. Any may be another client's, so none is closed."""
        try:
            async with asyncio.timeout(CANDIDATES_TIMEOUT):
                await asyncio.sleep(self._client.retry.list_lag)
                attach_candidates(unknown, await self._client.run_flow(create.candidates()))
        except (IBMQuantumError, TimeoutError) as error:
            log.warning("Could not look for the session: %s", str(error) or "no response in time")

    async def _compensate(self, operation: Operation[Any], sending: asyncio.Task[Any]) -> None:
        """Undo what was sent, and try until it is done: the client does not know the id."""
        left = "a session may have been opened for a client that disconnected"
        try:
            subject = (await sending).id
            left = f"session {subject} is still open. Close it manually"
            for delay in chain(COMPENSATION_DELAYS, repeat(COMPENSATION_DELAYS[-1])):
                try:
                    await self._client.run_flow(operation.call(subject).as_flow())
                except NotFoundError as error:
                    log.warning("%s", error)
                    return
                except IBMQuantumError as error:
                    log.error("%s. Session %s is still open; trying again", error, subject)  # noqa: TRY400
                else:
                    log.warning(
                        "%s %s: its client disconnected before the response", operation.summary, subject
                    )
                    return
                await asyncio.sleep(delay)
        except IBMQuantumError as error:  # of the request itself
            log.error("%s. The client has disconnected", error)  # noqa: TRY400 - a traceback says nothing more
        except asyncio.CancelledError:
            log.warning("Shutdown: %s", left)
            raise

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start work that continues without its client; :meth:`shutdown` waits for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(_retrieve)
        return task


def as_json(response: Any) -> Any:
    """Return a response as IBM sent it, in strict JSON: infinite numbers are strings."""
    if isinstance(response, BaseModel):
        response = response.model_dump(mode="json", exclude_unset=True)
    return to_strict_json(response)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from logging an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _log_failure(call: OperationCall, task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.warning("%s. The client of %s has disconnected", error, call.path_id)


class Health(BaseModel):
    """State of the service."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"live": True, "ready": True}]})

    live: bool = Field(description="True: this process serves")
    ready: bool = Field(description="True if IBM accepts its API key and its instance")


async def health_response(service: SessionService) -> Response:
    """Return 200 if the service is ready, else 503. Needs no token and contains no secret."""
    health = Health(live=True, ready=await service.is_ready())
    status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(health.model_dump_json(), status, media_type="application/json")
