# SPDX-License-Identifier: Apache-2.0
"""What a command reads in Airflow's database. Tasks may not: they ask Airflow's API."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from airflow.configuration import ensure_secrets_loaded
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sqlalchemy import exists, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from airflow_provider_ibm_sessions.cli.records import read_records, write_record
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.connection import credentials_from_connection
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.session_record import SessionRecord
from airflow_provider_ibm_sessions.hooks.session_registry import (
    ACTIVE_RUN_STATES,
    FINISHED_TASK_STATES,
    PREFIX,
    SessionOwner,
)

log = logging.getLogger(__name__)

CLOSED_BY = "ibm-quantum-sessions sweep"


def hook_from_database(conn_id: str, closed_by: str = CLOSED_BY) -> IBMQuantumHook:
    """
    Return the hook on a connection, wherever Airflow keeps it, or else on the environment's credentials.

    :param closed_by: Named in the records of the sessions that the hook closes.
    :raises AirflowApiUnavailableError: If the database does not answer.
    """
    hook = IBMQuantumHook(conn_id)
    # Not Connection.get_connection_from_secrets(): it takes a backend that fails for one that lacks the
    # connection, and warns of the '_' in the connection's type.
    for backend in ensure_secrets_loaded():
        try:
            with _database(f"Connection '{conn_id}': "):
                connection = backend.get_connection(conn_id=conn_id)
        except AirflowApiUnavailableError:
            raise
        except Exception as error:  # each secrets backend has errors of its own
            reason = f"{type(backend).__name__} failed: {type(error).__name__}"
            raise AirflowApiUnavailableError(f"Connection '{conn_id}': {reason}") from error
        if connection:
            hook.credentials = credentials_from_connection(connection)
            break
    hook.registry = MetastoreSessionRegistry(closed_by)
    return hook


@contextmanager
def _database(sought: str = "") -> Iterator[Session]:
    try:
        with create_session() as session:
            yield session
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise AirflowApiUnavailableError(f"{sought}Airflow's database: {reason}") from error


class MetastoreSessionRegistry:
    """
    The registry of open sessions as a command reads it, in Airflow's database.

    :param closed_by: Named in the records of the sessions that it unregisters.
    """

    def __init__(self, closed_by: str = CLOSED_BY) -> None:
        self._closed_by = closed_by

    def list_ids(self) -> list[str]:
        """Return the ids of all registered sessions."""
        with _database() as session:
            entries = select(Variable.key).where(Variable.key.startswith(PREFIX, autoescape=True))
            return [key.removeprefix(PREFIX) for key in session.scalars(entries)]

    def get_owner(self, session_id: str) -> SessionOwner | None:
        """Return the session's owner; see :class:`SessionRegistry`."""
        # Not Variable.get(), which takes a database that does not answer for one that has no such variable.
        with _database() as session:
            entry = session.scalar(select(Variable).where(Variable.key == PREFIX + session_id))
            return SessionOwner.parse(entry.val) if entry else None

    def is_owner_active(self, owner: SessionOwner) -> bool:
        """Return True if the run is active, and the task too if the session is for that only."""
        run = exists().where(
            DagRun.dag_id == owner.dag_id, DagRun.run_id == owner.run_id, DagRun.state.in_(ACTIVE_RUN_STATES)
        )
        over = exists().where(
            TaskInstance.dag_id == owner.dag_id,
            TaskInstance.run_id == owner.run_id,
            TaskInstance.task_id == owner.task_id,
            TaskInstance.map_index == owner.map_index,
            TaskInstance.state.in_(FINISHED_TASK_STATES),
        )
        goes_on = run if owner.dag_run_scoped else run & ~over
        with _database() as session:
            return bool(session.scalar(select(goes_on)))

    def unregister(self, session_id: str, record: SessionRecord | None) -> None:
        """Keep the record of a session that is closed, and remove the session."""
        with _database() as session:
            if record is not None and not write_record(session, replace(record, closed_by=self._closed_by)):
                log.info("The run of session %s is gone, and so no record of it is kept", session_id)
            Variable.delete(PREFIX + session_id, session=session)


def records_of_run(dag_id: str, run_id: str) -> list[SessionRecord]:
    """
    Return the records of what a Dag run has opened; see :func:`read_records`.

    :raises ConfigurationError: If Airflow has no such Dag run, or no task state store.
    :raises AirflowApiUnavailableError: If the database does not answer.
    """
    with _database() as session:
        run = exists().where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        if not session.scalar(select(run)):
            raise ConfigurationError(f"There is no run {run_id} of Dag {dag_id}", field="run_id")
        return read_records(session, dag_id, run_id)


def update_record(record: SessionRecord) -> None:
    """
    Write a record again, with what was read later.

    :raises AirflowApiUnavailableError: If the database does not answer.
    """
    with _database() as session:
        write_record(session, record)
