# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from airflow.sdk import DAG

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.owner_lookup import ActiveOwners
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX, VariableSessionRegistry
from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from airflow_provider_ibm_sessions.operators.sweep import IBMQuantumSweepSessionsOperator
from testing.connections import connection_to
from testing.dag_tasks import decision_counts, decisions, own, registered_sessions, sweep
from testing.fake_ibm import Fault
from testing.session_requests import is_open

CONN = "ibm_quantum_default"
HOUR = 3600
NO_RETRIES = {"retries": 0}
JOB = {"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0;"]]}}


@pytest.fixture(autouse=True)
def _empty_ledger(connection, airflow_db):
    for session_id in registered_sessions():
        _delete(session_id)


def _delete(session_id):
    from airflow.models.variable import Variable

    Variable.delete(PREFIX + session_id)


def swept(run, name="sweeper", **kwargs):
    with DAG(name, schedule=None, default_args=NO_RETRIES) as dag:
        sweep(**kwargs)
    return run(dag)


def closings(result):
    """Which sessions the sweep's reports say are closed now."""
    return {each["session_id"]: each["closed"] for each in result.xcom("sweep")["sessions"]}


def owned_by_a_run_that_ended(run, ibm, count=1, conn_id=CONN, **kwargs):
    planted = [ibm.add_session(**{"age": HOUR, **kwargs}).id for _ in range(count)]
    with DAG("ended", schedule=None, default_args=NO_RETRIES) as dag:
        own(planted, conn_id=conn_id)
    assert run(dag).state == "success"
    return planted


class TestOrphans:
    def test_what_a_run_has_left_is_closed(self, ibm, run):
        with DAG("forgetful", schedule=None, default_args=NO_RETRIES) as dag:
            IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
        assert run(dag).state == "success"
        [session_id] = registered_sessions()
        time.sleep(1.1)
        result = swept(run, min_age=1)
        assert result.state == "success"
        assert not is_open(ibm, session_id)
        assert registered_sessions() == []
        [report] = result.xcom("sweep")["sessions"]
        assert report["closed"]
        assert report["owner"].startswith("forgetful.create of run manual__")

    def test_batches_as_well_and_over_several_pages(self, ibm, run):
        orphans = owned_by_a_run_that_ended(run, ibm, 60, mode="batch")
        orphans += owned_by_a_run_that_ended(run, ibm, 1, state="active")
        swept(run)
        assert [name for name in orphans if is_open(ibm, name)] == []

    def test_a_dry_run_closes_nothing_and_is_the_default(self, ibm, run, output):
        [orphan] = owned_by_a_run_that_ended(run, ibm)
        with DAG("dry", schedule=None, default_args=NO_RETRIES) as dag:
            IBMQuantumSweepSessionsOperator(task_id="sweep")
        result = run(dag)
        assert decisions(result) == {orphan: "orphaned"}
        assert is_open(ibm, orphan)
        assert registered_sessions() == [orphan]
        assert ibm.requests("DELETE") == []
        assert f"Session {orphan} (dedicated) on ibm_fez" in output()

    def test_the_oldest_come_first(self, ibm, run):
        young = owned_by_a_run_that_ended(run, ibm, age=2 * HOUR)
        old = owned_by_a_run_that_ended(run, ibm, age=5 * HOUR)
        result = swept(run, dry_run=True)
        assert list(decisions(result)) == old + young


class TestLeftAlone:
    def test_the_session_of_a_live_run(self, ibm, run):
        session_id = ibm.add_session(age=HOUR).id
        with DAG("live", schedule=None, default_args=NO_RETRIES) as dag:
            own([session_id]) >> sweep()
        assert decision_counts(run(dag)) == {"belongs to an active run": 1}
        assert is_open(ibm, session_id)

    def test_not_that_of_a_task_that_is_over_in_a_live_run(self, ibm, run):
        session_id = ibm.add_session(age=HOUR).id
        with DAG("live", schedule=None, default_args=NO_RETRIES) as dag:
            own([session_id], dag_run_scoped=False) >> sweep()
        run(dag)
        assert not is_open(ibm, session_id)

    def test_what_this_airflow_has_not_opened(self, ibm, run):
        foreign = ibm.add_session(age=HOUR).id
        assert decision_counts(swept(run)) == {"not opened by this Airflow": 1}
        assert is_open(ibm, foreign)

    def test_what_is_young(self, ibm, run):
        [orphan] = owned_by_a_run_that_ended(run, ibm, age=100)
        assert decision_counts(swept(run, min_age="2m")) == {"too recent": 1}
        assert is_open(ibm, orphan)

    def test_what_drains(self, ibm, run):
        [draining] = owned_by_a_run_that_ended(run, ibm)
        hook, ibm.settings.job_seconds = IBMQuantumHook(), 600
        hook.submit_job("sampler", backend="ibm_fez", params=JOB["params"], session_id=draining)
        hook.update_session(draining, accepting_jobs=False)
        assert decision_counts(swept(run)) == {"accepts no more jobs, and closes itself": 1}
        assert is_open(ibm, draining)

    def test_other_users_sessions(self, ibm, run):
        theirs = ibm.add_session(age=HOUR, user="theirs").id
        assert decision_counts(swept(run, scope="user")) == {}
        assert is_open(ibm, theirs)


