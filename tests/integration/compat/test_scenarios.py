# SPDX-License-Identifier: Apache-2.0
"""What each claimed version of Airflow has to run, by ``dag.test()`` against the fake IBM."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions.emulator.service.settings import Device
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.operators.backend import IBMQuantumSelectBackendOperator
from airflow_provider_ibm_sessions.operators.results import IBMQuantumJobResultsOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from airflow_provider_ibm_sessions.sensors.job import IBMQuantumJobSensor
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor
from testing.airflow_runs import cleared, fails_once
from testing.dag_tasks import (
    AT_ONCE,
    both_ways,
    own,
    registered_sessions,
    run_jobs,
    sampler_job,
    submit,
    sweep,
)
from testing.fake_ibm import Fault, Outcome
from testing.jobs_seen import only, posts, statuses, widths
from testing.session_requests import create_requests

pytestmark = pytest.mark.usefixtures("connection", "quick", "short_jobs")

needs_qiskit = pytest.mark.skipif(
    find_spec("qiskit_ibm_runtime") is None, reason="the extra qiskit is not installed"
)


def submitted(count=1, **fields):
    """Submit jobs as any client would; return their ids."""
    hook = IBMQuantumHook()
    return [
        hook.submit_job(**sampler_job(width + 1), backend="ibm_fez", **fields).id for width in range(count)
    ]


def test_create_update_and_close(ibm, dag, run):
    with dag:
        create = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
        drain = IBMQuantumUpdateSessionOperator(
            task_id="drain", session_id=create.output, accepting_jobs=False
        )
        close = IBMQuantumCloseSessionOperator(task_id="close", session_id=create.output)
        create >> drain >> close
    result = run(dag)
    assert result.state == "success"
    session = only(ibm.sessions)
    assert (result.xcom("create"), session.state) == (session.id, "closed")
    assert result.xcom("close")["state"] == "closed"
    assert session.id in result.xcom("create", "_link_IBMQuantumSessionLink")
    assert session.id not in registered_sessions()


def test_a_teardown_closes_after_a_failure(ibm, dag, run):
    with dag:

        @task
        def work(session_id):
            raise ValueError("the optimiser went astray")

        create = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
        close = IBMQuantumCloseSessionOperator(task_id="close", session_id=create.output)
        create >> work(create.output) >> close.as_teardown(setups=create)
    assert run(dag).state == "failed"
    assert only(ibm.sessions).state == "closed"


def test_a_lost_response_opens_one_session(ibm, dag, run):
    ibm.script(Fault("POST", "/v1/sessions", drop=True, phase="after"))
    with dag:
        IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
    result = run(dag)
    assert result.xcom("create") == only(ibm.sessions).id
    assert len(create_requests(ibm)) == 1


@both_ways
def test_run_jobs(ibm, dag, run, deferrable):
    with dag:
        run_jobs(deferrable=deferrable)
    result = run(dag)
    assert result.state == "success"
    assert widths(result.xcom("run")) == [1, 2, 3]
    assert only(ibm.sessions).state == "closed"
    assert result.xcom("run", "usage")["qpu_seconds"] > 0


@both_ways
def test_run_jobs_with_a_job_that_fails(ibm, dag, run, output, deferrable):
    ibm.next_jobs([Outcome(), Outcome.failed(1517), Outcome()])
    with dag:
        run_jobs(deferrable=deferrable)
    assert run(dag).state == "failed"
    assert "1517" in output()
    assert only(ibm.sessions).state == "closed"
    assert ibm.state()["accepting"] == []


def test_run_jobs_collects_what_has_completed(ibm, dag, run):
    ibm.next_jobs([Outcome(), Outcome.failed(1517), Outcome()])
    with dag:
        run_jobs(on_job_failure="collect")
    result = run(dag)
    assert result.state == "success"
    assert [report["state"] for report in result.xcom("run")] == ["Completed", "Failed", "Completed"]


def test_a_retry_of_run_jobs_submits_nothing_twice(ibm, dag, run, monkeypatch):
    fails_once(monkeypatch, IBMQuantumHook, "ensure_session_closed")
    with dag:
        run_jobs(retries=1, **AT_ONCE)
    result = run(dag)
    assert (result.state, result.tasks["run"].try_number) == ("success", 2)
    assert widths(result.xcom("run")) == [1, 2, 3]
    assert statuses(ibm) == ["Completed"] * 3
    assert len(ibm.sessions) == 1


@both_ways
def test_clearing_run_jobs_pays_nothing_twice(ibm, dag, run, deferrable):
    with dag:
        run_jobs(deferrable=deferrable)
    first = run(dag)
    again = cleared(first, dag, "run")
    assert again.state_of("run") == "success"
    assert widths(again.xcom("run")) == [1, 2, 3]
    assert len(posts(ibm)) == 3
    assert ibm.state()["accepting"] == []


def test_clearing_run_jobs_repeats_only_what_failed(ibm, dag, run):
    ibm.next_jobs([Outcome(), Outcome.failed(1517), Outcome()])
    with dag:
        run_jobs()
    first = run(dag)
    again = cleared(first, dag, "run")
    assert (first.state, again.state_of("run")) == ("failed", "success")
    assert widths(again.xcom("run")) == [1, 2, 3]
    assert len(posts(ibm)) == 4
    assert ibm.state()["accepting"] == []


@both_ways
def test_submit(ibm, dag, run, deferrable):
    with dag:
        submit(deferrable=deferrable)
    result = run(dag)
    assert result.state == "success"
    assert result.xcom("run")["id"] == only(ibm.jobs).id
    assert widths([result.xcom("run")]) == [2]
    usage = result.xcom("run", "usage")
    assert usage["settled"] is True
    assert usage["billed_seconds"] == pytest.approx(sum(ibm.bill.values()))


def test_results_of_jobs_that_exist(ibm, dag, run):
    ids = submitted(2)
    with dag:
        IBMQuantumJobResultsOperator(task_id="fetch", job_ids=ids, poll_interval=0.1)
    result = run(dag)
    assert [report["id"] for report in result.xcom("fetch")] == ids
    assert len(posts(ibm)) == 2


@pytest.mark.parametrize("way", [{"deferrable": True}, {"mode": "poke"}], ids=["deferred", "poke"])
def test_sensors(ibm, dag, run, when, way):
    session = ibm.add_session(state="open", age=1)
    [job_id] = submitted(1)
    when(lambda: len(ibm.requests("GET", f"/v1/sessions/{session.id}")) >= 2, lambda: ibm.clock.advance(1900))
    with dag:
        IBMQuantumJobSensor(task_id="job", job_id=job_id, poke_interval=0.1, timeout=120, **way)
        IBMQuantumSessionSensor(
            task_id="session", session_id=session.id, poke_interval=0.2, timeout=120, **way
        )
    result = run(dag)
    assert result.state == "success"
    assert result.xcom("job")["state"] == "Completed"
    assert result.xcom("session")["state"] == "closed"


@needs_qiskit
@pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated")
def test_the_decorator_of_jobs(ibm, dag, run):
    with dag:

        @task.ibm_quantum_jobs(backend="ibm_fez", max_ttl="10m", poll_interval=0.1)
        def work(backend, width):
            from qiskit import QuantumCircuit
            from qiskit_ibm_runtime import SamplerV2

            circuit = QuantumCircuit(backend.num_qubits, width)
            circuit.measure(range(width), range(width))
            SamplerV2(mode=backend).run([circuit], shots=10)
            return width

        work(width=2)
    result = run(dag)
    assert result.state == "success"
    assert [report["state"] for report in result.xcom("work")] == ["Completed"]
    assert result.xcom("work", "returned") == 2
    assert only(ibm.sessions).state == "closed"


@needs_qiskit
def test_the_decorator_of_a_session(ibm, dag, run):
    with dag:

        @task.ibm_quantum_session(backend="ibm_fez", max_ttl="10m")
        def work(factor, session, params=None):
            assert params is not None
            return [session.session_id, factor * 2]

        work(21)
    result = run(dag)
    session = only(ibm.sessions)
    assert result.xcom("work") == [session.id, 42]
    assert (session.state, session.accepting_jobs) == ("closed", False)


def test_the_sweep_closes_a_session_that_its_run_has_left(ibm, dag, run):
    session = ibm.add_session(age=3600)
    with dag:
        own([session.id])
    assert run(dag).state == "success"

    with DAG("compat_sweep", schedule=None, default_args={"retries": 0}) as sweeping:
        sweep()
    result = run(sweeping)
    assert result.state == "success"
    assert ibm.sessions[session.id].state == "closed"
    assert session.id not in registered_sessions()


def test_a_qpu_is_selected(ibm, dag, run):
    ibm.settings.backends = {
        "ibm_fez": Device(156, queue_length=2, wait_seconds=5400),
        "ibm_kingston": Device(156, queue_length=3, wait_seconds=420),
    }
    with dag:
        select = IBMQuantumSelectBackendOperator(task_id="select", poll_interval=0.2, timeout=60)
        run_jobs(backend=select.output)
    result = run(dag)
    assert result.xcom("select") == only(ibm.sessions).backend == "ibm_kingston"


def test_too_small_a_budget_opens_nothing(ibm, dag, run, output):
    ibm.settings.usage_before = 35_880.0  # two minutes are left of ten hours
    with dag:
        run_jobs(min_usage_remaining="10m")
    assert run(dag).state == "failed"
    assert "min_usage_remaining" in output()
    assert ibm.sessions == {}


@both_ways
def test_a_retry_has_the_results_of_a_private_job(ibm, dag, run, monkeypatch, deferrable):
    """IBM gives them out once: what was read before the failure is kept."""
    fails_once(monkeypatch, TaskState, "mark_finished")
    with dag:
        submit(private=True, deferrable=deferrable, retries=1, **AT_ONCE)
    result = run(dag)
    assert (result.state, result.tasks["run"].try_number) == ("success", 2)
    assert widths([result.xcom("run")]) == [2]
    assert only(ibm.jobs).results_read == 1
