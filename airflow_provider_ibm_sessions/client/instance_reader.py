# SPDX-License-Identifier: Apache-2.0
"""
Backends and usage of an instance, read once for all who ask at about the same time.

One reader serves a process and a connection: its threads and its event loops. A thousand sensors on one
connection make one request, and share the response for as long as it is fresh.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from airflow_provider_ibm_sessions.client.client import AsyncIBMQuantumClient, IBMQuantumClient
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, PermissionDeniedError
from airflow_provider_ibm_sessions.client.models.instance import Backend, InstanceUsage
from airflow_provider_ibm_sessions.client.operations import INSTANCE_USAGE, LIST_BACKENDS, Flow
from airflow_provider_ibm_sessions.client.validation import validate_seconds

MAX_AGE = 30.0
"""Seconds for which a response is fresh: queues and usage change slowly."""

ResponseT = TypeVar("ResponseT")


class _AbandonedError(Exception):
    """The caller that sent the request was stopped before there was a response: another one has to."""


class SharedRead(Generic[ResponseT]):
    """
    One read that all callers share while it is on its way, and for as long as its response is fresh.

    An error reaches all who wait for it, and is not kept, except that the key may not read this: only a
    person can change that, and every caller need not ask again.

    :param flow: Makes the flow that reads.
    """

    def __init__(self, flow: Callable[[], Flow[ResponseT]]) -> None:
        self._flow = flow
        self._lock = threading.Lock()
        self._response: Future[ResponseT] | None = None
        self._reader = 0
        self._asked_at = -math.inf

    def get(self, client: IBMQuantumClient, max_age: float) -> ResponseT:
        """Return a response at most ``max_age`` seconds old; blocks while it is on its way."""
        while True:
            response, is_mine = self._join(max_age)
            if is_mine:
                with self._settling(response):
                    response.set_result(client.run_flow(self._flow()))
            elif not response.done() and self._reader == threading.get_ident():
                return client.run_flow(self._flow())  # this thread's event loop reads: it cannot go on
            try:
                return response.result()
            except _AbandonedError:
                continue

    async def aget(self, client: AsyncIBMQuantumClient, max_age: float) -> ResponseT:
        """Return the same inside of an event loop."""
        while True:
            response, is_mine = self._join(max_age)
            if is_mine:
                with self._settling(response):
                    response.set_result(await client.run_flow(self._flow()))
            waiting = asyncio.wrap_future(response)
            # Once this caller is cancelled, an error is for the others: asyncio would log it as unseen.
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                # Shielded: a caller that is cancelled leaves, and the others wait on.
                return await asyncio.shield(waiting)
            except _AbandonedError:
                continue

    def _join(self, max_age: float) -> tuple[Future[ResponseT], bool]:
        """Return the response, and True if the caller has to read it for all."""
        with self._lock:
            response = self._response
            if response is not None:
                if not response.done():
                    return response, False
                is_kept = isinstance(response.exception(), PermissionDeniedError | None)
                if is_kept and time.monotonic() - self._asked_at < max_age:
                    return response, False
            self._response = response = Future()
            self._reader = threading.get_ident()
            self._asked_at = time.monotonic()
            return response, True

    @contextmanager
    def _settling(self, response: Future[ResponseT]) -> Iterator[None]:
        """Pass the reader's error on to all who wait."""
        try:
            yield
        except IBMQuantumError as error:
            response.set_exception(error)
        except BaseException:  # the reader is cancelled or killed: raised again
            response.set_exception(_AbandonedError())
            raise


class InstanceReader:
    """The shared reads of one instance. ``max_age`` is in seconds."""

    def __init__(self) -> None:
        self._backends = SharedRead(_read_backends)
        self._usage = SharedRead(_read_usage)

    def backends(self, client: IBMQuantumClient, max_age: float | None = None) -> list[Backend]:
        """Return the QPUs, with wait times where the plan has them."""
        return self._backends.get(client, _seconds(max_age))

    async def abackends(self, client: AsyncIBMQuantumClient, max_age: float | None = None) -> list[Backend]:
        """Return the QPUs inside of an event loop."""
        return await self._backends.aget(client, _seconds(max_age))

    def usage(self, client: IBMQuantumClient, max_age: float | None = None) -> InstanceUsage:
        """
        Return the usage.

        :raises PermissionDeniedError: Naming the IAM action, if the key may not read it.
        """
        return self._usage.get(client, _seconds(max_age))

    async def ausage(self, client: AsyncIBMQuantumClient, max_age: float | None = None) -> InstanceUsage:
        """Return the usage inside of an event loop."""
        return await self._usage.aget(client, _seconds(max_age))


_readers: dict[Credentials, InstanceReader] = {}
# A forked child must not wait for what a thread of its parent reads.
os.register_at_fork(after_in_child=_readers.clear)


def instance_reader(credentials: Credentials) -> InstanceReader:
    """Return this process's reader of the credentials' instance."""
    return _readers.setdefault(credentials, InstanceReader())


def _seconds(max_age: float | None) -> float:
    return MAX_AGE if max_age is None else validate_seconds(max_age, "max_age", allow_zero=True)


def _read_backends() -> Flow[list[Backend]]:
    found: list[Backend] = (yield LIST_BACKENDS.call(fields="wait_time_seconds")).devices
    return found


def _read_usage() -> Flow[InstanceUsage]:
    usage: InstanceUsage = yield INSTANCE_USAGE.call()
    return usage