class TestScope:
    def test_user_takes_what_other_tools_have_made(self, ibm, run):
        foreign = ibm.add_session(age=HOUR).id
        swept(run, scope="user")
        assert not is_open(ibm, foreign)

    def test_instance_takes_what_others_have_made(self, ibm, run):
        theirs = ibm.add_session(age=HOUR, user="theirs").id
        swept(run, scope="instance")
        assert not is_open(ibm, theirs)

    @pytest.mark.parametrize("scope", ["user", "instance"])
    def test_where_airflow_has_several_teams_it_takes_no_other_teams_sessions(
        self, ibm, run, monkeypatch, output, scope
    ):
        theirs = ibm.add_session(age=HOUR).id
        monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
        assert swept(run, scope=scope).state == "failed"
        assert f"scope must be 'airflow' where Airflow has several teams, got '{scope}'" in output()
        assert is_open(ibm, theirs)

    def test_no_scope_takes_what_is_live(self, ibm, run):
        session_id = ibm.add_session(age=HOUR).id
        with DAG("live", schedule=None, default_args=NO_RETRIES) as dag:
            own([session_id]) >> sweep(scope="instance")
        run(dag)
        assert is_open(ibm, session_id)


class TestTrouble:
    def test_one_that_stays_open_does_not_keep_the_others_and_is_told(self, ibm, run, quick, monkeypatch):
        monkeypatch.setattr("airflow_provider_ibm_sessions.client.closing._DELAY", 0.01)
        stuck, *others = owned_by_a_run_that_ended(run, ibm, 3, state="active")
        for method in ("DELETE", "PATCH"):
            ibm.script(Fault(method, f"/v1/sessions/{stuck}*", status=403, times=1000))
        result = swept(run)
        assert result.state == "failed"
        assert [name for name in others if is_open(ibm, name)] == []
        assert closings(result) == {
            stuck: False,
            **dict.fromkeys(others, True),
        }
        assert stuck in registered_sessions()

    @pytest.mark.parametrize("status", [403, 500])
    def test_one_that_cannot_be_read_does_not_keep_the_others_and_is_told(self, ibm, run, quick, status):
        unread, *others = owned_by_a_run_that_ended(run, ibm, 3)
        ibm.script(Fault("GET", f"/v1/sessions/{unread}", status=status, times=None))
        result = swept(run)
        assert result.state == "failed"
        assert closings(result) == dict.fromkeys(others, True)
        assert [name for name in (unread, *others) if is_open(ibm, name)] == [unread] == registered_sessions()

    def test_a_list_that_cannot_be_read_fails_the_task(self, ibm, run, quick):
        orphans = owned_by_a_run_that_ended(run, ibm)
        ibm.script(Fault("GET", "/v1/workloads", status=403, times=100))
        assert swept(run).state == "failed"
        assert is_open(ibm, orphans[0])

    @pytest.mark.parametrize(
        ("argument", "value"),
        [("scope", "mine"), ("min_age", 0), ("min_age", "soon"), ("dry_run", "perhaps")],
    )
    def test_a_wrong_argument_is_named_when_the_dag_is_read(self, argument, value):
        with pytest.raises(ConfigurationError, match=argument):
            IBMQuantumSweepSessionsOperator(task_id="sweep", **{argument: value})


WHOSE = {"conn_id": CONN, "dag_id": "gone", "run_id": "gone", "task_id": "gone"}
UNREADABLE = [
    "10m",
    "7",
    '["ibm_fez"]',
    '{"backend": "ibm_fez"}',
    json.dumps({**WHOSE, "map_index": "first"}),
    json.dumps({**WHOSE, "opened": "yesterday"}),
    json.dumps({**WHOSE, "run_id": None}),
]


