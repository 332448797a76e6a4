# SPDX-License-Identifier: Apache-2.0
"""Who may see and end what, and what a route tells."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from airflow_provider_ibm_sessions.links import console_url
from airflow_provider_ibm_sessions.plugins._page import live as policy
from airflow_provider_ibm_sessions.plugins._page.live import LiveSessions
from testing.airflow_runs import create_dag_run
from testing.connections import connection_to
from testing.fake_ibm import Fault

GUARDED = {"X-IBM-Quantum-Page": "1"}


def paths(page):
    place = page.path.partition("/sessions/")[0]
    return [
        "sessions",
        f"live?id={page.session_id}",
        page.path,
        f"{page.path}/jobs",
        place,
        place.partition("/tasks/")[0],
        "records",
        "connections",
        "connections/ibm_quantum_default/workloads",
        "../static/page.js",
        "../static/page.css",
    ]


def test_nobody_sees_anything_without_signing_in(page):
    for path in [*paths(page), "nothing", "../openapi.json", "../docs", "../redoc"]:
        assert page.ask("GET", path, role=None).status_code in (401, 404), path
    assert [page.ask("GET", path, role=None).status_code for path in paths(page)] == [401] * 11
    assert page.end(role=None).status_code == 401
    assert (
        page.end(role=None, path=f"connections/ibm_quantum_default/sessions/{page.session_id}").status_code
        == 401
    )
    assert page.ibm.requests() == []


def test_there_is_no_description_of_the_routes(page):
    assert [page.ask("GET", f"../{name}").status_code for name in ("openapi.json", "docs", "redoc")] == [
        404
    ] * 3


def test_a_viewer_sees_the_open_session(page):
    found = page.ask("GET", "sessions", "viewer").json()
    [row] = [row for row in found["sessions"] if row["id"] == page.session_id]
    assert (row["dag_id"], row["task_id"], row["run"], row["active"]) == (
        page.dag_id,
        "opens",
        "running",
        True,
    )
    assert row["may_end"] is False
    [row] = [row for row in page.ask("GET", "sessions").json()["sessions"] if row["id"] == page.session_id]
    assert row["may_end"] is True


def test_a_viewer_ends_nothing(page):
    assert page.end(role="viewer").status_code == 403
    assert page.ibm.sessions[page.session_id].state == "active"
    elsewhere = f"connections/ibm_quantum_default/sessions/{page.session_id}"
    assert page.end(role="user", path=elsewhere).status_code == 403
    assert page.ask("GET", "connections/ibm_quantum_default/workloads", "user").status_code == 403


def test_live_details_come_from_ibm(page):
    found = page.ask("GET", f"live?id={page.session_id}&id=unknown").json()
    assert list(found["sessions"]) == [page.session_id]
    session = found["sessions"][page.session_id]
    assert session["state"] == "active"
    assert session["jobs"].pop("at") > 0
    assert session["jobs"] == {"done": 0, "failed": 0, "queued": 0, "running": 0, "qpu_seconds": 0}
    assert list(found["connections"]) == ["ibm_quantum_default"]


def test_details_have_the_jobs(page):
    found = page.ask("GET", page.path, "viewer").json()
    assert found["session"]["state"] == "active"
    assert found["jobs"] == []
    assert page.session_id in found["console"]


def test_a_session_of_an_emulator_leads_to_the_emulator(page, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(page.ibm, emulator=True))
    found = page.ask("GET", page.path).json()["console"]
    assert found == f"{page.ibm.url.removesuffix('/api')}/workloads?search={page.session_id}"
    # Another process of the API server has not read the connection yet.
    page.client.app.routes[-1].app.state.live = LiveSessions()
    assert page.end().json()["console"] == found


def test_jobs_are_counted_for_the_dialog(page):
    found = page.ask("GET", f"{page.path}/jobs", "viewer").json()["jobs"]
    assert (found["queued"], found["running"]) == (0, 0)
    assert found["at"] > 0
    assert page.ask("GET", f"{page.path.replace('/tasks/opens/', '/tasks/another/')}/jobs").status_code == 404


def test_jobs_of_what_nobody_owns_are_counted_for_who_sees_the_connection(page):
    stranger = page.ibm.add_session(state="active").id
    route = f"connections/ibm_quantum_default/sessions/{stranger}/jobs"
    assert page.ask("GET", route).json()["jobs"]["queued"] == 0
    assert page.ask("GET", route, "user").status_code == 403
    assert page.ask("GET", route, role=None).status_code == 401
    assert page.ask("GET", route.replace(stranger, page.session_id)).status_code == 409
    assert page.ask("GET", route.replace(stranger, "a%20b")).status_code in (404, 422)


def test_a_session_that_ibm_no_longer_knows_is_shown_from_its_record(page):
    owner = {"dag_id": page.dag_id, "run_id": page.run_id, "task_id": "opens", "map_index": -1}
    record = {"session_id": "gone", "conn_id": "ibm_quantum_default", "owner": owner, "billed": 12.5}
    record |= {"spans": [["active", 100.0], ["closed", 160.0]], "price_per_second": 2.0, "currency": "EUR"}
    page.keep({**record, "jobs": {"Completed": 2}, "closed_by": "a test"})
    found = page.ask("GET", page.path.replace(page.session_id, "gone"), "viewer").json()
    session = found["session"]
    assert (session["state"], session["closed"], session["billed"]) == ("closed", 160.0, 12.5)
    assert session["error"]
    assert (found["price"], found["currency"], found["ended_by"]) == (2.0, "EUR", "a test")
    assert (found["is_recorded"], found["jobs_are_known"]) == (True, False)


@pytest.mark.parametrize(
    "spans", [None, 5, "text", [1, [], ["active"], ["active", "soon"], [{}, 1.0], ["active", True]], {"a": 1}]
)
def test_a_malformed_record_is_shown_without_its_states(page, spans):
    owner = {"dag_id": page.dag_id, "run_id": page.run_id, "task_id": "opens", "map_index": -1}
    page.keep({"session_id": "odd", "conn_id": "ibm_quantum_default", "owner": owner, "spans": spans})
    found = page.ask("GET", page.path.replace(page.session_id, "odd"))
    assert found.status_code == 200
    assert found.json()["session"]["spans"] == []


def test_what_no_browser_can_draw_of_a_record_is_left_out(page):
    """Tasks can write whatever they like: JSON has no infinity, and React draws no objects."""
    owner = {"dag_id": page.dag_id, "run_id": page.run_id, "task_id": "opens", "map_index": -1}
    numbers = ["billed", "qpu_seconds", "price_per_second", "opened", "max_ttl", "try_number"]
    texts = ["reason", "backend", "mode", "closed_by", "currency"]
    page.keep(
        {
            "session_id": "odd",
            "conn_id": "ibm_quantum_default",
            "owner": {**owner, "more": float("nan")},
            "spans": [
                ["active", float("nan")],
                ["active", float("-inf")],
                ["active", 10**400],
                ["active", 5],
            ],
            "jobs": {"Completed": 2, "Failed": float("inf")},
            **dict.fromkeys(numbers, float("inf")),
            **{name: {"an": "object"} for name in texts},
            "more": float("nan"),
        }
    )
    run = page.path.partition("/tasks/")[0]
    for path in (f"records?q={page.dag_id}", run, page.path.partition("/sessions/")[0]):
        [record] = page.ask("GET", path).json()["records"]
        assert {record[name] for name in [*numbers, *texts]} == {None}
        assert (record["owner"], record["jobs"], record["spans"]) == (
            owner,
            {"Completed": 2},
            [["active", 5]],
        )
    details = page.ask("GET", page.path.replace(page.session_id, "odd")).json()
    assert (details["session"]["spans"], details["ended_by"], details["price"]) == (
        [["active", 5]],
        None,
        None,
    )


def test_a_record_without_a_price_has_none(page, monkeypatch):
    """Today's price of the connection is another one."""
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(page.ibm, price_per_second=1.6))
    owner = {"dag_id": page.dag_id, "run_id": page.run_id, "task_id": "opens", "map_index": -1}
    page.keep({"session_id": "old", "conn_id": "ibm_quantum_default", "owner": owner, "billed": 12.5})
    assert page.ask("GET", page.path).json()["price"] == 1.6
    assert page.ask("GET", page.path.replace(page.session_id, "old")).json()["price"] is None


