# SPDX-License-Identifier: Apache-2.0
"""Rights of the signed-in user, and the guard against requests that another site has caused."""

from __future__ import annotations

from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user, requires_access_connection, requires_access_dag
from fastapi import Depends, Header, HTTPException, Request

GUARD_HEADER = "X-IBM-Quantum-Page"
"""A browser sends it to another origin only if that allows it, which Airflow does not."""


def signed_in(user: Annotated[Any, Depends(get_user)]) -> Any:
    """Return the signed-in user; answers 401 to anybody else."""
    return user


User = Annotated[Any, Depends(signed_in)]

read_dag_run = Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))
read_task = Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.TASK_INSTANCE))
edit_task = Depends(requires_access_dag(method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE))
read_connection = Depends(requires_access_connection(method="GET"))
edit_connection = Depends(requires_access_connection(method="PUT"))


def readable_dags(user: Any) -> set[str]:
    """Return the ids of the Dags that the user may see."""
    return set(get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))


class Editable:
    """The Dags whose tasks the user may edit, and so end their sessions; each is asked once."""

    def __init__(self, request: Request, user: Any) -> None:
        self._request = request
        self._user = user
        self._known: dict[str, bool] = {}

    def __call__(self, dag_id: str) -> bool:
        """Return True if the user may edit the tasks of this Dag."""
        if dag_id not in self._known:
            check: Any = requires_access_dag("PUT", DagAccessEntity.TASK_INSTANCE, dag_id)
            try:
                check(self._request, self._user)
                self._known[dag_id] = True
            except HTTPException:
                self._known[dag_id] = False
        return self._known[dag_id]


def readable_connections(user: Any) -> set[str]:
    """Return the ids of the connections in Airflow's database that the user may see."""
    manager: Any = get_auth_manager()
    return set(manager.get_authorized_connections(user=user, method="GET"))


def from_this_page(
    request: Request,
    header: Annotated[str | None, Header(alias=GUARD_HEADER)] = None,
    site: Annotated[str | None, Header(alias="Sec-Fetch-Site")] = None,
) -> None:
    """Refuse a request that a page of another origin may have caused: the cookie goes along with those."""
    is_json = request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"
    if not header or not is_json or site not in (None, "same-origin"):
        raise HTTPException(403, f"Only Airflow's own page may do this (header {GUARD_HEADER}, JSON body)")


same_origin = Depends(from_this_page)
