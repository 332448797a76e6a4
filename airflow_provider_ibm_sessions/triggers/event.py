# SPDX-License-Identifier: Apache-2.0
"""
Events that start Dags, for ``AssetWatcher``: a job is final, a QPU is ready.

Dag files import this module: the client is loaded by the triggerer only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_ibm_sessions.client.backend_selection import BackendRequirements
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    NoBackendError,
    NotFoundError,
)
from airflow_provider_ibm_sessions.client.polling import jittered
from airflow_provider_ibm_sessions.client.validation import (
    validate_backend,
    validate_conn_id,
    validate_seconds,
    validate_tags,
)
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient
    from airflow_provider_ibm_sessions.client.models.instance import Backend
    from airflow_provider_ibm_sessions.client.models.jobs import Job

log = logging.getLogger(__name__)

_OVERLAP = timedelta(minutes=10)
"""By how much two lists of jobs overlap: IBM's list may lag behind, and its clock differ from ours."""

_KEPT = timedelta(hours=1)
"""For how long a job is kept in the state once it was sent: longer than lists lag behind, or overlap."""

_STORE_RETRY_DELAY = 10.0
"""Seconds until Airflow is asked again for the stored events, or to store them."""


class IBMQuantumEventTrigger(BaseEventTrigger):
    """
    Base of the triggers that never end, and send an event at each change that they watch for.

    All of a kind on one connection share one poll. The state is kept in the asset's state store, and saved
    before an event is sent: so a restart of the triggerer sends no event twice. Airflow before 3.3 has
    neither. Errors are logged, and polling goes on.

    :param ibm_quantum_conn_id: The Airflow connection.
    :param poll_interval: Seconds between polls, on average.
    """

    def __init__(
        self, *, ibm_quantum_conn_id: str = DEFAULT_CONN_ID, poll_interval: float | timedelta = 60
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ibm_quantum_conn_id = validate_conn_id(ibm_quantum_conn_id)
        self.poll_interval = validate_seconds(poll_interval, "poll_interval")

    @abstractmethod
    def trigger_kwargs(self) -> dict[str, Any]:
        """Return the arguments that say what is awaited."""

    @classmethod
    @abstractmethod
    async def read(cls, client: AsyncIBMQuantumClient, since: datetime) -> Any:
        """
        Read what all triggers of this kind on a connection look at.

        :param since: A little before the last poll.
        """

    @abstractmethod
    async def find_event(
        self, found: Any, state: dict[str, Any]
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """
        Return the event to send, if there is one, and the state to store before.

        One event of a poll holds all that it has found: Airflow may leave an event that follows another at
        once without a Dag run until the next event.

        :param found: What :meth:`read` has returned.
        :param state: The state that was stored last; empty at first.
        """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                **self.trigger_kwargs(),
                "ibm_quantum_conn_id": self.ibm_quantum_conn_id,
                "poll_interval": self.poll_interval,
            },
        )

    def shared_stream_key(self) -> Hashable | None:
        """Return what triggers have in common that share one poll."""
        return (type(self).__qualname__, self.ibm_quantum_conn_id, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Poll for all triggers of this kind on the connection."""
        from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

        hook = None
        since = datetime.now(UTC) - _OVERLAP
        while True:
            started = datetime.now(UTC)
            try:
                hook = hook or IBMQuantumHook(kwargs["ibm_quantum_conn_id"])
                async with hook.async_client() as client:
                    found = await cls.read(client, since)
            except IBMQuantumError as error:
                # Airflow starts a trigger that fails again at once: so it goes on, with a new look-up of the
                # connection.
                log.warning("%s. Polling again in %.0f s", error, kwargs["poll_interval"])
                hook = None
            else:
                since = started - _OVERLAP
                yield found
            await asyncio.sleep(jittered(kwargs["poll_interval"]))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Send this trigger's own events."""
        state = await self._load_state()
        async for found in shared_stream:
            try:
                event, kept = await self.find_event(found, state)
            except IBMQuantumError as error:
                self.log.warning("%s. Looking again after the next poll", error)
                continue
            if kept != state:
                await self._save_state(kept)
                state = kept
            if event is not None:
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for this trigger alone, before Airflow 3.3."""
        async for event in self.filter_shared_stream(self.open_shared_stream(self.serialize()[1])):
            yield event

    @property
    def _state_key(self) -> str:
        watched = {**self.trigger_kwargs(), "ibm_quantum_conn_id": self.ibm_quantum_conn_id}
        arguments = json.dumps(watched, sort_keys=True)
        return f"ibm_quantum_{hashlib.sha256(arguments.encode()).hexdigest()[:16]}"

    async def _load_state(self) -> dict[str, Any]:
        """Return the stored state, or an empty one at first; wait while Airflow does not answer."""
        while (store := getattr(self, "asset_state_store", None)) is not None:
            try:
                return dict(await store.aget(self._state_key, {}))
            except ValueError as error:
                self._warn_not_stored(error)
                break
            except Exception:  # whatever it is: Airflow names no exceptions here
                self.log.exception("Airflow does not return the state of this watcher. Trying again")
                await asyncio.sleep(_STORE_RETRY_DELAY)
        return {}

    async def _save_state(self, state: dict[str, Any]) -> None:
        """Store the state before its events are sent; wait while Airflow does not answer."""
        while (store := getattr(self, "asset_state_store", None)) is not None:
            try:
                await store.aset(self._state_key, state)
            except ValueError as error:
                self._warn_not_stored(error)
            except Exception:  # whatever it is: Airflow names no exceptions here
                self.log.exception("Airflow does not store the state of this watcher. Trying again")
                await asyncio.sleep(_STORE_RETRY_DELAY)
                continue
            return

    def _warn_not_stored(self, error: ValueError) -> None:
        self.log.warning(
            "%s. A restart of the triggerer may lose events: let each asset have a watcher with arguments of "
            "its own",
            error,
        )
        self.asset_state_store = None


class IBMQuantumJobEventTrigger(IBMQuantumEventTrigger):
    """
    Send an event when jobs with these tags become final, well or not.

    One event lists all jobs that one poll has found final: its payload is ``{"jobs": [...]}``, with their
    details. There is none for a job that was final before the trigger first ran.

    :param tags: Tags that the job must have, all of them.
    :param base: ``ibm_quantum_conn_id`` and ``poll_interval``.
    """

    def __init__(self, *, tags: Sequence[str], **base: Any) -> None:
        super().__init__(**base)
        self.tags = validate_tags(tags)
        if not self.tags:
            raise ConfigurationError("tags must name at least one tag of the jobs", field="tags")
        self._has_caught_up = False

    def trigger_kwargs(self) -> dict[str, Any]:
        """Return the tags."""
        return {"tags": self.tags}

    @classmethod
    async def read(cls, client: AsyncIBMQuantumClient, since: datetime) -> dict[str, Job]:
        """List the jobs that are pending, and those that are new."""
        found = {job.id: job async for job in client.list_jobs(pending=True)}
        found.update({job.id: job async for job in client.list_jobs(created_after=since)})
        return found

    async def find_event(
        self, found: dict[str, Job], state: dict[str, Any]
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the jobs that have become final; store those that are pending, and those sent lately."""
        own = {job.id: job for job in found.values() if set(self.tags) <= set(job.tags or ())}
        if state:
            own.update(await self._read_others(own, state))
        self._has_caught_up = True
        sent: dict[str, str] = state.get("sent", {})
        final = [job for job in own.values() if job.is_final and job.id not in sent]
        pending = sorted(job.id for job in own.values() if not job.is_final and job.id not in sent)
        if state and not final and pending == state["pending"]:
            return None, state
        now = datetime.now(UTC)
        lately = (now - _KEPT).isoformat()
        kept = {
            "since": (now - _OVERLAP).isoformat(),
            "pending": pending,
            "sent": {name: at for name, at in sent.items() if at >= lately}
            | {job.id: now.isoformat() for job in final},
        }
        return ({"jobs": [job.to_json() for job in final]} if state and final else None), kept

    async def _read_others(self, own: dict[str, Job], state: dict[str, Any]) -> dict[str, Job]:
        """Read jobs that the shared poll no longer lists: after a restart, also those of the time between."""
        from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

        others: dict[str, Job] = {}
        missing = [name for name in state["pending"] if name not in own]
        if self._has_caught_up and not missing:
            return others
        async with IBMQuantumHook(self.ibm_quantum_conn_id).async_client() as client:
            if not self._has_caught_up:
                since = datetime.fromisoformat(state["since"])
                others = {job.id: job async for job in client.list_jobs(tags=self.tags, created_after=since)}
            for name in missing:
                if name in others:
                    continue
                try:
                    others[name] = await client.get_job(name)
                except NotFoundError:
                    self.log.warning(
                        "Job %s is unknown to IBM now: it was deleted. No event is sent for it", name
                    )
        self._has_caught_up = True
        return others


class IBMQuantumBackendEventTrigger(IBMQuantumEventTrigger):
    """
    Send an event whenever a QPU becomes ready: it comes online, or its queue falls to a bound.

    The event holds the figures of the QPU. There is none for a QPU that is ready when the trigger first runs.

    :param backend: Name of the QPU, such as ``ibm_fez``.
    :param max_queue_length: The most jobs in its queue.
    :param max_wait: The longest wait time: seconds, a timedelta, or text such as ``"30m"``.
    :param base: ``ibm_quantum_conn_id`` and ``poll_interval``.
    """

    def __init__(
        self,
        *,
        backend: str,
        max_queue_length: int | None = None,
        max_wait: int | str | timedelta | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.backend = validate_backend(backend)
        self.requirements = BackendRequirements.validate(
            among=[backend], max_queue_length=max_queue_length, max_wait=max_wait
        )

    def trigger_kwargs(self) -> dict[str, Any]:
        """Return the name and the bounds."""
        return {
            "backend": self.backend,
            "max_queue_length": self.requirements.max_queue_length,
            "max_wait": self.requirements.max_wait,
        }

    @classmethod
    async def read(cls, client: AsyncIBMQuantumClient, since: datetime) -> list[Backend]:
        """List the QPUs."""
        from airflow_provider_ibm_sessions.client.instance_reader import instance_reader

        return await instance_reader(client.credentials).abackends(client)

    async def find_event(
        self, found: list[Backend], state: dict[str, Any]
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the QPU if it has become ready since the last poll."""
        try:
            selection = self.requirements.select(found)
        except NoBackendError as error:
            if state.get("ready") is not False:
                self.log.info("%s. Waiting", error)
            return None, {"ready": False}
        return selection.backend.summary() if state.get("ready") is False else None, {"ready": True}