@pytest.mark.parametrize("fault", [{"status": 403}, {"delay": 60.0}])
def test_jobs_that_have_not_been_read_are_unknown_and_not_none(page, monkeypatch, fault):
    if "delay" in fault:
        monkeypatch.setattr(policy, "ROUTE_SECONDS", 0.3)
    page.ibm.script(Fault("GET", "/v1/jobs", times=None, **fault))
    found = page.ask("GET", page.path).json()
    page.ibm.clear_faults()
    assert bool(found["jobs_error"]) == ("status" in fault)
    assert (found["counts"], found["session"]["jobs"], found["jobs_are_known"]) == (None, None, False)


def test_a_session_of_another_task_is_not_found(page):
    elsewhere = page.path.replace("/tasks/opens/", "/tasks/another/")
    assert page.ask("GET", elsewhere).status_code == 404
    assert page.end(path=elsewhere).status_code == 404
    assert page.end(path=page.path.replace("/-1/", "/3/")).status_code == 404
    assert page.ibm.sessions[page.session_id].state == "active"


@pytest.mark.parametrize(("action", "state"), [("close", "closed"), ("drain", "inactive")])
def test_ending_is_confirmed_and_audited(page, action, state):
    ended = page.end(action)
    assert ended.status_code == 200, ended.text
    assert ended.json()["confirmed"] is True
    assert page.ibm.sessions[page.session_id].state in (state, "closed")
    assert page.ibm.sessions[page.session_id].accepts_jobs is False
    if action == "close":
        assert page.entry(page.session_id) is None
    entry = last_audit_entry()
    assert (entry.event, entry.owner) == ("ibm_quantum.end_session", "the admin")
    assert (entry.dag_id, entry.run_id, entry.task_id) == (page.dag_id, page.run_id, "opens")
    assert json.loads(entry.extra)["session_id"] == page.session_id


