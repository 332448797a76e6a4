# SPDX-License-Identifier: Apache-2.0
"""
Registry entries, records of past sessions and XComs: all that the page reads in Airflow's database.

Only columns are selected. Loading a ``Variable`` would add its text to the words that the API server masks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from airflow.models.connection import Connection
from airflow.models.crypto import get_fernet
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from cryptography.fernet import InvalidToken
from sqlalchemy import String, cast, func, or_, select, tuple_
from sqlalchemy.orm import Session

from airflow_provider_ibm_sessions.hooks.owner_lookup import ACTIVE_RUN_STATES, FINISHED_TASK_STATES
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX
from airflow_provider_ibm_sessions.plugins._page.results import finite_number

try:
    from airflow.models.task_state_store import TaskStateStoreModel
except ImportError:  # before Airflow 3.3
    TaskStateStoreModel = None  # type: ignore[assignment, misc]

log = logging.getLogger(__name__)

RECORD_PREFIXES = ("ibm_quantum_record_", "ibm_quantum_job_record_")
"""Keys of the records of sessions, and of jobs without one, in the task state store."""

TREND_RUNS = 30
MAX_XCOM_BYTES = 4_000_000
"""Bytes of an XCom that the API server parses for a page; larger ones are said to be too large."""

_MAX_RECORDS = 500
_OWNER = ("dag_id", "run_id", "task_id", "map_index")
_TEXTS = ("conn_id", "backend", "mode", "currency", "reason", "closed_by")
_NUMBERS = ("try_number", "opened", "max_ttl", "billed", "qpu_seconds", "price_per_second")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the registry: an open session, and its owner."""

    session_id: str
    owner: SessionOwner

    @property
    def place(self) -> tuple[str, str, str, int]:
        """Return the owner as Airflow's tables name it."""
        owner = self.owner
        return owner.dag_id, owner.run_id, owner.task_id, owner.map_index

    def matches(self, query: str) -> bool:
        """Return True if the text is part of any of its names."""
        owner = self.owner
        names = (self.session_id, owner.conn_id, owner.dag_id, owner.run_id, owner.task_id)
        return any(query in name.lower() for name in names)


def entries(session: Session, session_ids: Iterable[str] | None = None) -> list[Entry]:
    """
    Return the readable entries of the registry, the newest first.

    :param session_ids: Only those of these sessions.
    """
    query = select(Variable.key, Variable._val, Variable.is_encrypted)
    if session_ids is None:
        query = query.where(Variable.key.startswith(PREFIX, autoescape=True))
    else:
        query = query.where(Variable.key.in_([PREFIX + session_id for session_id in session_ids]))
    found = []
    for key, value, is_encrypted in session.execute(query):
        try:
            found.append(Entry(key.removeprefix(PREFIX), _read_owner(value, is_encrypted)))
        except (ValueError, InvalidToken):
            log.warning("The variable %s is no readable entry of a session", key)
    return sorted(found, key=lambda entry: -entry.owner.opened)


@lru_cache(maxsize=2_000)
def _read_owner(value: str, is_encrypted: bool) -> SessionOwner:
    # Kept by the encrypted text: a page asks every few seconds, and nothing of the entries is secret.
    return SessionOwner.parse(get_fernet().decrypt(value.encode()).decode() if is_encrypted else value)


def owner_states(session: Session, found: Iterable[Entry]) -> dict[tuple[str, str, str, int], dict[str, Any]]:
    """Return the state of each owner's run and task, and whether the session is in use by them."""
    by_place = {entry.place: entry for entry in found}
    if not by_place:
        return {}
    runs = {
        (dag_id, run_id): state
        for dag_id, run_id, state in session.execute(
            select(DagRun.dag_id, DagRun.run_id, DagRun.state).where(
                tuple_(DagRun.dag_id, DagRun.run_id).in_({place[:2] for place in by_place})
            )
        )
    }
    columns = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    tasks = {
        tuple(place): (state, try_number)
        for *place, state, try_number in session.execute(
            select(*columns, TaskInstance.state, TaskInstance.try_number).where(
                tuple_(*columns).in_(by_place)
            )
        )
    }
    states = {}
    for place, entry in by_place.items():
        run, (task, try_number) = runs.get(place[:2]), tasks.get(place, (None, None))
        is_active = run in ACTIVE_RUN_STATES
        if not entry.owner.dag_run_scoped:
            is_active = is_active and task not in FINISHED_TASK_STATES
        states[place] = {"run": run, "task": task, "try_number": try_number, "active": is_active}
    return states


