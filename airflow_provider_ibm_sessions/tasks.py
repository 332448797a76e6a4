# SPDX-License-Identifier: Apache-2.0
"""What operators and sensors share: the hook and the button to IBM's console."""

from __future__ import annotations

import sys
from _thread import start_new_thread
from functools import cached_property
from threading import Event
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_ibm_sessions.failures import IBMQuantumTaskError
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.providers.common.compat.sdk import BaseOperatorLink

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

_HANDLER_SECONDS = 2.0
_THREAD_SECONDS = 30.0


class IBMQuantumTask:
    """Mixin for tasks on an IBM Quantum connection. They name their session ``session_id``."""

    ibm_quantum_conn_id: str

    operator_extra_links: Collection[BaseOperatorLink] = (IBMQuantumSessionLink(),)
    ui_color = "#d0e2ff"

    _killed: Event | None = None
    """There once the task was killed; set when what it had begun is ended."""

    def on_kill(self) -> None:
        """
        End what the task has begun. Airflow calls this on SIGTERM, and when ``execution_timeout`` strikes.

        On SIGTERM it is in the handler, and the interrupted thread may hold locks that it waits for itself:
        that of Airflow's log, for one. So the work is done in a thread of its own, which waits for them only
        until the handler returns.
        """
        self._killed = done = Event()

        def end() -> None:
            try:
                self.end_all()
            finally:
                done.set()

        # Not threading.Thread: to start one takes a lock that the interrupted thread may hold as well.
        start_new_thread(end, ())
        done.wait(None if isinstance(sys.exception(), AirflowTaskTimeout) else _HANDLER_SECONDS)

    def end_all(self) -> None:
        """End what the task has begun, in the few seconds that are left."""

    def check_alive(self) -> None:
        """
        Called before something new is begun: after the signal to end, Airflow lets a task run on for a while.

        :raises IBMQuantumTaskError: If the task was killed. A worker that is shut down kills its tasks as
            well, so a retry is right; where a user did it, Airflow has decided already.
        """
        if self._killed:
            self._killed.wait(_THREAD_SECONDS)
            raise IBMQuantumTaskError("The task was killed")

    @cached_property
    def hook(self) -> IBMQuantumHook:
        """The hook on the task's connection."""
        # Imported here: Dag files are parsed again and again, and parsing them needs no HTTP client.
        from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

        return IBMQuantumHook(self.ibm_quantum_conn_id)