def last_audit_entry():
    from airflow.models import Log
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        entry = session.scalars(select(Log).order_by(Log.id.desc()).limit(1)).one()
        session.expunge_all()
    return entry


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-IBM-Quantum-Page": "1", "Sec-Fetch-Site": "same-site"},
        {"X-IBM-Quantum-Page": "1", "Sec-Fetch-Site": "cross-site"},
        {"X-IBM-Quantum-Page": "1", "Content-Type": "text/plain"},
        {"X-IBM-Quantum-Page": "1", "Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_a_request_that_another_page_may_have_caused_is_refused(page, headers):
    assert page.end(headers=headers).status_code in (403, 422)
    assert page.ibm.requests() == []


def test_a_body_that_names_another_session_is_refused(page):
    assert page.end(session_id="another").status_code == 422
    assert page.end("delete").status_code == 422
    assert page.ibm.requests() == []


@pytest.mark.parametrize("session_id", ["a%2Fb", "%00", "None", "x" * 101, "%3Cscript%3E", "a?b=c"])
def test_a_hostile_id_reaches_nothing(page, session_id):
    path = page.path.replace(page.session_id, session_id)
    assert page.ask("GET", path).status_code in (404, 422)
    assert page.end(path=path, session_id=session_id).status_code in (404, 405, 422)
    for way in ("GET", "POST"):
        path = f"connections/ibm_quantum_default/sessions/{session_id}"
        assert (
            page.ask(
                way, path, json={"action": "close", "session_id": session_id}, headers=GUARDED
            ).status_code
            >= 400
        )
    assert page.ibm.requests("DELETE") == []
    assert page.ask("GET", f"live?id={session_id}").status_code in (200, 422)


def test_only_ibms_word_confirms(page):
    page.ibm.script(Fault("DELETE", "/v1/sessions/*", status=403, times=None))
    page.ibm.script(Fault("PATCH", "/v1/sessions/*", status=403, times=None))
    ended = page.end()
    assert ended.status_code == 502
    assert ended.json()["confirmed"] is False
    assert "may still be open" in ended.json()["error"]
    assert page.ibm.sessions[page.session_id].state == "active"
    assert page.entry(page.session_id) is not None


def test_what_nobody_owns_has_the_sweeps_verdict(page):
    stranger = page.ibm.add_session(state="active").id
    found = page.ask("GET", "connections/ibm_quantum_default/workloads").json()
    verdicts = {each["id"]: each["verdict"] for each in found["workloads"]}
    assert verdicts[stranger] == "not opened by this Airflow"
    assert verdicts[page.session_id] == "belongs to an active run"
    owned = f"connections/ibm_quantum_default/sessions/{page.session_id}"
    assert page.end(path=owned).status_code == 409
    ended = page.end(path=owned.replace(page.session_id, stranger), session_id=stranger)
    assert ended.json()["confirmed"] is True
    assert page.ibm.sessions[stranger].state == "closed"


def test_a_failing_secrets_backend_is_asked_once_for_all_links(page, monkeypatch):
    asked = []

    class Failing:
        def get_connection(self, conn_id):
            asked.append(conn_id)
            raise TimeoutError

    for _ in range(8):
        page.ibm.add_session(state="active")
    route = "connections/ibm_quantum_default/workloads"
    known = page.ask("GET", route).json()["workloads"]
    monkeypatch.setattr(policy, "CREDENTIALS_SECONDS", -1.0)  # what was read of the connection is too old
    monkeypatch.setattr(policy, "FRESH_SECONDS", 3600.0)
    monkeypatch.setattr(
        "airflow_provider_ibm_sessions.cli.metastore.ensure_secrets_loaded", lambda: [Failing()]
    )
    found = page.ask("GET", route).json()["workloads"]
    assert [each["id"] for each in found] == [each["id"] for each in known]
    assert len(found) >= 9
    assert all(each["console"] == console_url(each["id"]) for each in found)
    assert asked == ["ibm_quantum_default"]


def test_a_failing_ibm_is_asked_no_more_for_a_while(page):
    page.ibm.script(Fault("GET", "/v1/sessions/*", status=400, times=None))
    for _ in range(3):
        found = page.ask("GET", f"live?id={page.session_id}").json()["sessions"][page.session_id]
        assert found["error"]
    assert len(page.ibm.requests("GET", "/v1/sessions/*")) == 1


def test_what_ibm_does_not_know_is_not_asked_for_at_each_poll(page):
    page.register("gone")
    for _ in range(3):
        assert page.ask("GET", "live?id=gone").json()["sessions"]["gone"]["error"]
    assert len(page.ibm.requests("GET", "/v1/sessions/gone")) == 1


def test_a_click_reads_a_session_and_its_jobs_again_and_polls_do_so_more_rarely(page):
    page.client.app.routes[-1].app.state.live = LiveSessions(page.ibm.clock.now)
    page.ibm.clock.frozen = True
    asked = []
    for query in ("?clicked=true", "", "?clicked=true", "", "?clicked=true"):
        assert page.ask("GET", page.path + query).json()["session"]["state"] == "active"
        asked.append(tuple(len(page.ibm.requests("GET", f"/v1/{each}")) for each in ("sessions/*", "jobs")))
        page.ibm.clock.advance(policy.CLICKED_SECONDS + 1)
    assert asked == [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3)]