def run_records(
    session: Session, dag_id: str, run_id: str, task_id: str | None = None, map_index: int | None = None
) -> list[dict[str, Any]]:
    """Return the records of a run's sessions, or of one task's, the oldest first."""
    if TaskStateStoreModel is None:
        return _records_of_xcoms(session, dag_id, run_id, task_id, map_index)
    store = TaskStateStoreModel
    # A sweep keeps the records of what it closes in its own run.
    of_run = or_(
        (store.dag_id == dag_id) & (store.run_id == run_id),
        store.value.contains(json.dumps(run_id), autoescape=True),
    )
    query = select(store.id, store.value).where(of_run, _is_record()).order_by(store.id)
    newest: dict[str, dict[str, Any]] = {}
    for record in _parse(session.execute(query)):
        owner = record["owner"]
        is_of_task = task_id is None or (owner["task_id"], owner["map_index"]) == (task_id, map_index)
        if (owner["dag_id"], owner["run_id"]) == (dag_id, run_id) and is_of_task:
            newest[record["session_id"]] = record
    return list(newest.values())[-_MAX_RECORDS:]


def past_records(
    session: Session, readable: set[str], before: int | None, limit: int, query: str = ""
) -> tuple[list[dict[str, Any]], int | None]:
    """
    Return a page of records of readable Dags, the newest first, and where the next one begins.

    There is no index on keys: so pages are found by id, and nothing is counted.

    :param before: Where the page begins, as the one before has said.
    """
    if TaskStateStoreModel is None:
        return _past_xcoms(session, readable, before, limit, query)
    store = TaskStateStoreModel
    records = select(store.id, store.value).where(_is_record())
    if query:
        records = records.where(store.value.contains(query, autoescape=True))
    found: list[dict[str, Any]] = []
    while True:
        page = records if before is None else records.where(store.id < before)
        rows = session.execute(page.order_by(store.id.desc()).limit(4 * limit)).all()
        for record in _parse(rows):
            # Not the row's own Dag: a sweep keeps records of other Dags' sessions.
            if record["owner"]["dag_id"] in readable:
                if len(found) == limit:
                    return found, found[-1]["record_id"]
                found.append(record)
        if len(rows) < 4 * limit:
            return found, None
        before = rows[-1][0]


