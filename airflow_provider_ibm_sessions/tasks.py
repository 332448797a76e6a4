# SPDX-License-Identifier: Apache-2.0
"""What operators and sensors share: the hook and the button to IBM's console."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_ibm_sessions.failures import IBMQuantumTaskError
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.providers.common.compat.sdk import BaseOperatorLink

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook


class IBMQuantumTask:
    """Mixin for tasks on an IBM Quantum connection. They name their session ``session_id``."""

    ibm_quantum_conn_id: str

    operator_extra_links: Collection[BaseOperatorLink] = (IBMQuantumSessionLink(),)
    ui_color = "#d0e2ff"

    _killed = False

    def check_alive(self) -> None:
        """
        Called before something new is begun: after the signal to end, Airflow lets a task run on for a while.

        :raises IBMQuantumTaskError: If the task was killed. A worker that is shut down kills its tasks as
            well, so a retry is right; where a user did it, Airflow has decided already.
        """
        if self._killed:
            raise IBMQuantumTaskError("The task was killed")

    @cached_property
    def hook(self) -> IBMQuantumHook:
        """The hook on the task's connection."""
        # Imported here: Dag files are parsed again and again, and parsing them needs no HTTP client.
        from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

        return IBMQuantumHook(self.ibm_quantum_conn_id)
