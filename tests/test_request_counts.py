# SPDX-License-Identifier: Apache-2.0
"""
What each flow costs: its requests to IBM and to IAM, and its calls to Airflow's execution API.

A flow runs through Airflow, and each of its legs is counted for itself: ``execute``, the ``trigger``, and
``resume``, after a deferral. Counted are the calls from ``pre_execute`` to ``post_execute``, not Airflow's:
the start, the rendered fields, the return value and the end. Nor is ``MaskSecret`` counted, which goes no
further than to the supervisor. The connection is in Airflow's database, as it may be in a deployment, so that
its look-ups are counted: without them, a first create makes 5 calls. All legs are in one process, and share
what a process keeps: the token for one.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.execution_time import supervisor, task_runner

from airflow_provider_ibm_sessions.hooks.airflow_id import VARIABLE as AIRFLOW_ID
from airflow_provider_ibm_sessions.operators.job import IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.run_jobs import IBMQuantumRunJobsOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from airflow_provider_ibm_sessions.operators.sweep import IBMQuantumSweepSessionsOperator
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor
from testing.airflow_runs import fails_once, next_try
from testing.connections import connection_to
from testing.session_requests import submit_job

TOKEN = "POST /identity/token"
OPEN = "POST /v1/sessions"
LOOK = "GET /v1/sessions/{id}"
UPDATE = "PATCH /v1/sessions/{id}"
CLOSE = "DELETE /v1/sessions/{id}/close"
SUBMIT = "POST /v1/jobs"
JOBS = "GET /v1/jobs"
ONE_JOB = "GET /v1/jobs/{id}"
RESULTS = "GET /v1/jobs/{id}/results"
WORKLOADS = "GET /v1/workloads"
BACKENDS = "GET /v1/backends"
CONFIGURATION = "GET /v1/backends/{id}/configuration"

LIMITS = {
    "create: execute": {"ibm": {TOKEN: 1, OPEN: 1}, "airflow": 6},
    "create, retried: execute": {"ibm": {LOOK: 1}, "airflow": 4},
    "update: execute": {"ibm": {TOKEN: 1, UPDATE: 1}, "airflow": 1},
    "close: execute": {"ibm": {TOKEN: 1, CLOSE: 1, LOOK: 1, JOBS: 1}, "airflow": 4},
    "close, drained: execute": {"ibm": {TOKEN: 1, UPDATE: 1, LOOK: 1}, "airflow": 2},
    "close, drained: trigger": {"ibm": {LOOK: 1}, "airflow": 1},
    "close, drained: resume": {"ibm": {JOBS: 1}, "airflow": 4},
    "run jobs: execute": {
        "ibm": {TOKEN: 1, OPEN: 1, SUBMIT: 2, UPDATE: 1, JOBS: 1, ONE_JOB: 1, LOOK: 1},
        "airflow": 8,
    },
    "run jobs: trigger": {"ibm": {JOBS: 1, LOOK: 1}, "airflow": 1},
    "run jobs: resume": {"ibm": {RESULTS: 2, JOBS: 1}, "airflow": 9},
    "run jobs, done at once: execute": {
        "ibm": {TOKEN: 1, OPEN: 1, SUBMIT: 2, UPDATE: 1, JOBS: 2, LOOK: 1, RESULTS: 2},
        "airflow": 15,
    },
    "run jobs, retried: execute": {"ibm": {JOBS: 2, UPDATE: 1, ONE_JOB: 1, LOOK: 1}, "airflow": 4},
    "run jobs, retried: trigger": {"ibm": {JOBS: 1, LOOK: 1}, "airflow": 1},
    "run jobs, retried: resume": {"ibm": {RESULTS: 2, JOBS: 1}, "airflow": 9},
    "submit job: execute": {"ibm": {TOKEN: 1, SUBMIT: 1, ONE_JOB: 1}, "airflow": 6},
    "submit job: trigger": {"ibm": {ONE_JOB: 1}, "airflow": 1},
    "submit job: resume": {"ibm": {RESULTS: 1}, "airflow": 6},
    "submit job, done at once: execute": {
        "ibm": {TOKEN: 1, SUBMIT: 1, ONE_JOB: 1, RESULTS: 1},
        "airflow": 10,
    },
    "session sensor: execute": {"ibm": {TOKEN: 1, LOOK: 1}, "airflow": 2},
    "session sensor, deferred: execute": {"ibm": {TOKEN: 1, LOOK: 1}, "airflow": 2},
    "session sensor, deferred: trigger": {"ibm": {LOOK: 1}, "airflow": 1},
    "session sensor, deferred: resume": {"ibm": {}, "airflow": 0},
    "sweep of one orphan: execute": {"ibm": {WORKLOADS: 2, LOOK: 2, CLOSE: 1, JOBS: 1}, "airflow": 9},
    "session decorator: execute": {
        "ibm": {TOKEN: 1, OPEN: 1, BACKENDS: 2, LOOK: 2, CONFIGURATION: 1, UPDATE: 1, JOBS: 1},
        "airflow": 13,
    },
}
"""
For each leg of a flow, the most that it may cost. Lower a number when the cost falls; raise one for a reason
that stands here. The first submission reads the id of this Airflow, which keeps its jobs apart from those of
another. The end of a session costs one list of its jobs at IBM, and four calls to Airflow: whose it is, if it
has a record, that record, and the XCom ``usage``.
"""

CONN = "ibm_quantum_default"
AT_ONCE = {"retries": 1, "retry_delay": timedelta(0)}
WAITING = {"deferrable": True, "poll_interval": 0.1}
JOB = {"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0; bit[2] meas; qubit[2] q;", None, 10]]}}


@dataclass
class Leg:
    """A part of a task that one process runs."""

    kind: str
    calls: list[str] = field(default_factory=list)
    """The calls to Airflow, in their order."""
    ibm: list[str] = field(default_factory=list)
    """The requests to IBM and to IAM, in their order."""


class Meter:
    """Notes what each leg sends."""

    def __init__(self, monkeypatch):
        self.legs = []
        self.journal = list
        """Returns all requests so far, each as its method and path."""
        self.before_trigger = lambda: None
        """Called before each trigger: what is awaited can be made to happen, so that it looks once."""
        self._leg = None
        self._watch_calls(monkeypatch)
        self._watch_legs(monkeypatch)

    def _watch_calls(self, monkeypatch):
        comms = supervisor.InProcessSupervisorComms
        send = comms.send

        def note(way, msg):
            if self._leg and type(msg).__name__ != "MaskSecret":
                self._leg.calls.append(type(msg).__name__)
            return send(way, msg)

        async def note_async(way, msg):
            return note(way, msg)

        monkeypatch.setattr(comms, "send", note)
        # The way to Airflow that triggers have; dag.test() lacks it.
        monkeypatch.setattr(comms, "asend", note_async, raising=False)

    def _watch_legs(self, monkeypatch):
        execute = task_runner._execute_task
        trigger = supervisor.InProcessTestSupervisor.run_trigger_in_process

        def note_execute(context, ti, *args, **kwargs):
            resumed = getattr(ti._ti_context_from_server, "next_method", None)
            return self._measured("resume" if resumed else "execute", execute, context, ti, *args, **kwargs)

        def note_trigger(**kwargs):
            self.before_trigger()
            return self._measured("trigger", trigger, **kwargs)

        monkeypatch.setattr(task_runner, "_execute_task", note_execute)
        monkeypatch.setattr(supervisor.InProcessTestSupervisor, "run_trigger_in_process", note_trigger)

    def _measured(self, kind, function, *args, **kwargs):
        self._leg = leg = Leg(kind)
        before = len(self.journal())
        try:
            return function(*args, **kwargs)
        finally:
            self._leg = None
            leg.ibm = [_kind(*each) for each in self.journal()[before:]]
            self.legs.append(leg)

    def check(self, flow, *kinds):
        """The last legs are of these kinds, and none costs more than it may."""
        legs = self.legs[-len(kinds) :]
        assert [leg.kind for leg in legs] == list(kinds)
        for leg in legs:
            name = f"{flow}: {leg.kind}"
            limit = LIMITS[name]
            over = {kind: n for kind, n in Counter(leg.ibm).items() if n > limit["ibm"].get(kind, 0)}
            assert over == {}, f"{name}: more requests to IBM than {limit['ibm']}: {leg.ibm}"
            assert len(leg.calls) <= limit["airflow"], f"{name}: calls to Airflow: {leg.calls}"


def _kind(method, path):
    """The request without its ids."""
    path = re.sub("(/v1/(?:sessions|jobs|backends)/)[^/]+", r"\1{id}", path.removeprefix("/api"))
    return f"{method} {path}"


@pytest.fixture
def meter(monkeypatch):
    return Meter(monkeypatch)


@pytest.fixture
def keep_connection(airflow_db, monkeypatch):
    """Write the connection to Airflow's database; nothing of earlier tests is there."""
    from airflow.models import Connection, Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    monkeypatch.delenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", raising=False)

    def forget():
        with create_session() as session:
            session.execute(delete(Connection).where(Connection.conn_id == CONN))
            session.execute(delete(Variable).where(Variable.key.startswith("ibm_quantum_session_")))

    def keep(as_json):
        forget()
        with create_session() as session:
            session.add(Connection.from_json(as_json, conn_id=CONN))
            if session.scalar(select(Variable).where(Variable.key == AIRFLOW_ID)) is None:
                session.add(Variable(AIRFLOW_ID, "as after the first task of all"))

    yield keep
    forget()