class TestEntriesOfOthers:
    """Airflow's variables are everybody's: another tool or a newer version may have written one."""

    @pytest.mark.parametrize(
        ("scope", "text"),
        [*[("user", text) for text in UNREADABLE], ("airflow", "10m"), ("instance", "10m")],
    )
    def test_a_session_whose_entry_is_unreadable_stays_open_and_fails_the_sweep(
        self, ibm, run, scope, text, output
    ):
        session_id = ibm.add_session(age=HOUR).id
        write(session_id, text)
        result = swept(run, scope=scope)
        assert result.state == "failed"
        assert decisions(result) == {session_id: "its owner cannot be found out"}
        assert f"The variable ibm_quantum_session_{session_id} is unreadable" in output()
        assert is_open(ibm, session_id)
        assert registered_sessions() == [session_id]

    @pytest.mark.parametrize("text", ["10m", json.dumps({**WHOSE, "map_index": "first"})])
    def test_a_variable_of_another_kind_is_passed_over(self, ibm, run, text):
        write("defaults", text)
        [orphan] = owned_by_a_run_that_ended(run, ibm)
        assert swept(run).state == "success"
        assert not is_open(ibm, orphan)
        assert registered_sessions() == ["defaults"]

    def test_an_entry_of_a_newer_version_is_read(self, ibm, run):
        session_id = ibm.add_session(age=HOUR).id
        entry = json.loads(signed(ibm, session_id))
        write(session_id, json.dumps({**entry, "colour": "blue"}))
        swept(run)
        assert not is_open(ibm, session_id)

    @pytest.mark.parametrize("how", ["no signature", "another session's", "another run"])
    def test_a_forged_entry_makes_no_sweep_close_a_strangers_session(self, ibm, run, how, output):
        stranger = ibm.add_session(age=HOUR).id
        entry = json.loads(signed(ibm, "x" if how == "another session's" else stranger))
        changes = {"no signature": {"signature": ""}, "another run": {"run_id": "another"}}
        write(stranger, json.dumps({**entry, **changes.get(how, {})}))
        result = swept(run)
        assert result.state == "failed"
        assert decisions(result) == {stranger: "its owner cannot be found out"}
        assert is_open(ibm, stranger)
        assert "was not written with this connection's API key" in output()


def signed(ibm, session_id, **fields):
    """The entry of a session that a run has opened which is gone."""
    return SessionOwner(**WHOSE, **fields).signed(session_id, ibm.api_key).to_json()


def write(name, text):
    from airflow.models.variable import Variable

    Variable.set(PREFIX + name, text)


class TestUnlisted:
    """IBM lists the sessions of the API key's user; one that was opened with an earlier key is not there."""

    def unlisted(self, ibm, age):
        session_id = ibm.add_session(age=HOUR, user="theirs").id
        write(session_id, signed(ibm, session_id, opened=time.time() - age))
        return session_id

    def test_it_is_closed_as_well(self, ibm, run):
        session_id = self.unlisted(ibm, age=HOUR)
        [report] = swept(run).xcom("sweep")["sessions"]
        assert report["session_id"] == session_id
        assert HOUR <= report["age"] < HOUR + 120
        assert not is_open(ibm, session_id)
        assert registered_sessions() == []

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_with_an_entry_of_an_earlier_key_it_is_named_while_it_is_open(self, ibm, run, dry_run, output):
        """It may be billed, and the present key shows neither whose it is nor that it is listed."""
        session_id = ibm.add_session(age=HOUR, user="theirs").id
        owner = SessionOwner(**WHOSE, opened=time.time() - HOUR)
        write(session_id, owner.signed(session_id, "an earlier key").to_json())
        result = swept(run, dry_run=dry_run)
        assert result.state == "failed"
        assert decisions(result) == {session_id: "its owner cannot be found out"}
        assert f"{session_id} was not written with this connection's API key" in output()
        assert is_open(ibm, session_id)
        IBMQuantumHook().get_conn().close_session(session_id)
        assert swept(run, dry_run=dry_run).state == "success"
        assert registered_sessions() == ([session_id] if dry_run else [])

    def test_unless_it_is_young(self, ibm, run):
        session_id = self.unlisted(ibm, age=0)
        assert decision_counts(swept(run, min_age="1h")) == {"too recent": 1}
        assert is_open(ibm, session_id)

    def test_unless_it_is_live(self, ibm, run):
        session_id = ibm.add_session(age=HOUR, user="theirs").id
        with DAG("live", schedule=None, default_args=NO_RETRIES) as dag:
            own([session_id]) >> sweep()
        assert decision_counts(run(dag)) == {"belongs to an active run": 1}
        assert is_open(ibm, session_id)


