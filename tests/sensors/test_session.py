# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor
from testing.airflow_runs import with_rendered
from testing.fake_ibm import Fault
from testing.retry_policies import single_attempt

pytestmark = pytest.mark.usefixtures("connection")

MODES = [{"mode": "poke"}, {"mode": "reschedule"}, {"deferrable": True}]
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda m: "-".join(map(str, m.values())))


def sensor(session_id, **kwargs):
    return IBMQuantumSessionSensor(
        task_id="wait", **{"session_id": session_id, "poke_interval": 0.2, "timeout": 60, **kwargs}
    )


@pytest.fixture
def expires_after_polls(ibm, when):
    """Once the sensor has polled, let half an hour pass: IBM closes a session that was never used."""
    return lambda polls=2: when(lambda: len(ibm.requests("GET")) >= polls, lambda: ibm.clock.advance(1900))


@every_mode
def test_succeeds_when_the_state_is_reached(ibm, dag, run, expires_after_polls, mode):
    session = ibm.add_session(state="open", age=1)
    sensor(session.id, **mode)
    expires_after_polls()
    result = run(dag)
    assert result.state == "success"
    assert result.xcom("wait")["id"] == session.id
    assert result.xcom("wait")["state"] == "closed"
    assert session.id in result.xcom("wait", "_link_IBMQuantumSessionLink")
    assert len(ibm.requests("GET", f"/v1/sessions/{session.id}")) >= 2


@every_mode
def test_one_of_several_states_is_enough(ibm, dag, run, mode):
    session = ibm.add_session(state="open", age=1)
    sensor(session.id, target_state=["active", "open"], **mode)
    assert run(dag).state == "success"
    assert len(ibm.requests("GET", f"/v1/sessions/{session.id}")) == 1


@every_mode
def test_fails_at_once_when_the_session_closes_first(ibm, dag, run, expires_after_polls, mode, output):
    session = ibm.add_session(state="open", age=1)
    sensor(session.id, target_state="active", retries=3, timeout=60, **mode)
    expires_after_polls()
    result = run(dag)
    assert result.state == "failed"
    assert result.tasks["wait"].try_number == 1
    assert "closed while waiting for active" in output()


@every_mode
def test_soft_fail_skips(ibm, dag, run, mode):
    session = ibm.add_session(state="closed", age=60)
    sensor(session.id, target_state="active", soft_fail=True, **mode)
    assert run(dag).state_of("wait") == "skipped"


@every_mode
def test_times_out(ibm, dag, run, mode, output):
    session = ibm.add_session(state="open", age=1)
    sensor(session.id, **{**mode, "timeout": 0.5})
    result = run(dag)
    assert result.state == "failed"
    assert "AirflowSensorTimeout" in output()
    assert ibm.sessions[session.id].state == "open", "a sensor cancels nothing"


@pytest.mark.parametrize("deferrable", [False, True])
def test_states_never_seen_before_are_waited_through(ibm, dag, run, deferrable):
    session = ibm.add_session(state="open", age=1)
    ibm.script(
        Fault(method="GET", path="/v1/sessions/*", json={"id": session.id, "state": "resting"}, times=2)
    )
    sensor(session.id, target_state="open", deferrable=deferrable)
    assert run(dag).state == "success"


@every_mode
def test_a_few_polls_in_a_row_may_fail(ibm, dag, run, mode, monkeypatch):
    single_attempt(monkeypatch)
    session = ibm.add_session(state="open", age=1)
    ibm.script(Fault(method="GET", path="/v1/sessions/*", status=503, times=4))
    sensor(session.id, target_state="open", **mode)
    assert run(dag).state == "success"
    assert len(ibm.requests("GET", f"/v1/sessions/{session.id}")) == 5


