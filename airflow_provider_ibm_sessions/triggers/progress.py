# SPDX-License-Identifier: Apache-2.0
"""When a wait for jobs logs a line, and what the queue looks like meanwhile."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from airflow_provider_ibm_sessions.client.enums import JobState
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.instance_reader import instance_reader
from airflow_provider_ibm_sessions.client.usage import count_states

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient
    from airflow_provider_ibm_sessions.client.credentials import Credentials
    from airflow_provider_ibm_sessions.client.flows import Progress

log = logging.getLogger(__name__)

INTERVAL = 300.0
"""Seconds after which a line is logged although nothing has changed."""


class ProgressLog:
    """The lines logged of some jobs: one at each change of their states, and one every five minutes."""

    def __init__(self) -> None:
        self._states: dict[str, int] | None = None
        self._final: int | None = None
        self._logged_at = 0.0
        self._has_changed = False

    @property
    def seen(self) -> int | None:
        """
        Return how many jobs were final at the last poll; None if a line is due in any case.

        That line is to show the session's seconds, for which the session has to be read.
        """
        return None if self._is_late() else self._final

    @property
    def seconds_left(self) -> float:
        """Return the seconds until a line is due in any case."""
        return max(0.0, self._logged_at + INTERVAL - time.monotonic())

    def is_due(self, progress: Progress) -> bool:
        """Return True if this poll is to be logged, and note that it is."""
        states = count_states(progress.jobs)
        self._has_changed = states != self._states
        if not self._has_changed and not self._is_late():
            return False
        self._states, self._final, self._logged_at = states, progress.final, time.monotonic()
        return True

    async def queue(self, client: AsyncIBMQuantumClient, credentials: Credentials, progress: Progress) -> str:
        """
        Return what is known of the queue, where the jobs have been in it for a while; errors are logged.

        IBM tells no place in the queue. It tells the queue's length, and to paid plans how long jobs have
        waited lately.
        """
        waiting = [job for job in progress.jobs if job.final_status == JobState.QUEUED]
        if self._has_changed or not waiting or waiting[0].backend is None:
            return ""
        try:
            backends = await instance_reader(credentials).abackends(client)
        except IBMQuantumError as error:
            log.warning("The length of the queue is not known: %s", error)
            return ""
        backend = next((each for each in backends if each.name == waiting[0].backend), None)
        if backend is None or backend.queue_length is None:
            return ""
        wait = backend.wait_time
        expected = "" if wait is None else f", which waited {wait:.0f} s lately"
        return f". {backend.queue_length} jobs queue for {backend.name}{expected}"

    def _is_late(self) -> bool:
        return self._states is not None and time.monotonic() - self._logged_at >= INTERVAL
