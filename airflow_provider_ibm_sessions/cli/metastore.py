# SPDX-License-Identifier: Apache-2.0
"""What a command reads in Airflow's database. Tasks may not: they ask Airflow's API."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from airflow.configuration import ensure_secrets_loaded
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sqlalchemy import exists, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from airflow_provider_ibm_sessions.cli.records import read_records, write_record
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.connection import credentials_from_connection
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.owner_lookup import (
    ACTIVE_RUN_STATES,
    FINISHED_TASK_STATES,
    ActiveOwners,
)
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_record import SessionRecord
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX, RegistryEntry

log = logging.getLogger(__name__)

CLOSED_BY = "ibm-quantum-sessions sweep"

_OWNERS_IN_QUERY = 200
"""Owners in one query: databases bound how many values one may have."""


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

    def read_entries(
        self, session_ids: Iterable[str], *, keep_copies: bool = False
    ) -> dict[str, RegistryEntry]:
        """Return the entries of these and of all registered sessions; see :class:`SessionRegistry`."""
        entries = dict.fromkeys(session_ids, RegistryEntry(None))
        with _database() as session:
            registered = select(Variable).where(Variable.key.startswith(PREFIX, autoescape=True))
            for entry in session.scalars(registered):
                entries[entry.key.removeprefix(PREFIX)] = RegistryEntry(entry.val or "")
        return entries

    def get_owner(self, session_id: str) -> SessionOwner | None:
        """Return the session's owner; see :class:`SessionRegistry`."""
        # Not Variable.get(), which takes a database that does not answer for one that has no such variable.
        with _database() as session:
            entry = session.scalar(select(Variable).where(Variable.key == PREFIX + session_id))
            return SessionOwner.parse(entry.val) if entry else None

    def find_active(self, owners: Iterable[SessionOwner]) -> ActiveOwners:
        """Return the owners whose run is active, and whose task has not finished if the session is its."""
        run = tuple_(DagRun.dag_id, DagRun.run_id)
        task = tuple_(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
        found: set[SessionOwner] = set()
        with _database() as session:
            for chunk in _chunks(sorted(set(owners), key=str)):
                places = {(each.dag_id, each.run_id) for each in chunk}
                active_runs = select(DagRun.dag_id, DagRun.run_id).where(
                    run.in_(places), DagRun.state.in_(ACTIVE_RUN_STATES)
                )
                runs = set(map(tuple, session.execute(active_runs)))
                finished_tasks = select(*task.clauses).where(
                    task.in_([_place(each) for each in chunk]), TaskInstance.state.in_(FINISHED_TASK_STATES)
                )
                finished = set(map(tuple, session.execute(finished_tasks)))
                found |= {
                    each
                    for each in chunk
                    if (each.dag_id, each.run_id) in runs
                    and (each.dag_run_scoped or _place(each) not in finished)
                }
        return ActiveOwners(found, {})

    def unregister(self, session_id: str, record: SessionRecord | None) -> None:
        """Keep the record of a session that is closed, and remove the session."""
        with _database() as session:
            if record is not None and not write_record(session, replace(record, closed_by=self._closed_by)):
                log.info("The run of session %s is gone, and so no record of it is kept", session_id)
            Variable.delete(PREFIX + session_id, session=session)


def _place(owner: SessionOwner) -> tuple[str, str, str, int]:
    return owner.dag_id, owner.run_id, owner.task_id, owner.map_index


def _chunks(owners: list[SessionOwner]) -> Iterator[list[SessionOwner]]:
    for start in range(0, len(owners), _OWNERS_IN_QUERY):
        yield owners[start : start + _OWNERS_IN_QUERY]


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
