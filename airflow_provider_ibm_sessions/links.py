# SPDX-License-Identifier: Apache-2.0
"""The buttons from a task to IBM's web console."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

CONSOLE_URL = "https://quantum.cloud.ibm.com/workloads"


def console_url(workload_id: str) -> str:
    """Return the page of IBM's console that shows one session with its jobs, or one job."""
    return f"{CONSOLE_URL}?search={quote(workload_id, safe='')}"


class IBMQuantumLink(BaseOperatorLink):
    """Opens the task's session or job in IBM's console."""

    id_field: ClassVar[str]
    """The attribute of the operator that holds the id."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the link. Called by Airflow at the end of the task, with the operator as it ran."""
        workload_id = getattr(operator, self.id_field, None)
        return console_url(workload_id) if isinstance(workload_id, str) and workload_id else ""

    @classmethod
    def persist(cls, context: Context, workload_id: str) -> None:
        """Show the button before the task ends, for tasks that wait."""
        context["ti"].xcom_push(key=cls().xcom_key, value=console_url(workload_id))


class IBMQuantumSessionLink(IBMQuantumLink):
    """Opens the task's session; for operators that have a ``session_id``."""

    name = "IBM Quantum session"
    id_field = "session_id"


class IBMQuantumJobLink(IBMQuantumLink):
    """Opens the task's job; for operators that have a ``job_id``."""

    name = "IBM Quantum job"
    id_field = "job_id"
