# SPDX-License-Identifier: Apache-2.0
"""The page's routes in an application of the test's own, with Airflow's database and its simple users."""

from __future__ import annotations

import json
import time

import pytest

from testing.connections import connection_to

CONNECTION = "ibm_quantum_default"


@pytest.fixture
def page(airflow_db, ibm, dag, monkeypatch):
    """The routes, a Dag run whose task owns a session, and users of each role."""
    from airflow.api_fastapi.app import create_auth_manager
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_provider_ibm_sessions.plugins._page.app import create_app

    create_auth_manager()
    root = FastAPI()
    root.mount("/ibm-quantum", create_app())
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
    with TestClient(root, base_url="http://testserver/ibm-quantum/api/") as client:
        yield Page(client, ibm, dag)


class Page:
    """Requests of a user, and what there is to see."""

    def __init__(self, client, ibm, dag):
        from airflow.providers.standard.operators.empty import EmptyOperator

        from testing.airflow_runs import create_dag_run, serialize

        self.client, self.ibm, self.dag_id = client, ibm, dag.dag_id
        with dag:
            EmptyOperator(task_id="opens")
        serialize(dag)
        self.run_id = "run__2026-01-01T00:00:00+00:00"
        create_dag_run(dag, self.run_id)
        self.session_id = ibm.add_session(state="active").id
        self.register(self.session_id)

    def owner(self, **fields):
        from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner

        known = {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": "opens"}
        return SessionOwner(
            **{"conn_id": CONNECTION, "dag_run_scoped": True, "opened": time.time(), **known, **fields}
        )

    def register(self, session_id, **fields):
        """Write the registry's entry of a session."""
        from airflow.models.variable import Variable

        entry = self.owner(**fields).signed(session_id, self.ibm.api_key)
        Variable.set(f"ibm_quantum_session_{session_id}", entry.to_json())

    def entry(self, session_id):
        """Return the text of a registry's entry."""
        from airflow.models.variable import Variable

        return Variable.get(f"ibm_quantum_session_{session_id}", default_var=None)

    def keep(self, record, **place):
        """Write a record of a past session."""
        from airflow.models.dagrun import DagRun
        from airflow.models.task_state_store import TaskStateStoreModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        place = {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": "opens", "map_index": -1, **place}
        with create_session() as session:
            run = select(DagRun.id).where(DagRun.dag_id == place["dag_id"], DagRun.run_id == place["run_id"])
            key = f"ibm_quantum_record_{record['session_id']}"
            dag_run_id = session.scalar(run)
            session.add(
                TaskStateStoreModel(dag_run_id=dag_run_id, key=key, value=json.dumps(record), **place)
            )

    @property
    def path(self):
        """The path of the session, below its task."""
        from urllib.parse import quote

        place = f"dags/{self.dag_id}/runs/{quote(self.run_id, safe='')}/tasks/opens/-1"
        return f"{place}/sessions/{self.session_id}"

    def ask(self, method, path, role="admin", **kwargs):
        """Send a request as a user of this role; None: as nobody."""
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        headers = kwargs.pop("headers", {})
        if role:
            user = SimpleAuthManagerUser(username=f"the {role}", role=role)
            headers = {"Cookie": f"_token={get_auth_manager().generate_jwt(user)}", **headers}
        return self.client.request(method, path, headers=headers, **kwargs)

    def end(self, action="close", role="admin", *, path=None, session_id=None, headers=None):
        """End a session as the page does."""
        body = {"action": action, "session_id": session_id or self.session_id}
        guard = {"X-IBM-Quantum-Page": "1"} if headers is None else headers
        return self.ask("POST", path or self.path, role, json=body, headers=guard)
