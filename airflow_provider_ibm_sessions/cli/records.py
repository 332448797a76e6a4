# SPDX-License-Identifier: Apache-2.0
"""The records of ended sessions in Airflow's database. Airflow has a task state store from 3.3 on."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, select

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.session_record import (
    JOB_RECORD_PREFIX,
    RECORD_PREFIX,
    SessionRecord,
    retention,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)


def read_records(session: Session, dag_id: str, run_id: str) -> list[SessionRecord]:
    """
    Return the records of all sessions, and of jobs without one, that were opened for a Dag run.

    Most are kept by tasks of the run, some by another run: what the sweep has closed. Of two records of one
    session, such as after a clear, the last that was written counts.

    :raises ConfigurationError: If this Airflow has no task state store.
    """
    model = _model()
    prefixes = (RECORD_PREFIX, JOB_RECORD_PREFIX)
    is_record = or_(*(model.key.startswith(each, autoescape=True) for each in prefixes))
    names_run = or_(model.run_id == run_id, model.value.contains(json.dumps(run_id), autoescape=True))
    rows = select(model).where(is_record, names_run).order_by(model.updated_at, model.id)
    newest: dict[str, SessionRecord] = {}
    for row in session.scalars(rows):
        try:
            record = SessionRecord.parse(row.value)
        except ValueError:
            log.warning("The record %s of %s is kept elsewhere, or unreadable", row.key, row.task_id)
            continue
        owner = record.owner or {}
        if (owner.get("dag_id"), owner.get("run_id")) == (dag_id, run_id):
            newest[record.key] = record
    return sorted(newest.values(), key=lambda record: record.opened or 0.0)


def write_record(session: Session, record: SessionRecord) -> bool:
    """
    Write a record over the one that is kept of the same session, or else for its owner.

    :returns: False if it is kept nowhere: Airflow has no task state store, or the Dag run is gone.
    """
    from airflow.models.dagrun import DagRun

    try:
        model = _model()
    except ConfigurationError:
        return False
    value, now, kept_for = json.dumps(record.to_json()), datetime.now(UTC), retention()
    kept = list(session.scalars(select(model).where(model.key == record.key)))
    for row in kept:
        row.value, row.updated_at = value, now
    owner = record.owner or {}
    of_run = (DagRun.dag_id == owner.get("dag_id"), DagRun.run_id == owner.get("run_id"))
    if not kept and (dag_run_id := session.scalar(select(DagRun.id).where(*of_run))) is not None:
        expires_at = None if kept_for is None else now + kept_for
        where = {**owner, "dag_run_id": dag_run_id, "key": record.key}
        session.add(model(**where, value=value, updated_at=now, expires_at=expires_at))
        return True
    return bool(kept)


def _model() -> Any:
    """
    Return Airflow's model of the task state store.

    :raises ConfigurationError: If this Airflow is older than 3.3.
    """
    try:
        from airflow.models.task_state_store import TaskStateStoreModel
    except ImportError as error:
        raise ConfigurationError(
            "usage needs Airflow 3.3 or newer, which keeps records of ended sessions", field="usage"
        ) from error
    return TaskStateStoreModel