def test_ui_live_false_never_asks_ibm(page, monkeypatch):
    monkeypatch.setenv("AIRFLOW__IBM_QUANTUM__UI_LIVE", "False")
    assert page.ask("GET", "sessions").json()["live"] is False
    assert page.ask("GET", f"live?id={page.session_id}").json()["sessions"] == {page.session_id: {}}
    assert page.ask("GET", page.path).status_code == 200
    assert page.ask("GET", "connections/ibm_quantum_default/workloads").status_code == 200
    assert page.end().status_code == 403
    assert page.ibm.requests() == []


def test_records_are_shown_for_the_owners_dag_only(page):
    """A sweep keeps the records of other Dags' sessions: the owner in the record decides."""
    owner = {"dag_id": page.dag_id, "run_id": page.run_id, "task_id": "opens", "map_index": -1}
    page.keep({"session_id": "past", "conn_id": "ibm_quantum_default", "owner": owner, "billed": 12.5})
    foreign = {**owner, "dag_id": "no_dag_of_this_airflow"}
    page.keep({"session_id": "foreign", "conn_id": "ibm_quantum_default", "owner": foreign})
    page.keep({"session_id": 7, "owner": owner})
    listed = [each["session_id"] for each in page.ask("GET", "records", "viewer").json()["records"]]
    assert "past" in listed
    assert "foreign" not in listed
    run = page.ask("GET", page.path.partition("/tasks/")[0], "viewer").json()
    assert [each["session_id"] for each in run["records"]] == ["past"]
    assert [each["id"] for each in run["open"]] == [page.session_id]
    assert [each["billed"] for each in run["trend"][-1]["records"]] == [12.5]
    assert page.ask("GET", page.path.replace(page.session_id, "foreign")).status_code == 404


def test_past_sessions_come_by_page(page):
    owner = {"dag_id": page.dag_id, "run_id": page.run_id, "task_id": "opens", "map_index": -1}
    for number in range(30):
        page.keep({"session_id": f"past-{number}", "owner": owner})
    first = page.ask("GET", "records?q=past-").json()
    second = page.ask("GET", f"records?q=past-&before={first['next']}").json()
    listed = [each["session_id"] for each in first["records"] + second["records"]]
    assert listed == [f"past-{number}" for number in range(29, -1, -1)]
    assert second["next"] is None
    assert page.ask("GET", "records?q=%25past").json()["records"] == []