@pytest.fixture
def measured(ibm, keep_connection, meter):
    """The meter, on flows against the fake IBM."""
    keep_connection(connection_to(ibm))
    ibm.settings.job_seconds = 0
    meter.journal = lambda: [(entry.method, entry.path) for entry in list(ibm.journal)]
    return meter


def create(**kwargs):
    return IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", **kwargs)


def run_jobs(**kwargs):
    return IBMQuantumRunJobsOperator(
        task_id="run", backend="ibm_fez", jobs=[JOB, JOB], **{**WAITING, **kwargs}
    )


def run_until_trigger(measured, ibm):
    """Let jobs run until the trigger looks, which finds them final."""
    ibm.settings.job_seconds = 600
    measured.before_trigger = lambda: ibm.clock.advance(1300)


def planted(ibm):
    return ibm.add_session(state="open", age=1).id


def test_create(measured, dag, run):
    create()
    assert run(dag).state == "success"
    measured.check("create", "execute")


def test_create_goes_on_with_the_session_of_a_failed_attempt(measured, ibm, dag, run, monkeypatch):
    fails_once(monkeypatch, IBMQuantumCreateSessionOperator, "post_execute")
    create()
    first = run(dag)
    assert first.state == "failed"
    assert next_try(first, dag, "create").xcom("create") in ibm.sessions
    assert len(ibm.sessions) == 1
    measured.check("create, retried", "execute")


