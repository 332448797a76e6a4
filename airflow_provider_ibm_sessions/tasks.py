# SPDX-License-Identifier: Apache-2.0
"""What operators and sensors share: the hook and the button to IBM's console."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

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

    @cached_property
    def hook(self) -> IBMQuantumHook:
        """The hook on the task's connection."""
        # Imported here: Dag files are parsed again and again, and parsing them needs no HTTP client.
        from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

        return IBMQuantumHook(self.ibm_quantum_conn_id)
