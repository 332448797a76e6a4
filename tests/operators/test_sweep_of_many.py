# SPDX-License-Identifier: Apache-2.0
"""A sweep of many sessions asks Airflow and IBM little, and closes nothing on knowledge that is old."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from airflow.sdk import DAG, Variable, task
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms

from airflow_provider_ibm_sessions.cli.metastore import MetastoreSessionRegistry
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_registry import COPY_KEY, PREFIX
from testing.dag_tasks import decision_counts, decisions, own, registered_sessions, sweep
from testing.fake_ibm import Fault
from testing.session_requests import is_open

CONN = "ibm_quantum_default"
HOUR = 3600
NO_RETRIES = {"retries": 0}
ACTIVE = "belongs to an active run"
GONE = SessionOwner(CONN, "gone", "gone", "gone")


@pytest.fixture(autouse=True)
def _empty_registry(connection, airflow_db):
    from airflow.models.variable import Variable

    for session_id in registered_sessions():
        Variable.delete(PREFIX + session_id)
    Variable.delete(COPY_KEY)


@pytest.fixture
def asked(monkeypatch):
    """What Airflow's API was asked for by each task in turn, by the kind of the request."""
    seen, send, execute = [], InProcessSupervisorComms.send, task_runner._execute_task

    def note_task(context, ti, *args, **kwargs):
        seen.append(Counter())
        return execute(context, ti, *args, **kwargs)

    def note(comms, msg):
        if seen:
            seen[-1][type(msg).__name__] += 1
        return send(comms, msg)

    monkeypatch.setattr(task_runner, "_execute_task", note_task)
    monkeypatch.setattr(InProcessSupervisorComms, "send", note)
    return seen


def planted(ibm, count, **kwargs):
    return [ibm.add_session(**{"age": HOUR, **kwargs}).id for _ in range(count)]


def owned(run, session_ids, name="ended", **kwargs):
    """Register the sessions for a run that has ended."""
    with DAG(name, schedule=None, default_args=NO_RETRIES) as dag:
        own(session_ids, **kwargs)
    assert run(dag).state == "success"
    return session_ids


def swept(run, name="sweeper", **kwargs):
    with DAG(name, schedule=None, default_args=NO_RETRIES) as dag:
        sweep(**kwargs)
    return run(dag)


def test_of_sessions_in_use_none_is_read_and_their_owner_is_asked_about_once(ibm, run, asked, output):
    mine = planted(ibm, 40)
    with DAG("live", schedule=None, default_args=NO_RETRIES) as dag:
        own(mine) >> sweep() >> sweep(task_id="later")
    result = run(dag)
    for task_id in ("sweep", "later"):
        assert result.xcom(task_id) == {"counts": {ACTIVE: 40}, "sessions": []}
    assert ibm.requests("GET", "/v1/sessions/*") == []
    assert all(is_open(ibm, session_id) for session_id in mine)
    _, first, later = asked
    assert (first["GetDRCount"], later["GetDRCount"]) == (1, 1)
    assert first["GetVariable"] >= 40
    assert later["GetVariable"] == 1, "the copy of what the first sweep has read"
    assert (first["PutVariable"], later["PutVariable"]) == (1, 0)
    assert "40 sessions were open, 0 of them are closed now; belongs to an active run: 40" in output()


def test_the_log_tells_of_all_that_are_not_in_use(ibm, run, output):
    mine, foreign = planted(ibm, 1), planted(ibm, 1)
    with DAG("live", schedule=None, default_args=NO_RETRIES) as dag:
        own(mine) >> sweep()
    run(dag)
    told = output()
    assert f"Session {foreign[0]} (dedicated) on ibm_fez" in told
    assert f"Session {mine[0]} " not in told


def test_ten_times_ten_are_closed(ibm, run):
    orphans = owned(run, planted(ibm, 30) + planted(ibm, 5, mode="batch"))
    result = swept(run)
    assert result.state == "success"
    assert [name for name in orphans if is_open(ibm, name)] == []
    assert registered_sessions() == []
    assert {report["closed"] for report in result.xcom("sweep")["sessions"]} == {True}
    assert sorted(decisions(result)) == sorted(orphans)


def test_one_that_cannot_be_closed_among_many_is_named(ibm, run, quick, monkeypatch):
    monkeypatch.setattr("airflow_provider_ibm_sessions.client.closing._DELAY", 0.01)
    orphans = owned(run, planted(ibm, 25))
    for method in ("DELETE", "PATCH"):
        ibm.script(Fault(method, f"/v1/sessions/{orphans[3]}*", status=403, times=None))
    result = swept(run)
    assert result.state == "failed"
    assert [name for name in orphans if is_open(ibm, name)] == [orphans[3]] == registered_sessions()


def test_the_owners_of_many_runs_are_told_apart(ibm, run):
    orphans, mine = owned(run, planted(ibm, 12)), planted(ibm, 12)
    with DAG("live", schedule=None, default_args=NO_RETRIES) as dag:
        own(mine) >> sweep()
    assert decision_counts(run(dag)) == {ACTIVE: 12, "orphaned": 12}
    assert [name for name in (*orphans, *mine) if is_open(ibm, name)] == mine