def test_update(measured, ibm, dag, run):
    IBMQuantumUpdateSessionOperator(task_id="update", session_id=planted(ibm), accepting_jobs=False)
    assert run(dag).state == "success"
    measured.check("update", "execute")


def test_close(measured, ibm, dag, run):
    IBMQuantumCloseSessionOperator(task_id="close", session_id=planted(ibm))
    assert run(dag).state == "success"
    measured.check("close", "execute")


def test_close_drained(measured, ibm, dag, run):
    ibm.settings.job_seconds = 600
    session_id = planted(ibm)
    submit_job(ibm, session_id)
    IBMQuantumCloseSessionOperator(task_id="close", session_id=session_id, drain=True, **WAITING)
    measured.before_trigger = lambda: ibm.clock.advance(700)
    assert run(dag).state == "success"
    measured.check("close, drained", "execute", "trigger", "resume")


def test_run_jobs(measured, ibm, dag, run):
    run_until_trigger(measured, ibm)
    run_jobs()
    assert run(dag).state == "success"
    assert len(ibm.jobs) == 2
    measured.check("run jobs", "execute", "trigger", "resume")


def test_run_jobs_that_are_done_at_once(measured, ibm, dag, run):
    run_jobs()
    assert run(dag).state == "success"
    assert len(ibm.jobs) == 2
    measured.check("run jobs, done at once", "execute")


def test_run_jobs_goes_on_with_the_jobs_of_a_failed_attempt(measured, ibm, dag, run, monkeypatch):
    run_until_trigger(measured, ibm)
    fails_once(monkeypatch, IBMQuantumRunJobsOperator, "defer")
    run_jobs(**AT_ONCE)
    result = run(dag)
    assert result.state == "success"
    assert result.tasks["run"].try_number == 2
    assert (len(ibm.jobs), len(ibm.sessions)) == (2, 1)
    measured.check("run jobs, retried", "execute", "trigger", "resume")


def submit_one():
    IBMQuantumSubmitJobOperator(
        task_id="submit",
        program_id=JOB["program_id"],
        program_params=JOB["params"],
        backend="ibm_fez",
        **WAITING,
    )


def test_submit_job(measured, ibm, dag, run):
    run_until_trigger(measured, ibm)
    submit_one()
    assert run(dag).state == "success"
    measured.check("submit job", "execute", "trigger", "resume")


def test_submit_job_that_is_done_at_once(measured, dag, run):
    submit_one()
    assert run(dag).state == "success"
    measured.check("submit job, done at once", "execute")


def test_session_sensor(measured, ibm, dag, run):
    IBMQuantumSessionSensor(task_id="wait", session_id=planted(ibm), target_state="open")
    assert run(dag).state == "success"
    measured.check("session sensor", "execute")


def test_session_sensor_deferred(measured, ibm, dag, run):
    IBMQuantumSessionSensor(
        task_id="wait", session_id=planted(ibm), target_state="closed", deferrable=True, poke_interval=0.1
    )
    measured.before_trigger = lambda: ibm.clock.advance(1900)  # IBM closes what was never used
    assert run(dag).state == "success"
    measured.check("session sensor, deferred", "execute", "trigger", "resume")


def test_sweep_of_one_orphan(measured, ibm, dag, run):
    create()
    assert run(dag).state == "success"
    time.sleep(1.1)
    with DAG("sweep_of_one_orphan", schedule=None, default_args={"retries": 0}) as sweeper:
        IBMQuantumSweepSessionsOperator(task_id="sweep", dry_run=False, min_age=1)
    result = run(sweeper)
    assert [each["closed"] for each in result.xcom("sweep")["sessions"]] == [True]
    measured.check("sweep of one orphan", "execute")


def test_session_decorator(emulator, keep_connection, meter, dag, run):
    """On localqpu, as the session is one of Qiskit's. The function itself sends nothing."""
    keep_connection(emulator.connection)
    meter.journal = lambda: [
        (each["method"], each["path"])
        for each in emulator.requests()
        if not each["path"].startswith("/_localqpu")
    ]
    with dag:

        @task.ibm_quantum_session(backend=emulator.backend)
        def work(session):
            return session.session_id

        work()
    assert run(dag).state == "success"
    meter.check("session decorator", "execute")
