# SPDX-License-Identifier: Apache-2.0
"""The buttons from a task to IBM's web console or the emulator's pages, and to the page in Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

    from airflow_provider_ibm_sessions.client.credentials import Credentials

CONSOLE_URL = "https://quantum.cloud.ibm.com/workloads"


def console_url(workload_id: str = "", credentials: Credentials | None = None) -> str:
    """
    Return the page that shows one session with its jobs, or one job; without an id, the page of all.

    :param credentials: Those of an emulator have pages of their own; all others are shown in IBM's console.
    """
    console = CONSOLE_URL
    if credentials is not None and credentials.emulator:
        console = "{0.scheme}://{0.netloc}/workloads".format(urlsplit(credentials.url))
    return f"{console}?search={quote(workload_id, safe='')}" if workload_id else console


def page_url(session_id: str) -> str:
    """Return the address of a session on the page in Airflow's UI; without ``[api] base_url`` its path."""
    base_url = conf.get("api", "base_url", fallback="") or ""
    return f"{base_url.rstrip('/')}/plugin/ibm-quantum?session={quote(session_id, safe='')}"


class IBMQuantumLink(BaseOperatorLink):
    """Opens the task's session or job in IBM's console, or on the emulator's page."""

    id_field: ClassVar[str]
    """The attribute of the operator that holds the id."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the link. Called by Airflow at the end of the task, with the operator as it ran."""
        workload_id = getattr(operator, self.id_field, None)
        if not isinstance(workload_id, str) or not workload_id:
            return ""
        hook = getattr(operator, "hook", None)
        return hook.console_url(workload_id) if hook else console_url(workload_id)

    @classmethod
    def persist(cls, context: Context, url: str) -> None:
        """Show the button before the task ends, for tasks that wait."""
        context["ti"].xcom_push(key=cls().xcom_key, value=url)


class IBMQuantumSessionLink(IBMQuantumLink):
    """Opens the task's session; for operators that have a ``session_id``."""

    name = "IBM Quantum session"
    id_field = "session_id"


class IBMQuantumJobLink(IBMQuantumLink):
    """Opens the task's job; for operators that have a ``job_id``."""

    name = "IBM Quantum job"
    id_field = "job_id"


class IBMQuantumPageLink(IBMQuantumLink):
    """Opens the task's session on the page in Airflow's UI; for operators that have a ``session_id``."""

    name = "IBM Quantum page"
    id_field = "session_id"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the link. Called by Airflow at the end of the task, with the operator as it ran."""
        session_id = getattr(operator, self.id_field, None)
        return page_url(session_id) if isinstance(session_id, str) and session_id else ""