def test_five_hundred_sessions_come_by_page(page):
    for number in range(120):
        page.register(f"s{number}", opened=number)
    found = page.ask("GET", "sessions?limit=100").json()
    assert found["total"] >= 121
    assert len(found["sessions"]) == 100
    assert page.ask("GET", "sessions?limit=101").status_code == 422
    searched = page.ask("GET", "sessions?q=S119").json()
    assert [row["id"] for row in searched["sessions"]] == ["s119"]


def test_no_answer_holds_a_secret(page):
    texts = [page.ask("GET", path).text for path in paths(page)] + [page.end().text]
    secrets = [page.ibm.api_key, *(token.value for token in page.ibm.tokens)]
    assert [secret for secret in secrets for text in texts if secret in text] == []
    assert all("signature" not in text for text in texts[:8])


def test_scripts_are_asked_for_again_and_sent_when_changed(page):
    first = page.ask("GET", "../static/numbers.js")
    assert first.headers["content-type"].startswith("text/javascript")
    again = page.ask("GET", "../static/numbers.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert page.ask("GET", "../static/..%2Fapp.py").status_code == 404


def test_numbers_and_texts_that_no_database_takes_are_refused(page):
    place = page.path.partition("/-1/")[0]
    wrong = [
        f"{place}/{10**30}",
        f"{place}/-2",
        f"sessions?offset={10**30}",
        "sessions?limit=0",
        "sessions?q=%00",
    ]
    wrong += [f"records?before={10**30}", "records?before=0", "records?q=%00", "live?id=%00", "live"]
    wrong += ["live?" + "&".join(["id=a"] * 101)]
    assert [path for path in wrong if page.ask("GET", path).status_code != 422] == []


def test_without_a_task_state_store_the_records_are_xcoms(page, monkeypatch):
    """As in Airflow 3.1 and 3.2."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    place = {"dag_id": page.dag_id, "run_id": page.run_id, "task_id": "opens"}
    record = {
        "session_id": "kept",
        "owner": {**place, "map_index": -1},
        "billed": 7.0,
        "price_per_second": 2.0,
    }
    details = {"id": "pushed", "state": "closed", "elapsed_time": 33.0, "backend_name": "ibm_fez"}
    with create_session() as session:
        for key, value in (("ibm_quantum_record_kept", record), ("session", details)):
            XComModel.set(key=key, value=value, session=session, **place)
    monkeypatch.setattr("airflow_provider_ibm_sessions.plugins._page.records.TaskStateStoreModel", None)
    task = page.path.partition("/sessions/")[0]
    for path in (task, task.partition("/tasks/")[0]):
        found = page.ask("GET", path, "viewer").json()["records"]
        assert [(each["session_id"], each["billed"]) for each in found] == [("kept", 7.0), ("pushed", 33.0)]
    trend = page.ask("GET", task.partition("/tasks/")[0]).json()["trend"]
    assert [len(run["records"]) for run in trend] == [2]
    [past] = page.ask("GET", f"records?q={page.dag_id}", "viewer").json()["records"]
    assert (past["session_id"], past["billed"]) == ("kept", 7.0)


def test_without_a_task_state_store_past_sessions_come_by_page(page, dag, monkeypatch):
    """Those of a run stay together: here are ten runs with three each, and one of another Dag's session."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    kept = []
    for number in range(10):
        run_id = f"past_{number}"
        create_dag_run(dag, run_id, datetime(2026, 1, 1 + number, tzinfo=UTC))
        place = {"dag_id": page.dag_id, "run_id": run_id, "task_id": "opens"}
        with create_session() as session:
            for each in range(3):
                record = {"session_id": f"past-{number}-{each}", "owner": place}
                XComModel.set(
                    key=f"ibm_quantum_record_{number}_{each}", value=record, session=session, **place
                )
                kept.append(record["session_id"])
            foreign = {"session_id": "past-foreign", "owner": {**place, "dag_id": "no_dag_of_this_airflow"}}
            XComModel.set(key="ibm_quantum_record_foreign", value=foreign, session=session, **place)
    monkeypatch.setattr("airflow_provider_ibm_sessions.plugins._page.records.TaskStateStoreModel", None)
    first = page.ask("GET", "records?q=past-").json()
    second = page.ask("GET", f"records?q=past-&before={first['next']}").json()
    assert len(first["records"]) == 27
    listed = [each["session_id"] for each in first["records"] + second["records"]]
    assert sorted(listed) == sorted(kept)
    assert listed[0].startswith("past-9-")
    assert second["next"] is None