class TestLedger:
    def test_a_closed_session_is_not_in_it(self, ibm, dag, run):
        create = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
        close = IBMQuantumCloseSessionOperator(task_id="close", session_id=create.output)
        IBMQuantumRunJobsOperator(task_id="run", backend="ibm_fez", jobs=[JOB], poll_interval=0.05) >> close
        assert run(dag).state == "success"
        assert len(ibm.sessions) == 2
        assert registered_sessions() == []

    def test_one_whose_owner_comes_back_to_life_is_left_alone(self, ibm, run, monkeypatch, output):
        [orphan] = owned_by_a_run_that_ended(run, ibm)
        answers = [True, False]
        monkeypatch.setattr(
            VariableSessionRegistry,
            "find_active",
            lambda _, owners: ActiveOwners(owners if answers.pop() else (), {}),
        )
        assert decision_counts(swept(run)) == {"belongs to an active run": 1}
        assert answers == []
        assert is_open(ibm, orphan)
        assert f"{orphan} stays open: belongs to an active run" in output()

    @pytest.mark.parametrize("is_live", [True, False])
    def test_a_session_that_ibm_does_not_show_yet_stays_entered(self, ibm, run, is_live):
        """IBM may list it late, or the connection lead elsewhere for a while."""
        with DAG("slow", schedule=None, default_args=NO_RETRIES) as dag:
            opened = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
            if is_live:
                opened >> sweep()
        ibm.script(Fault("GET", "/v1/workloads", json={"workloads": []}, times=2))
        ibm.script(Fault("GET", "/v1/sessions/*", status=404, code="not_found"))
        run(dag)
        if not is_live:
            swept(run)
        assert registered_sessions() == list(ibm.sessions)

    def test_a_sweep_strikes_out_what_has_closed_unnoticed(self, ibm, run):
        owned_by_a_run_that_ended(run, ibm, 2, state="closed")
        swept(run)
        assert registered_sessions() == []

    def test_but_not_what_another_connection_may_know(self, ibm, run):
        elsewhere = owned_by_a_run_that_ended(run, ibm, state="closed", conn_id="another")
        swept(run)
        assert registered_sessions() == elsewhere

    def test_it_holds_no_secret_and_says_whose_a_session_is(self, ibm, run):
        from airflow.models.variable import Variable

        [session_id] = owned_by_a_run_that_ended(run, ibm)
        entry = json.loads(Variable.get(PREFIX + session_id))
        assert entry.pop("run_id").startswith("manual__")
        assert time.time() - 60 < entry.pop("opened") <= time.time()
        assert len(entry.pop("signature")) == 64
        assert entry == {
            "conn_id": CONN,
            "dag_id": "ended",
            "task_id": "own",
            "map_index": -1,
            "dag_run_scoped": True,
            "try_number": 1,
        }


class TestCommand:
    """The same, typed by a person."""

    def sweep(self, *arguments):
        command = [sys.executable, "-m", "airflow", "ibm-quantum", "sweep", "--json", *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
        found = ended.stdout[ended.stdout.find("[") :] if ended.returncode == 0 else "[]"
        return ended, {each["session_id"]: each for each in json.loads(found)}

    def test_tells_and_closes_when_asked_to(self, ibm, run, monkeypatch):
        self.keep_connection(ibm, monkeypatch)
        [orphan] = owned_by_a_run_that_ended(run, ibm)
        foreign = ibm.add_session(age=HOUR).id
        _, told = self.sweep()
        assert told[orphan]["decision"] == "orphaned"
        assert is_open(ibm, orphan)
        _, told = self.sweep("--close")
        assert told[orphan]["closed"] in (True, "True")
        assert not is_open(ibm, orphan)
        assert is_open(ibm, foreign)
        assert registered_sessions() == []

    def test_names_what_is_wrong(self, ibm):
        ended, _ = self.sweep("--scope", "mine")
        assert ended.returncode == 2
        assert "scope must be one of airflow, user, instance, got 'mine'" in ended.stderr

    @staticmethod
    def keep_connection(ibm, monkeypatch):
        """In the database, where the UI keeps it."""
        from airflow.models.connection import Connection
        from airflow.utils.session import create_session
        from sqlalchemy import delete

        monkeypatch.delenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT")
        with create_session() as session:
            session.execute(delete(Connection).where(Connection.conn_id == CONN))
            session.add(Connection.from_json(connection_to(ibm), conn_id=CONN))