def trend(session: Session, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """Return the last runs of a Dag up to this one, with the records of each, the oldest first."""
    this = session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    if this is None:
        return []
    newest = (
        select(DagRun.id, DagRun.run_id, DagRun.state, DagRun.run_after)
        .where(DagRun.dag_id == dag_id, DagRun.id <= this)
        .order_by(DagRun.id.desc())
        .limit(TREND_RUNS)
    )
    runs = {
        key: {"run_id": name, "state": state, "at": at.timestamp() if at else None, "records": []}
        for key, name, state, at in reversed(session.execute(newest).all())
    }
    if TaskStateStoreModel is not None:
        store = TaskStateStoreModel
        stored = select(store.id, store.value).where(
            store.dag_run_id.in_(runs) | store.value.contains(json.dumps(dag_id), autoescape=True),
            _is_record(),
        )
        by_name = {run["run_id"]: run for run in runs.values()}
        for record in _parse(session.execute(stored.order_by(store.id))):
            run = by_name.get(record["owner"]["run_id"])
            if run is not None and record["owner"]["dag_id"] == dag_id:
                run["records"].append(record)
    else:
        for run in runs.values():
            run["records"] = _records_of_xcoms(session, dag_id, run["run_id"])
    return list(runs.values())


def returned_value(session: Session, dag_id: str, run_id: str, task_id: str, map_index: int) -> Any:
    """
    Return what a task has returned; None if nothing, or what is no JSON.

    :raises ValueError: If it is too large for a page.
    """
    return _xcom(session, dag_id, run_id, task_id, map_index, "return_value")


def previous_run(session: Session, dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
    """Return the id of the last run before this one in which the task has returned a value."""
    this = select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id).scalar_subquery()
    return session.scalar(
        select(XComModel.run_id)
        .where(
            XComModel.dag_id == dag_id,
            XComModel.task_id == task_id,
            XComModel.map_index == map_index,
            XComModel.key == "return_value",
            XComModel.dag_run_id < this,
        )
        .order_by(XComModel.dag_run_id.desc())
        .limit(1)
    )


def connection_ids(session: Session) -> set[str]:
    """Return the ids of the connections of this provider in Airflow's database."""
    return set(session.scalars(select(Connection.conn_id).where(Connection.conn_type == "ibm_quantum")))


def _is_record(key: Any = None) -> Any:
    key = TaskStateStoreModel.key if key is None else key
    return or_(*(key.startswith(prefix, autoescape=True) for prefix in RECORD_PREFIXES))


def _parse(rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the readable records, with the id of the row: tasks can write whatever they like."""
    for key, value in rows:
        try:
            record = _plain(value)
            owner = record["owner"]
            names = [record["session_id"], *(owner[name] for name in ("dag_id", "run_id", "task_id"))]
        except (TypeError, KeyError):
            continue
        if all(isinstance(name, str) for name in names) and isinstance(owner.get("map_index", -1), int):
            yield {**_shown(record), "record_id": key}


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the page shows; None for what it cannot draw, or what is no JSON."""
    spans = found if isinstance(found := record.get("spans"), list) else []
    jobs = record.get("jobs")
    return {
        "session_id": record["session_id"],
        "owner": {name: record["owner"].get(name, -1) for name in _OWNER},
        **{name: text if isinstance(text := record.get(name), str) else None for name in _TEXTS},
        **{name: finite_number(record.get(name)) for name in _NUMBERS},
        "billed_is_final": record.get("billed_is_final") is True,
        "spans": [
            [state, at]
            for state, at in (each for each in spans if isinstance(each, list) and len(each) == 2)
            if isinstance(state, str) and finite_number(at) is not None
        ],
        "jobs": {state: n for state, n in jobs.items() if finite_number(n) is not None}
        if isinstance(jobs, dict)
        else None,
    }


def _xcom(session: Session, dag_id: str, run_id: str, task_id: str, map_index: int, key: str) -> Any:
    where = (
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.task_id == task_id,
        XComModel.map_index == map_index,
        XComModel.key == key,
    )
    size = session.scalar(select(func.length(cast(XComModel.value, String))).where(*where))
    if size and size > MAX_XCOM_BYTES:
        raise ValueError(f"its XCom {key} has {size:,} bytes")
    return _plain(session.scalar(select(XComModel.value).where(*where)))


def _plain(value: Any) -> Any:
    """Return an XCom in plain JSON: nothing of Airflow's own encoding is made into objects."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _records_of_xcoms(
    session: Session, dag_id: str, run_id: str, task_id: str | None = None, map_index: int | None = None
) -> list[dict[str, Any]]:
    """
    Return the records that tasks have pushed as XComs, where there is no task state store.

    Where there is none of a session, one is made from the XCom ``session``, which has its last details.
    """
    is_wanted = _is_record(XComModel.key) | (XComModel.key == "session")
    query = select(XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value).where(
        XComModel.dag_id == dag_id, XComModel.run_id == run_id, is_wanted
    )
    if task_id is not None:
        query = query.where(XComModel.task_id == task_id, XComModel.map_index == map_index)
    found: dict[str, dict[str, Any]] = {}
    made: list[dict[str, Any]] = []
    for task, index, key, value in session.execute(query.limit(_MAX_RECORDS)):
        owner = {"dag_id": dag_id, "run_id": run_id, "task_id": task, "map_index": index}
        details = _plain(value)
        if key != "session":
            found |= {each["session_id"]: each for each in _parse([(None, details)])}
        elif isinstance(details, dict) and isinstance(details.get("id"), str):
            made.append({**_shown(_record_of_details(details, owner)), "record_id": None})
    return [*found.values(), *(each for each in made if each["session_id"] not in found)]


def _past_xcoms(
    session: Session, readable: set[str], before: int | None, limit: int, query: str
) -> tuple[list[dict[str, Any]], int | None]:
    """Return a page of records that tasks have pushed as XComs: of whole runs, the newest first."""
    run, wanted = XComModel.dag_run_id, _is_record(XComModel.key)
    if query:
        wanted &= cast(XComModel.value, String).contains(query, autoescape=True)
    found: list[dict[str, Any]] = []
    while True:
        older = wanted if before is None else wanted & (run < before)
        runs = list(session.scalars(select(run).where(older).distinct().order_by(run.desc()).limit(limit)))
        rows = session.execute(
            select(run, XComModel.value)
            .where(wanted, run.in_(runs))
            .order_by(run.desc(), XComModel.timestamp.desc())
        )
        for record in _parse(rows.all()):
            if len(found) >= limit and record["record_id"] != found[-1]["record_id"]:
                return found, found[-1]["record_id"]
            if record["owner"]["dag_id"] in readable:
                found.append(record)
        if len(runs) < limit:
            return found, None
        before = runs[-1]


def _record_of_details(details: dict[str, Any], owner: dict[str, Any]) -> dict[str, Any]:
    return {
        "session_id": details["id"],
        "conn_id": None,
        "owner": owner,
        "backend": details.get("backend_name"),
        "mode": details.get("mode"),
        "max_ttl": details.get("max_ttl"),
        "billed": details.get("elapsed_time"),
        "billed_is_final": details.get("state") == "closed",
        "reason": details.get("state_reason"),
    }
