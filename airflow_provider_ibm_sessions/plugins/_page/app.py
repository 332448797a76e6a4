# SPDX-License-Identifier: Apache-2.0
"""
The routes of the page, each behind a signed-in user.

Nothing that the browser sends names a connection's secrets or another Dag's session: the owner in the path
decides on the rights, and the registry's entry or the record must name the same owner.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.logging.decorators import action_logging
from airflow.utils.session import create_session
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as PathParam
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, StringConstraints

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import validate_id
from airflow_provider_ibm_sessions.lifecycle.sweep_decision import SweepScope, decide
from airflow_provider_ibm_sessions.plugins._page import access, records, results
from airflow_provider_ibm_sessions.plugins._page.access import Editable, User
from airflow_provider_ibm_sessions.plugins._page.details import session_details
from airflow_provider_ibm_sessions.plugins._page.live import LiveSessions

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}
FILES = {path.name: path for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES}

MAX_ROWS = 100
RECORDS_PER_PAGE = 25
SWEEP_MIN_AGE = 900.0
"""Seconds after which a sweep may close a session: the operator's default."""

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_TASK = "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}"

Name = Annotated[str, PathParam(min_length=1, max_length=300)]
SessionId = Annotated[str, PathParam(min_length=1, max_length=100)]
MapIndex = Annotated[int, PathParam(ge=-1, le=2**31 - 1)]
Text = Annotated[str, StringConstraints(max_length=200, pattern="^[^\\x00]*$")]
Number = Annotated[int | None, Query(ge=1, le=2**62)]

router = APIRouter(prefix="/api")


class EndSession(BaseModel):
    """Body of a request to end a session; names it again, so that no other page's form fits."""

    action: Literal["drain", "close"]
    session_id: str


def create_app() -> FastAPI:
    """Return the application that the plugin mounts."""
    # No description of the routes: it would be open to anybody.
    app = FastAPI(
        title="IBM Quantum",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(access.signed_in)],
        default_response_class=JSONResponse,
    )
    app.state.live = LiveSessions()
    app.include_router(router)
    app.add_api_route("/static/{name}", static_file, methods=["GET"])
    return app


def static_file(name: str, request: Request) -> Response:
    """Return a script or the styles; a browser asks each time, and gets it again if it has changed."""
    path = FILES.get(name)
    if path is None:
        raise HTTPException(404, "There is no such file")
    headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    media_type = MEDIA_TYPES[path.suffix]
    response = FileResponse(path, media_type=media_type, headers=headers, stat_result=path.stat())
    if request.headers.get("if-none-match") == response.headers["etag"]:
        return Response(status_code=304, headers={**headers, "etag": response.headers["etag"]})
    return response


def live_sessions(request: Request) -> LiveSessions:
    """Return what this API server knows of IBM."""
    live: LiveSessions = request.app.state.live
    return live


Live = Annotated[LiveSessions, Depends(live_sessions)]


@router.get("/sessions")
def list_sessions(
    request: Request,
    user: User,
    session: SessionDep,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = MAX_ROWS,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    q: Text = "",
) -> Response:
    """Return the open sessions of readable Dags, the newest first. IBM is not asked."""
    readable, query = access.readable_dags(user), q.strip().lower()
    found = [
        entry
        for entry in records.entries(session)
        if entry.owner.dag_id in readable and (not query or entry.matches(query))
    ]
    page = found[offset : offset + limit]
    states = records.owner_states(session, page)
    may_edit = Editable(request, user)
    rows = [_row(entry, states.get(entry.place, {}), may_edit(entry.owner.dag_id)) for entry in page]
    return _json({"sessions": rows, "total": len(found), "live": LiveSessions.is_enabled()})


@router.get("/live")
async def read_live(
    user: User,
    live: Live,
    session_ids: Annotated[list[Text], Query(alias="id", max_length=MAX_ROWS)],
) -> Response:
    """Return what IBM says of open sessions, and the prices of their connections."""

    def read() -> list[tuple[str, str]]:
        readable, found = access.readable_dags(user), _entries(session_ids)
        return [(each.owner.conn_id, each.session_id) for each in found if each.owner.dag_id in readable]

    wanted = await asyncio.to_thread(read)
    conn_ids = sorted({conn_id for conn_id, _ in wanted})
    sessions, counts, *about = await asyncio.gather(
        live.sessions(wanted), live.job_counts(wanted), *(live.connection(conn_id) for conn_id in conn_ids)
    )
    for session_id, jobs in counts.items():
        sessions[session_id]["jobs"] = jobs
    return _json({"sessions": sessions, "connections": dict(zip(conn_ids, about, strict=True))})