def test_an_outage_that_lasts_fails_the_task_but_a_retry_may_help(ibm, dag, run, monkeypatch, output):
    single_attempt(monkeypatch)
    session = ibm.add_session(state="open", age=1)
    ibm.script(Fault(method="GET", path="/v1/sessions/*", status=503, times=None))
    sensor(session.id, target_state="open", deferrable=False, retries=1, retry_delay=0)
    run(dag)
    assert "IBMQuantumTaskError" in output()
    assert "AirflowFailException" not in output()
    assert len(ibm.requests("GET", f"/v1/sessions/{session.id}")) > 5


def test_an_outage_that_lasts_does_not_let_a_deferred_sensor_wait_for_longer_than_its_timeout(
    ibm, dag, run, monkeypatch
):
    """Its trigger gives up after a few polls, and the worker polls itself: all within one timeout."""
    single_attempt(monkeypatch)
    session = ibm.add_session(state="open", age=1)
    ibm.script(
        Fault(method="GET", path="/v1/sessions/*", status=503, times=60),
        Fault(method="GET", path="/v1/sessions/*", status=404, times=None),
    )
    sensor(session.id, target_state="open", deferrable=True, timeout=4)
    assert run(dag).state == "failed"
    assert len(ibm.requests("GET", f"/v1/sessions/{session.id}")) < 60


def test_an_error_on_the_triggerers_host_lets_the_worker_wait_itself(
    ibm, dag, run, monkeypatch, expires_after_polls
):
    from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger

    async def fail(self):
        raise ConfigurationError("There is no Airflow connection", field="ibm_quantum_conn_id")

    monkeypatch.setattr(IBMQuantumSessionTrigger, "_find_connection", fail)
    session = ibm.add_session(state="open", age=1)
    sensor(session.id, deferrable=True)
    expires_after_polls(3)
    result = run(dag)
    assert result.state == "success"
    assert result.xcom("wait")["state"] == "closed"


@every_mode
def test_a_jobs_id_is_recognized(ibm, dag, run, mode, output):
    job = IBMQuantumHook().submit_job(
        "sampler", backend="ibm_fez", params={"pubs": [["OPENQASM 3.0; bit[2] c;"]]}
    )
    sensor(job.id, **mode)
    assert run(dag).state == "failed"
    assert f"session_id {job.id} is a job's id: use IBMQuantumJobSensor(job_id=...)" in output()


@every_mode
def test_an_authentication_error_is_not_waited_through(ibm, dag, run, mode):
    session = ibm.add_session(state="open", age=1)
    ibm.script(Fault(method="GET", path="/v1/sessions/*", status=401, times=None))
    sensor(session.id, target_state="active", retries=3, **mode)
    result = run(dag)
    assert result.state == "failed"
    assert result.tasks["wait"].try_number == 1
    assert len(ibm.requests("GET", f"/v1/sessions/{session.id}")) == 2, "sent once more with a new token"


@every_mode
@pytest.mark.parametrize("session_id", ["", "../x", "a b", "x" * 501], ids=["empty", "dots", "space", "long"])
def test_bad_ids_send_nothing(ibm, dag, run, mode, session_id):
    with_rendered(sensor("abc", **mode), session_id=session_id)
    assert run(dag).state == "failed"
    assert ibm.journal == []


@pytest.mark.parametrize("session_id", ["", "../x", "None"], ids=str)
def test_bad_ids_are_found_when_the_dag_is_parsed(session_id):
    with pytest.raises(ConfigurationError, match="session_id"):
        sensor(session_id)


@pytest.mark.parametrize("target", ["ready", [], ["closed", "Open"], None, 3], ids=str)
def test_unknown_target_states_are_import_errors_that_list_what_is_allowed(target):
    with pytest.raises(ValueError, match=r"target_state must .*open, active, inactive, closed"):
        sensor("abc", target_state=target)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_web_page_after_an_answer_is_passing_trouble(ibm, dag, run, expires_after_polls, deferrable):
    session = ibm.add_session(state="open", age=1)
    ibm.script(Fault(method="GET", path="/v1/sessions/*", html=True, skip=1, times=2))
    sensor(session.id, deferrable=deferrable)
    expires_after_polls(4)
    assert run(dag).state == "success"
