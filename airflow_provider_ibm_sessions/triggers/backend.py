# SPDX-License-Identifier: Apache-2.0
"""Wait for a QPU in the triggerer, without a worker slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, instance_reader
from airflow_provider_ibm_sessions.client.backend_selection import BackendRequirements
from airflow_provider_ibm_sessions.client.errors import NoBackendError
from airflow_provider_ibm_sessions.triggers.base import IBMQuantumTrigger


class IBMQuantumBackendTrigger(IBMQuantumTrigger):
    """
    Fire when a QPU meets the requirements, none ever will, or the time is over.

    All triggers of a process and a connection share one request per interval.

    :param requirements: What :meth:`BackendRequirements.to_json` returns.
    :param base: ``end_time``, ``poll_interval``, ``ibm_quantum_conn_id`` and ``created_at``.
    """

    def __init__(self, requirements: Mapping[str, Any], **base: Any) -> None:
        super().__init__(**base)
        self.requirements = BackendRequirements.validate(**requirements)
        self._missing = ""

    def trigger_kwargs(self) -> dict[str, Any]:
        """Return the requirements."""
        return {"requirements": self.requirements.to_json()}

    async def poll_once(self, client: AsyncIBMQuantumClient) -> dict[str, Any] | None:
        """Look at the QPUs, and log what is still missing when that has changed."""
        max_age = max(instance_reader.MAX_AGE, self.poll_interval)
        backends = await instance_reader.instance_reader(client.credentials).abackends(client, max_age)
        try:
            selection = self.requirements.select(backends)
        except NoBackendError as error:
            if not error.retryable:
                raise
            if self._missing != error.message:
                self._missing = error.message
                self.log.info("%s. Waiting", error)
            return None
        return {
            "status": "success",
            "backend": selection.backend.summary(),
            "selection": selection.to_json(),
            "message": str(selection),
        }

    def timeout_message(self) -> str:
        """Say what was missing to the last."""
        return f"{self._missing or 'No QPU meets the requirements'}. Waited in vain until the timeout"
