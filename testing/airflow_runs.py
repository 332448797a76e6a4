# SPDX-License-Identifier: Apache-2.0
"""Runs of Dags: the parts of Airflow that ``dag.test()`` leaves out."""

from __future__ import annotations

from typing import Any


class Run:
    """A finished Dag run: states and XComs by task id."""

    def __init__(self, dag_run: Any) -> None:
        self.state = str(dag_run.state)
        self.dag_run = dag_run
        self.tasks = {ti.task_id: ti for ti in dag_run.get_task_instances()}

    def state_of(self, task_id: str) -> str:
        return str(self.tasks[task_id].state)

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        """Return the XCom of a task that is not mapped, or None."""
        found = self.xcom_of_each(task_id, key)
        return found[0] if found else None

    def xcom_of_each(self, task_id: str, key: str = "return_value") -> list[Any]:
        """Return the XComs of a mapped task, in the order of its map indexes."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            query = XComModel.get_many(
                run_id=self.dag_run.run_id, dag_ids=self.dag_run.dag_id, task_ids=task_id, key=key
            )
            found = sorted(session.scalars(query), key=lambda row: row.map_index)
            return [XComModel.deserialize_value(row) for row in found]


def serialize(dag: Any) -> None:
    """Write the Dag to the database, as the Dag processor does with a file of the Dags folder."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session

    try:
        from airflow.serialization.definitions.dag import SerializedDAG
    except ImportError:  # Airflow 3.1
        from airflow.serialization.serialized_objects import SerializedDAG

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    with create_session() as session:
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db("dags-folder", None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, bundle_name="dags-folder", session=session)


def create_dag_run(dag: Any, run_id: str, logical_date: Any = None) -> Any:
    """Create a run of the Dag in the database, as the scheduler does."""
    from airflow.models.dagrun import get_or_create_dagrun
    from airflow.sdk import timezone
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType

    now = timezone.utcnow()
    with create_session() as session:
        dag_run = get_or_create_dagrun(
            dag=DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)),
            run_id=run_id,
            logical_date=logical_date,
            data_interval=None,
            run_after=now,
            start_date=now,
            conf=None,
            triggered_by=DagRunTriggeredByType.TEST,
            triggering_user_name="test",
            session=session,
        )
        session.flush()
        session.expunge_all()
    return dag_run


def cleared(result: Run, dag: Any, task_id: str) -> Run:
    """Clear a task of a finished run as a user does, and run it again."""
    from airflow.models.taskinstance import clear_task_instances

    return _run_again(result, dag, task_id, clear_task_instances)


def next_try(result: Run, dag: Any, task_id: str) -> Run:
    """Run a task again as the scheduler does: the next try's task instance has another id."""

    def prepare(tis, session):
        for ti in tis:
            ti.prepare_db_for_next_try(session)

    return _run_again(result, dag, task_id, prepare)


def _run_again(result: Run, dag: Any, task_id: str, prepare: Any) -> Run:
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk import timezone
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
        # The scheduler sets the start date of a cleared run, without which Airflow 3.1 runs no task.
        ti.dag_run.start_date = ti.dag_run.start_date or timezone.utcnow()
        session.commit()
        _run_task(ti=ti, task=dag.task_dict[task_id], run_triggerer=True)
    return Run(result.dag_run)


def fails_once(monkeypatch, owner, name, *, before=True):
    """Let the method fail the first time, before or after its work; return the calls."""
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
    """Run the Dag, in which each task must fail at the first try; return the errors by task id."""
    errors = {}
    for task in dag.tasks:
        task.on_failure_callback = [
            lambda context: errors.update({context["ti"].task_id: context["exception"]})
        ]
    result = run(dag)
    assert {task_id: str(ti.state) for task_id, ti in result.tasks.items()} == dict.fromkeys(errors, "failed")
    assert {ti.try_number for ti in result.tasks.values()} == {1}
    assert len(errors) == len(dag.tasks)
    return {task_id: str(error) for task_id, error in errors.items()}


def with_rendered(task: Any, **values: Any) -> Any:
    """Give a task values as if templates had rendered them: they are not known when the Dag is parsed."""
    for name, value in values.items():
        setattr(task, name, value)
    return task
