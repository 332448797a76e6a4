# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.sensors.job import IBMQuantumJobSensor
from testing.airflow_runs import with_rendered
from testing.fake_ibm import Fault, Outcome

pytestmark = pytest.mark.usefixtures("connection")

WAYS = {"deferred": {"deferrable": True}, "poke": {"mode": "poke"}}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
CIRCUIT = "OPENQASM 3.0; bit[2] meas; qubit[2] q;"
UNCOMPILED = Outcome("Failed", reason="The circuit is not for this QPU", reason_code=1517)


def sensor(**kwargs):
    return IBMQuantumJobSensor(task_id="wait", poke_interval=0.1, timeout=120, **kwargs)


def submit(session_id=None):
    job = IBMQuantumHook().submit_job(
        "sampler", backend="ibm_fez", params={"pubs": [[CIRCUIT, None, 10]]}, session_id=session_id
    )
    return job.id


@pytest.fixture
def session(ibm):
    ibm.settings.job_seconds = 0.3
    return ibm.add_session(state="open", age=1)


@ways
def test_returns_the_details_of_a_job_that_has_ended(ibm, session, dag, run, way):
    job_id = submit(session.id)
    with dag:
        sensor(job_id=job_id, **way)
    result = run(dag)
    assert result.state == "success"
    details = result.xcom("wait")
    assert (details["id"], details["state"]) == (job_id, "Completed")
    assert details["usage"]["status"] == "complete"
    assert details["usage"]["qpu_charge_time_seconds"] == pytest.approx(0.3, abs=0.01)
    assert job_id in result.xcom("wait", "_link_IBMQuantumJobLink")
    assert ibm.requests("GET", f"/v1/jobs/{job_id}/results") == []


def test_a_poking_sensor_logs_changes_only(ibm, dag, run, when, output):
    ibm.settings.job_seconds = 600
    job_id = submit()
    polls = lambda: len(ibm.requests("GET", f"/v1/jobs/{job_id}"))  # noqa: E731
    when(lambda: polls() > 2, lambda: IBMQuantumHook().cancel_job(job_id))
    with dag:
        sensor(job_id=job_id, on_job_failure="collect")
    assert run(dag).state == "success"
    logged = output()
    assert logged.count("0 of 1 jobs completed") == 2 * logged.count("1 failed or cancelled") > 0


@ways
def test_waits_for_all_jobs_of_a_session(session, dag, run, way, output):
    jobs = [submit(session.id) for _ in range(3)]
    with dag:
        sensor(session_id=session.id, **way)
    result = run(dag)
    assert [job["id"] for job in result.xcom("wait")] == jobs
    assert {job["state"] for job in result.xcom("wait")} == {"Completed"}
    assert "3 of 3 jobs completed" in output()


@ways
def test_a_session_without_jobs_is_waited_for_until_it_closes(ibm, dag, run, way):
    session = ibm.add_session(state="closed", age=1)
    with dag:
        sensor(session_id=session.id, **way)
    result = run(dag)
    assert result.state == "success"
    assert result.xcom("wait") == []


@ways
def test_a_failed_job_fails_the_sensor_without_retries(ibm, session, dag, run, way, output):
    ibm.next_jobs([UNCOMPILED])
    job_id = submit(session.id)
    with dag:
        sensor(job_id=job_id, retries=2, **way)
    result = run(dag)
    assert result.state == "failed"
    assert result.tasks["wait"].try_number == 1
    assert "The circuit is not for this QPU" in output()


@ways
def test_or_its_details_are_collected(ibm, session, dag, run, way):
    ibm.next_jobs([Outcome(), UNCOMPILED])
    jobs = [submit(session.id), submit(session.id)]
    with dag:
        sensor(session_id=session.id, on_job_failure="collect", **way)
    result = run(dag)
    assert result.state == "success"
    found = result.xcom("wait")
    assert [(job["id"], job["state"]) for job in found] == list(
        zip(jobs, ["Completed", "Failed"], strict=True)
    )
    assert found[1]["reason_code"] == 1517


@ways
def test_failed_polls_are_waited_through(ibm, session, dag, run, way):
    job_id = submit(session.id)
    ibm.script(Fault("GET", f"/v1/jobs/{job_id}", times=3, status=503))
    with dag:
        sensor(job_id=job_id, **way)
    assert run(dag).state == "success"


@ways
def test_an_unknown_job_fails_at_once(dag, run, way, output):
    with dag:
        sensor(job_id="d0000000000000000000", retries=2, **way)
    result = run(dag)
    assert result.state == "failed"
    assert result.tasks["wait"].try_number == 1
    assert "Job not found" in output()


@ways
def test_an_unknown_session_fails_though_ibm_lists_nothing_for_it(dag, run, way):
    with dag:
        sensor(session_id="no-such-session", **way)
    assert run(dag).state == "failed"


@ways
def test_gives_up_in_time_and_cancels_nothing(ibm, session, dag, run, way):
    ibm.settings.job_seconds = 3600
    job_id = submit(session.id)
    with dag:
        IBMQuantumJobSensor(task_id="wait", job_id=job_id, poke_interval=0.1, timeout=1, **way)
    assert run(dag).state == "failed"
    assert ibm.jobs[job_id].status == "Running"


@pytest.mark.parametrize(
    "ids",
    [{}, {"job_id": "a", "session_id": "b"}, {"job_id": ""}, {"job_id": "../x"}, {"session_id": "a b"}],
    ids=str,
)
def test_bad_ids_send_nothing(ibm, dag, run, ids, output):
    with dag:
        with_rendered(sensor(job_id="a"), **{"job_id": None, **ids})
    assert run(dag).state == "failed"
    assert ibm.journal == []
    assert "job_id" in output() or "session_id" in output()


@pytest.mark.parametrize("ids", [{}, {"job_id": "a", "session_id": "b"}, {"job_id": "../x"}], ids=str)
def test_bad_ids_are_found_when_the_dag_is_parsed(ids):
    with pytest.raises(ConfigurationError, match="job_id"):
        sensor(**ids)


def test_a_bad_choice_is_an_error_when_the_dag_is_read():
    with pytest.raises(ConfigurationError, match="on_job_failure must be one of fail, collect"):
        sensor(job_id="x", on_job_failure="ignore")