@router.get(_TASK + "/sessions/{session_id}", dependencies=[access.read_task])
async def read_session(
    dag_id: Name,
    run_id: Name,
    task_id: Name,
    map_index: MapIndex,
    session_id: SessionId,
    live: Live,
    clicked: bool = False,
) -> Response:
    """
    Return a session with its jobs, open or ended, that was opened for this task.

    :param clicked: True in the first request for what a person has unfolded; False in those that follow.
    """
    place = (dag_id, run_id, task_id, map_index)
    conn_id, record = await asyncio.to_thread(_find, place, session_id)
    is_job = record is not None and record.get("mode") == "job"
    reads = [live.jobs(conn_id, session_id, is_job=is_job, clicked=clicked), live.connection(conn_id)]
    if not is_job:
        reads.append(live.session(conn_id, session_id, clicked=clicked))
    jobs, about, *now = await asyncio.gather(*reads)
    content = {
        "session_id": session_id,
        "conn_id": conn_id,
        **session_details(now[0] if now else {}, record, jobs, about),
        "console": (await live.console(conn_id))(session_id),
    }
    return _json(content)


@router.get(_TASK + "/sessions/{session_id}/jobs", dependencies=[access.read_task])
async def count_jobs(
    dag_id: Name, run_id: Name, task_id: Name, map_index: MapIndex, session_id: SessionId, live: Live
) -> Response:
    """Return how many jobs of this task's session would run, or never run, if it were ended now."""
    conn_id, _ = await asyncio.to_thread(_find, (dag_id, run_id, task_id, map_index), session_id)
    return await _counts(live, conn_id, session_id)


@router.post(
    _TASK + "/sessions/{session_id}",
    dependencies=[
        access.same_origin,
        access.edit_task,
        Depends(action_logging("ibm_quantum.end_session")),
    ],
)
async def end_session(
    dag_id: Name,
    run_id: Name,
    task_id: Name,
    map_index: MapIndex,
    session_id: SessionId,
    body: EndSession,
    live: Live,
) -> Response:
    """Drain or close a session of this task; answers 202 while that is not confirmed."""
    place = (dag_id, run_id, task_id, map_index)
    found = await asyncio.to_thread(_entries, [session_id])
    if [entry.place for entry in found] != [place]:
        raise HTTPException(404, "No open session of this task has this id")
    return await _end(live, found[0].owner.conn_id, session_id, body)


@router.get("/dags/{dag_id}/runs/{run_id}", dependencies=[access.read_dag_run])
def read_run(dag_id: Name, run_id: Name, session: SessionDep) -> Response:
    """Return the records of a run's sessions, its open sessions, and the last runs of the Dag."""
    entries = [entry for entry in records.entries(session) if entry.place[:2] == (dag_id, run_id)]
    return _json(
        {
            "records": records.run_records(session, dag_id, run_id),
            "open": [_row(entry, {}, False) for entry in entries],
            "trend": records.trend(session, dag_id, run_id),
        }
    )


@router.get(_TASK, dependencies=[access.read_dag_run])
def read_task(
    dag_id: Name, run_id: Name, task_id: Name, map_index: MapIndex, session: SessionDep
) -> Response:
    """Return a task's sessions and results, and those of the run before."""
    place = (dag_id, run_id, task_id, map_index)
    entries = [entry for entry in records.entries(session) if entry.place == place]
    previous = records.previous_run(session, *place)
    return _json(
        {
            "records": records.run_records(session, *place),
            "open": [_row(entry, {}, False) for entry in entries],
            "results": _results(session, *place),
            "previous": previous
            and {"run_id": previous, **_results(session, dag_id, previous, task_id, map_index)},
        }
    )


@router.get("/records")
def list_records(user: User, session: SessionDep, before: Number = None, q: Text = "") -> Response:
    """Return a page of past sessions of readable Dags, the newest first."""
    found, following = records.past_records(
        session, access.readable_dags(user), before, RECORDS_PER_PAGE, q.strip()
    )
    return _json({"records": found, "next": following})


@router.get("/connections")
def list_connections(user: User, session: SessionDep) -> Response:
    """Return the ids of the connections that the user may see."""
    found = access.readable_connections(user) & records.connection_ids(session)
    return _json({"connections": sorted(found)})


