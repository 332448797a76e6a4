# SPDX-License-Identifier: Apache-2.0
"""The button from a task to IBM's web console."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

CONSOLE_URL = "https://quantum.cloud.ibm.com/workloads"


def console_url(session_id: str) -> str:
    """The page of IBM's console that shows one session and its jobs."""
    return f"{CONSOLE_URL}?search={quote(session_id, safe='')}"


class IBMQuantumSessionLink(BaseOperatorLink):
    """Opens the task's session in IBM's console. Works for operators that have a ``session_id``."""

    name = "IBM Quantum session"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Called by Airflow at the end of the task, with the operator as it ran."""
        session_id = getattr(operator, "session_id", None)
        return console_url(session_id) if isinstance(session_id, str) and session_id else ""

    @classmethod
    def persist(cls, context: Context, session_id: str) -> None:
        """Show the button before the task ends, for tasks that wait."""
        context["ti"].xcom_push(key=cls().xcom_key, value=console_url(session_id))
