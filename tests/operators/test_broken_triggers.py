# SPDX-License-Identifier: Apache-2.0
"""A trigger that breaks, or that a triggerer cannot load, ends nothing: a retry, or the worker, waits on."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from airflow.sdk import BaseOperator, task

from airflow_provider_ibm_sessions.client import instance_reader
from airflow_provider_ibm_sessions.emulator.service.settings import Device
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.operators.backend import IBMQuantumSelectBackendOperator
from airflow_provider_ibm_sessions.operators.job import IBMQuantumJobResultsOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from airflow_provider_ibm_sessions.sensors.job import IBMQuantumJobSensor
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor
from airflow_provider_ibm_sessions.triggers import usage
from testing.dag_tasks import AT_ONCE, run_jobs, sampler_job, submit
from testing.jobs_seen import posts, statuses

pytestmark = pytest.mark.usefixtures("connection", "quick")


@pytest.fixture(autouse=True)
def broken(monkeypatch):
    """Each trigger breaks at once, as one that cannot be loaded; returns those that tasks deferred to."""
    from airflow.sdk.definitions import dag as in_line

    defer, broken = BaseOperator.defer, []

    def defer_to_broken(self, *, trigger, **kwargs):
        broken.append(trigger)
        failure = {"error": "Trigger failure", "traceback": ["as if it could not be loaded"]}
        defer(self, **{**kwargs, "trigger": trigger, "method_name": "__fail__", "kwargs": failure})

    monkeypatch.setattr(BaseOperator, "defer", defer_to_broken)
    monkeypatch.setattr(in_line, "_run_inline_trigger", lambda trigger, ti: None)
    return broken


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr(instance_reader, "MAX_AGE", 0.1)
    monkeypatch.setattr(usage, "POLL_INTERVAL", 0.2)


@pytest.fixture
def end_jobs_then(ibm, broken, when):
    """Let jobs run until a trigger has broken."""
    ibm.settings.job_seconds = 600
    when(lambda: broken, lambda: ibm.clock.advance(700))


def submitted(**kwargs):
    """Return the id of a job that no task has submitted."""
    return IBMQuantumHook().get_conn().submit_job(backend="ibm_fez", **sampler_job(), **kwargs).id


def states(ibm):
    return [session.state for session in ibm.sessions.values()]


def assert_waited_here(result, broken):
    assert result.state == "success"
    assert result.tasks["run"].try_number == 1
    assert len(broken) == 1, "it does not defer again"


def test_run_jobs(ibm, dag, run, broken, output, end_jobs_then):
    run_jobs(deferrable=True)
    result = run(dag)
    assert_waited_here(result, broken)
    assert "as if it could not be loaded" in output()
    assert "The trigger has broken, and no retry follows: waiting in this worker" in output()
    assert [report["state"] for report in result.xcom("run")] == ["Completed"] * 3
    assert len(posts(ibm)) == 3
    assert states(ibm) == ["closed"]
    assert ibm.requests("DELETE") == []


@pytest.mark.parametrize("operator", [run_jobs, submit], ids=["run_jobs", "submit"])
def test_a_retry_defers_again_and_only_the_last_try_waits_here(ibm, dag, run, broken, when, operator):
    ibm.settings.job_seconds = 600
    when(lambda: len(broken) == 3, lambda: ibm.clock.advance(700))
    operator(deferrable=True, retries=2, **AT_ONCE)
    result = run(dag)
    assert result.state == "success"
    assert result.tasks["run"].try_number == 3
    assert len(broken) == 3
    assert set(statuses(ibm)) == {"Completed"}
    assert len(posts(ibm)) == (3 if operator is run_jobs else 1)
    assert set(states(ibm)) <= {"closed"}


def test_run_jobs_that_has_time_for_nothing_ends_all(ibm, dag, run, broken):
    ibm.settings.job_seconds = 600
    run_jobs(deferrable=True, timeout=1)
    assert run(dag).state == "failed"
    assert states(ibm) == ["closed"]
    assert statuses(ibm) == ["Cancelled"] * 3


def test_a_function_is_not_called_again_in_the_same_try(ibm, dag, run, broken, end_jobs_then):
    """Before Airflow 3.3 its jobs are not recorded, and it might make other ones: only a retry calls it."""
    pytest.importorskip("qiskit_ibm_runtime")
    called = []

    @task.ibm_quantum_jobs(backend="ibm_fez", task_id="run", deferrable=True, poll_interval=0.1)
    def work(backend):
        from qiskit import QuantumCircuit
        from qiskit_ibm_runtime import SamplerV2

        called.append(backend)
        circuit = QuantumCircuit(1, 1, name=f"number_{len(called)}")
        circuit.measure(0, 0)
        SamplerV2(mode=backend).run([circuit], shots=10)

    work()
    is_recorded = version("apache-airflow-core") >= "3.3"
    assert run(dag).state == ("success" if is_recorded else "failed")
    assert len(called) == len(posts(ibm)) == 1
    assert "Cancelled" not in statuses(ibm)


def test_submit_job(ibm, dag, run, broken, end_jobs_then):
    submit(deferrable=True)
    result = run(dag)
    assert_waited_here(result, broken)
    assert result.xcom("run")["state"] == "Completed"
    assert statuses(ibm) == ["Completed"]


def test_collect_results(ibm, dag, run, broken, end_jobs_then):
    job_id = submitted()
    IBMQuantumJobResultsOperator(task_id="run", job_ids=[job_id], deferrable=True, poll_interval=0.1)
    result = run(dag)
    assert_waited_here(result, broken)
    assert [report["id"] for report in result.xcom("run")] == [job_id]


def test_close_lets_queued_jobs_run(ibm, dag, run, broken, end_jobs_then):
    session_id = ibm.add_session(age=1).id
    submitted(session_id=session_id)
    IBMQuantumCloseSessionOperator(
        task_id="run", session_id=session_id, drain=True, deferrable=True, poll_interval=0.1
    )
    assert_waited_here(run(dag), broken)
    assert states(ibm) == ["closed"]
    assert statuses(ibm) == ["Completed"]


def test_close_waits_for_final_usage(ibm, dag, run, broken, when):
    ibm.settings.usage_settle_seconds = 600.0
    when(lambda: broken, lambda: ibm.clock.advance(700))
    session_id = ibm.add_session(age=1).id
    submitted(session_id=session_id)
    IBMQuantumCloseSessionOperator(
        task_id="run", session_id=session_id, settle_usage=60, deferrable=True, poll_interval=0.1
    )
    result = run(dag)
    assert_waited_here(result, broken)
    assert result.xcom("run", "usage")["settled"] is True


def test_create_waits_for_its_budget(ibm, dag, run, broken, when):
    ibm.settings.usage_before = 36_000.0
    when(lambda: broken, lambda: setattr(ibm.settings, "usage_before", 0.0))
    IBMQuantumCreateSessionOperator(
        task_id="run",
        backend="ibm_fez",
        min_usage_remaining="1m",
        on_low_usage="wait",
        deferrable=True,
    )
    assert_waited_here(run(dag), broken)
    assert states(ibm) == ["open"]


def test_select_backend(ibm, dag, run, broken, when):
    fez = Device(156, "paused", "calibration", wait_seconds=0)
    ibm.settings.backends = {"ibm_fez": fez}
    when(lambda: broken, lambda: setattr(fez, "status", "online"))
    IBMQuantumSelectBackendOperator(task_id="run", wait=True, deferrable=True, poll_interval=0.1)
    result = run(dag)
    assert_waited_here(result, broken)
    assert result.xcom("run") == "ibm_fez"


@pytest.mark.parametrize("soft_fail", [False, True])
def test_sensor_of_a_session(ibm, dag, run, broken, when, soft_fail):
    session = ibm.add_session(age=1)
    when(lambda: broken, lambda: setattr(session, "state", "active"))
    IBMQuantumSessionSensor(
        task_id="run",
        session_id=session.id,
        target_state="active",
        deferrable=True,
        poke_interval=0.1,
        soft_fail=soft_fail,
    )
    result = run(dag)
    assert_waited_here(result, broken)
    assert result.state_of("run") == "success"


def test_sensor_of_a_job(ibm, dag, run, broken, end_jobs_then):
    IBMQuantumJobSensor(task_id="run", job_id=submitted(), deferrable=True, poke_interval=0.1)
    assert_waited_here(run(dag), broken)