@router.get("/connections/{connection_id}/workloads", dependencies=[access.read_connection])
async def list_workloads(connection_id: Name, user: User, live: Live) -> Response:
    """Return the open sessions of a connection's API key, with the sweep's verdict on each."""
    (workloads, error), console = await asyncio.gather(
        live.workloads(connection_id), live.console(connection_id)
    )

    def judge() -> list[dict[str, Any]]:
        with create_session() as session:
            entries = records.entries(session, [workload.id for workload in workloads])
            states = records.owner_states(session, entries)
        found, readable = {entry.session_id: entry for entry in entries}, access.readable_dags(user)
        rows = []
        for workload in workloads:
            entry = found.get(workload.id)
            is_active = entry is not None and states[entry.place]["active"]
            verdict = decide(
                workload.accepting_jobs is not False,
                entry.owner if entry else None,
                time.time() - workload.created.timestamp() if workload.created else 0.0,
                scope=SweepScope.AIRFLOW,
                min_age=SWEEP_MIN_AGE,
                is_active=is_active,
            )
            rows.append(
                {
                    "id": workload.id,
                    "backend": workload.backend,
                    "mode": workload.mode,
                    "status": workload.status,
                    "opened": workload.created.timestamp() if workload.created else None,
                    "billed": workload.usage.qpu_charge_time_seconds if workload.usage else None,
                    "owner": str(entry.owner) if entry and entry.owner.dag_id in readable else None,
                    "is_owned": entry is not None,
                    "verdict": str(verdict),
                    "console": console(workload.id),
                }
            )
        return rows

    return _json({"workloads": await asyncio.to_thread(judge), "error": error})


@router.get("/connections/{connection_id}/sessions/{session_id}/jobs", dependencies=[access.read_connection])
async def count_unowned_jobs(connection_id: Name, session_id: SessionId, live: Live) -> Response:
    """Return how many jobs of a session that no task owns would run, or never run, if it were ended now."""
    await asyncio.to_thread(_refuse_owned, session_id)
    return await _counts(live, connection_id, session_id)


@router.post(
    "/connections/{connection_id}/sessions/{session_id}",
    dependencies=[
        access.same_origin,
        access.edit_connection,
        Depends(action_logging("ibm_quantum.end_unowned_session")),
    ],
)
async def end_unowned_session(
    connection_id: Name, session_id: SessionId, body: EndSession, live: Live
) -> Response:
    """Drain or close a session that no task of this Airflow owns; answers 202 while not confirmed."""
    await asyncio.to_thread(_refuse_owned, session_id)
    return await _end(live, connection_id, session_id, body)


async def _counts(live: LiveSessions, conn_id: str, session_id: str) -> Response:
    _refuse_invalid(session_id)
    return _json({"jobs": await live.job_counts_now(conn_id, session_id)})


async def _end(live: LiveSessions, conn_id: str, session_id: str, body: EndSession) -> Response:
    _refuse_invalid(session_id)
    if body.session_id != session_id:
        raise HTTPException(422, "session_id in the body is another one than in the path")
    if not live.is_enabled():
        raise HTTPException(403, "Airflow's configuration says [ibm_quantum] ui_live = False")
    outcome = await live.end(conn_id, session_id, body.action)
    outcome["console"] = (await live.console(conn_id))(session_id)
    status = 200 if outcome["confirmed"] else 502 if outcome["error"] else 202
    return _json(outcome, status)


def _entries(session_ids: list[str]) -> list[records.Entry]:
    # In a session of its own, which is closed before IBM is asked: connections to the database are few.
    with create_session() as session:
        return records.entries(session, session_ids)


def _refuse_owned(session_id: str) -> None:
    if _entries([session_id]):
        raise HTTPException(409, "This session belongs to a task: end it among the open sessions")


def _refuse_invalid(session_id: str) -> None:
    try:
        validate_id(session_id)
    except ConfigurationError as error:
        raise HTTPException(422, error.message) from error


def _find(place: tuple[str, str, str, int], session_id: str) -> tuple[str, dict[str, Any] | None]:
    """
    Return the connection and the record of a session that this task owns.

    :raises HTTPException: If neither entry nor record says that it does.
    """
    for entry in _entries([session_id]):
        if entry.place == place:
            return entry.owner.conn_id, None
    with create_session() as session:
        for record in records.run_records(session, *place):
            if record["session_id"] == session_id and isinstance(record.get("conn_id"), str):
                return record["conn_id"], record
    raise HTTPException(404, "No session of this task has this id")


def _row(entry: records.Entry, states: dict[str, Any], may_end: bool) -> dict[str, Any]:
    owner = entry.owner
    return {
        "id": entry.session_id,
        "conn_id": owner.conn_id,
        "dag_id": owner.dag_id,
        "run_id": owner.run_id,
        "task_id": owner.task_id,
        "map_index": owner.map_index,
        "opened": owner.opened,
        "may_end": may_end,
        **states,
    }


def _results(session: Any, dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    try:
        return results.shown_reports(records.returned_value(session, dag_id, run_id, task_id, map_index))
    except ValueError as error:
        return {"reports": [], "left_out": 0, "curve": None, "error": str(error)}


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse({**content, "now": time.time()}, status, headers=_HEADERS)
