# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import SECRETS, connection_to


@pytest.fixture
def connection(ibm, monkeypatch):
    """The connection ``ibm_quantum_default``, to the fake."""
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
    return "ibm_quantum_default"


class Run:
    """A finished Dag run: states and XComs by task id."""

    def __init__(self, dag_run: Any) -> None:
        self.state = str(dag_run.state)
        self.dag_run = dag_run
        self.tasks = {ti.task_id: ti for ti in dag_run.get_task_instances()}

    def state_of(self, task_id: str) -> str:
        return str(self.tasks[task_id].state)

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        """The XCom of a task that is not mapped, or None."""
        found = self.xcom_of_each(task_id, key)
        return found[0] if found else None

    def xcom_of_each(self, task_id: str, key: str = "return_value") -> list[Any]:
        """The XComs of a mapped task, in the order of its map indexes."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            query = XComModel.get_many(
                run_id=self.dag_run.run_id, dag_ids=self.dag_run.dag_id, task_ids=task_id, key=key
            )
            found = sorted(session.scalars(query), key=lambda row: row.map_index)
            return [XComModel.deserialize_value(row) for row in found]


@pytest.fixture(autouse=True)
def output(capfd, caplog):
    """All that the test has logged and printed so far; at its end, neither key nor token is in it."""
    seen: list[str] = []

    def read() -> str:
        captured = capfd.readouterr()
        seen.append(captured.out + captured.err)
        return "".join(seen) + caplog.text

    with caplog.at_level("DEBUG"):
        yield read
    everything = read()
    assert [secret for secret in SECRETS if secret in everything] == []


@pytest.fixture
def run(airflow_db, request):
    """Run a Dag through Airflow: ``run(dag)``; tasks, XComs and triggers are real."""

    def run_dag(dag: Any, **conf: Any) -> Run:
        serialize(dag)
        return Run(dag.test(run_conf=conf or None))

    return run_dag


def serialize(dag: Any) -> None:
    """Write the Dag to the database, as the Dag processor does with a file of the Dags folder."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    with create_session() as session:
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db("dags-folder", None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, bundle_name="dags-folder", session=session)


@pytest.fixture
def dag(request):
    """An empty Dag of the test's own."""
    from airflow.sdk import DAG

    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    with DAG(dag_id=name[:200], schedule=None) as dag:
        yield dag
