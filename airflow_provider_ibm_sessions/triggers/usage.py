# SPDX-License-Identifier: Apache-2.0
"""Wait in the triggerer until an instance's usage limit leaves enough, without a worker slot."""

from __future__ import annotations

import time
from typing import Any, Self

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, instance_reader
from airflow_provider_ibm_sessions.client.models.instance import InstanceUsage
from airflow_provider_ibm_sessions.client.validation import validate_seconds
from airflow_provider_ibm_sessions.triggers.base import IBMQuantumTrigger

POLL_INTERVAL = 60.0
"""Seconds between polls: usage comes back when a period ends, or when a person raises the limit."""

_GRACE = 3600.0
"""Seconds after the end of the period in which IBM is to start the next one."""

_UNKNOWN_PERIOD = 86_400.0
"""Seconds to wait at a time where IBM names no end of the period."""


class IBMQuantumUsageTrigger(IBMQuantumTrigger):
    """
    Fire when the usage limit leaves enough, or the time is over.

    :param least: Seconds that it has to leave.
    :param base: ``end_time``, ``poll_interval``, ``ibm_quantum_conn_id`` and ``created_at``.
    """

    def __init__(self, least: float, **base: Any) -> None:
        super().__init__(**base)
        self.least = validate_seconds(least, "least")

    @classmethod
    def until_period_ends(cls, usage: InstanceUsage, least: float, ibm_quantum_conn_id: str) -> Self:
        """Return a trigger that waits for the next period, and a little beyond its start."""
        now = time.time()
        end = usage.period_end.timestamp() + _GRACE if usage.period_end else now + _UNKNOWN_PERIOD
        return cls(
            least,
            end_time=max(end, now + _GRACE),
            poll_interval=POLL_INTERVAL,
            ibm_quantum_conn_id=ibm_quantum_conn_id,
        )

    def trigger_kwargs(self) -> dict[str, Any]:
        """Return what has to be left."""
        return {"least": self.least}

    async def poll_once(self, client: AsyncIBMQuantumClient) -> dict[str, Any] | None:
        """Read the usage."""
        max_age = max(instance_reader.MAX_AGE, self.poll_interval)
        usage = await instance_reader.instance_reader(client.credentials).ausage(client, max_age)
        return None if usage.shortage(self.least) else {"status": "success"}

    def timeout_message(self) -> str:
        """Say what was awaited in vain."""
        return f"The usage limit leaves less than {self.least:g} s, also in the next period"
