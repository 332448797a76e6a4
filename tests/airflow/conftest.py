# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from scripts.localqpu import running_localqpu
from tests.conftest import SECRETS, connection_to


@pytest.fixture
def connection(ibm, monkeypatch):
    """The connection ``ibm_quantum_default``, to the fake."""
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
    return "ibm_quantum_default"


@pytest.fixture(scope="module")
def emulator(airflow_db):
    """An emulator that runs real circuits, for all tests of a file."""
    with running_localqpu() as localqpu:
        yield localqpu


@pytest.fixture
def localqpu(emulator, monkeypatch):
    """The same, with the connection ``ibm_quantum_default`` to it."""
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", emulator.connection)
    return emulator


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


@pytest.fixture
def quick(monkeypatch):
    """The client's own attempts, with short pauses between them."""
    from airflow_provider_ibm_sessions.client.retries import RetryPolicy

    policy = RetryPolicy(window=10, first_pause=0.05, max_pause=0.2, settling=0.3)
    monkeypatch.setattr("airflow_provider_ibm_sessions.client.client.RetryPolicy", lambda: policy)


@pytest.fixture
def terminate():
    """Send this process Airflow's signal to end the task, as soon as something is so: ``terminate(when)``."""
    handler = signal.getsignal(signal.SIGTERM)
    over = threading.Event()

    def watch(when):
        while not over.wait(0.02):
            if when():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threads = []

    def start(when):
        threads.append(threading.Thread(target=watch, args=(when,), daemon=True))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def airflow_fails(monkeypatch):
    """
    Let Airflow's API answer 503 to who asks for a connection, or a variable: ``airflow_fails("Variable")``.

    Returns what was asked for.
    """
    import httpx
    from airflow.sdk.api import client

    request = httpx.Request("GET", "http://airflow")
    response = httpx.Response(503, request=request, json={"detail": "the database is down"})

    def arrange(kind, *, times=None):
        operations, asked = getattr(client, f"{kind}Operations"), []
        get = operations.get

        def fail(self, key):
            asked.append(key)
            if times is not None and len(asked) > times:
                return get(self, key)
            raise client.ServerResponseError("Server error", request=request, response=response)

        monkeypatch.setattr(operations, "get", fail)
        return asked

    return arrange


def cleared(result: Run, dag: Any, task_id: str) -> Run:
    """Clear a task of a finished run as a user does, and run it again."""
    from airflow.models.taskinstance import clear_task_instances

    return _run_again(result, dag, task_id, clear_task_instances)


def next_try(result: Run, dag: Any, task_id: str) -> Run:
    """Run a task again as the scheduler does: the next attempt's task instance has another id."""

    def prepare(tis, session):
        for ti in tis:
            ti.prepare_db_for_next_try(session)

    return _run_again(result, dag, task_id, prepare)


def _run_again(result: Run, dag: Any, task_id: str, prepare: Any) -> Run:
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk.definitions.dag import _run_task
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(TaskInstance).where(
            TaskInstance.dag_id == dag.dag_id,
            TaskInstance.run_id == result.dag_run.run_id,
            TaskInstance.task_id == task_id,
        )
        prepare([session.scalars(query).one()], session)
        session.commit()
        ti = session.scalars(query).one()
        ti.try_number += 1
        session.commit()
        _run_task(ti=ti, task=dag.task_dict[task_id], run_triggerer=True)
    return Run(result.dag_run)


def fails_once(monkeypatch, owner, name, *, before=True):
    """The method fails the first time, before or after its work; returns the calls."""
    original, calls = getattr(owner, name), []

    def method(*args, **kwargs):
        calls.append(args)
        if before and len(calls) == 1:
            raise RuntimeError("as if the worker's disk were full")
        result = original(*args, **kwargs)
        if len(calls) == 1:
            raise RuntimeError("as if the worker's disk were full")
        return result

    monkeypatch.setattr(owner, name, method)
    return calls


def failures_of(dag, run):
    """Run the Dag, in which each task is to fail; its error by task id."""
    told = {}
    for task in dag.tasks:
        task.on_failure_callback = [
            lambda context: told.update({context["ti"].task_id: context["exception"]})
        ]
    result = run(dag)
    assert {task_id: str(ti.state) for task_id, ti in result.tasks.items()} == dict.fromkeys(told, "failed")
    assert {ti.try_number for ti in result.tasks.values()} == {1}
    assert len(told) == len(dag.tasks)
    return {task_id: str(error) for task_id, error in told.items()}