def test_mapped_tasks_are_told_apart(ibm, run):
    """One that has finished makes no orphan of what a task with the name "a_0" has opened."""
    finished, alike = planted(ibm, 2)
    key = ibm.api_key

    @task
    def register(**context):
        owner = SessionOwner(CONN, "mapped", context["run_id"], "a_0", opened=time.time() - HOUR)
        Variable.set(PREFIX + alike, owner.signed(alike, key).to_json())

    with DAG("mapped", schedule=None, default_args=NO_RETRIES) as dag:
        mapped = own.override(task_id="a").partial(dag_run_scoped=False).expand(session_ids=[[finished]])
        register() >> mapped >> sweep()
    result = run(dag)
    assert (is_open(ibm, finished), is_open(ibm, alike)) == (False, True)
    assert decision_counts(result) == {"orphaned": 1, ACTIVE: 1}


def stored_copy():
    from airflow.models.variable import Variable

    return Variable.get(COPY_KEY, default_var=None)


def write(ibm, session_id, owner, key=None):
    from airflow.models.variable import Variable

    Variable.set(PREFIX + session_id, owner.signed(session_id, key or ibm.api_key).to_json())


def test_an_entry_that_was_copied_is_read_again_before_its_session_is_closed(ibm, run):
    """By now the session is another task's, whose run is active."""
    taken, *orphans = owned(run, planted(ibm, 30))
    assert decision_counts(swept(run, min_age="2h")) == {"too recent": 30}
    assert stored_copy()
    with DAG("live", schedule=None, default_args=NO_RETRIES) as dag:
        own([taken]) >> sweep()
    result = run(dag)
    assert is_open(ibm, taken)
    assert [name for name in orphans if is_open(ibm, name)] == []
    assert decision_counts(result) == {"orphaned": 29, ACTIVE: 1}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', json.dumps({"x": "y"})])
def test_a_copy_that_is_no_copy_is_written_again(ibm, run, text):
    from airflow.models.variable import Variable

    Variable.set(COPY_KEY, text)
    orphans = owned(run, planted(ibm, 25))
    assert swept(run).state == "success"
    assert [name for name in orphans if is_open(ibm, name)] == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_dry_run_stores_no_copy(ibm, run, dry_run):
    owned(run, planted(ibm, 25))
    assert swept(run, dry_run=dry_run).state == "success"
    assert (stored_copy() is None) is dry_run


@pytest.mark.parametrize("text", ["10m", None], ids=["unreadable", "of an earlier key"])
def test_a_copy_does_not_hide_an_entry_that_was_written_again(ibm, run, text):
    from airflow.models.variable import Variable

    orphans = planted(ibm, 25)
    for session_id in orphans:
        entry = GONE.signed(session_id, "an earlier key").to_json()
        Variable.set(PREFIX + session_id, text or entry)
    assert swept(run).state == "failed"
    assert all(is_open(ibm, session_id) for session_id in orphans)
    for session_id in orphans:
        write(ibm, session_id, GONE)
    assert swept(run).state == "success"
    assert [session_id for session_id in orphans if is_open(ibm, session_id)] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"opened": float("nan")},
        {"opened": 10**400},
        {"map_index": 10**30},
        {"dag_id": "a\x00b"},
        {"run_id": "\ud800"},
    ],
    ids=["not a time", "too late", "too large", "NUL", "half a character"],
)
def test_an_entry_that_no_database_takes_does_not_keep_the_others(ibm, run, fields):
    """It is of another connection, whose key cannot be checked."""
    from airflow.models.variable import Variable

    odd, orphan = planted(ibm, 2)
    entry = json.loads(SessionOwner("another", "gone", "gone", "gone").to_json())
    Variable.set(PREFIX + odd, json.dumps({**entry, **fields}))
    write(ibm, orphan, GONE)
    result = swept(run)
    assert result.state == "failed"
    assert decisions(result) == {orphan: "orphaned", odd: "its owner cannot be found out"}
    assert (is_open(ibm, odd), is_open(ibm, orphan)) == (True, False)
    with pytest.raises(ValueError, match="not the entry of a session"):
        MetastoreSessionRegistry().get_owner(odd)


def test_a_session_that_is_registered_while_the_sweep_runs_is_not_closed(ibm, run, monkeypatch):
    """It was nobody's when the registry was read."""
    from airflow_provider_ibm_sessions.hooks.session_registry import VariableSessionRegistry

    [late] = planted(ibm, 1)
    read = VariableSessionRegistry.read_entries

    def read_before(self, session_ids, **options):
        entries = read(self, session_ids, **options)
        ti = self._context["ti"]
        write(ibm, late, SessionOwner(CONN, ti.dag_id, ti.run_id, "x", dag_run_scoped=True))
        return entries

    monkeypatch.setattr(VariableSessionRegistry, "read_entries", read_before)
    assert decision_counts(swept(run, scope="user")) == {ACTIVE: 1}
    assert is_open(ibm, late)


@pytest.mark.parametrize("scope", ["airflow", "user", "instance"])
def test_an_entry_of_another_connection_closes_nothing_unless_the_key_is_the_same(ibm, run, scope):
    """Whoever may write variables must not make the sweep close a stranger's session."""
    forged, renamed = planted(ibm, 2)
    owner = SessionOwner("another", "gone", "gone", "gone")
    write(ibm, forged, owner, key="not the key")
    write(ibm, renamed, owner)
    result = swept(run, scope=scope)
    assert result.state == "success"
    assert decision_counts(result) == {"opened with another connection": 1, "orphaned": 1}
    assert (is_open(ibm, forged), is_open(ibm, renamed)) == (True, False)
