# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from airflow.sdk import DAG

from airflow_provider_ibm_sessions.client import instance_reader
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.sensors.backend import IBMQuantumBackendSensor

pytestmark = pytest.mark.usefixtures("connection", "fresh")

MODES = [{"mode": "poke"}, {"mode": "reschedule"}, {"deferrable": True}]
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda m: "-".join(map(str, m.values())))


@pytest.fixture
def fresh(monkeypatch):
    """Let each poll ask: what is shared for 30 s would hold up the test."""
    monkeypatch.setattr(instance_reader, "MAX_AGE", 0.1)


@pytest.fixture
def fez(ibm):
    return ibm.settings.backends["ibm_fez"]


def sensor(**kwargs):
    return IBMQuantumBackendSensor(
        task_id="wait", **{"backend": "ibm_fez", "poke_interval": 0.2, "timeout": 60, **kwargs}
    )


@every_mode
def test_waits_until_the_qpu_is_online_and_its_queue_short(ibm, dag, run, fez, when, mode):
    fez.status, fez.queue_length, fez.wait_seconds = "paused", 50, 7200
    polls = lambda: len(ibm.requests("GET", "/v1/backends"))  # noqa: E731
    when(lambda: polls() >= 1, lambda: setattr(fez, "status", "online"))
    when(lambda: polls() >= 2, lambda: setattr(fez, "queue_length", 3))
    when(lambda: polls() >= 3, lambda: setattr(fez, "wait_seconds", 60))
    sensor(max_queue_length=5, max_wait="2m", **mode)
    result = run(dag)
    assert result.state == "success"
    found = result.xcom("wait")
    assert (found["name"], found["state"], found["queue_length"], found["wait_time"]) == (
        "ibm_fez",
        "online",
        3,
        60,
    )


def test_one_that_pokes_logs_changes_only(ibm, dag, run, fez, when, output):
    fez.status = "offline"
    polls = lambda: len(ibm.requests("GET", "/v1/backends"))  # noqa: E731
    when(lambda: polls() >= 4, lambda: setattr(fez, "status", "paused"))
    when(lambda: polls() >= 5, lambda: setattr(fez, "status", "online"))
    sensor(mode="poke")
    assert run(dag).state == "success"
    logged = output()
    assert logged.count("ibm_fez: offline") == logged.count("ibm_fez: paused") > 0


@every_mode
def test_a_retired_name_fails_at_once(ibm, dag, run, output, mode):
    sensor(backend="ibm_brussels", retries=2, **mode)
    assert run(dag).tasks["wait"].try_number == 1
    assert "ibm_brussels: not a QPU of this instance: retired, or misspelled" in output()
    assert "The instance has ibm_fez, ibm_marrakesh" in output()


def test_a_qpu_that_is_retired_while_a_deferred_sensor_waits_fails_it(ibm, dag, run, fez, when, output):
    fez.status = "offline"
    when(lambda: ibm.requests("GET", "/v1/backends"), lambda: ibm.settings.backends.pop("ibm_fez"))
    sensor(deferrable=True)
    assert run(dag).state == "failed"
    assert "ibm_fez: not a QPU of this instance" in output()


@every_mode
def test_times_out(ibm, dag, run, fez, output, mode):
    fez.status = "offline"
    sensor(**{**mode, "timeout": 0.5})
    assert run(dag).state == "failed"
    assert "AirflowSensorTimeout" in output()


def test_soft_fail_skips(ibm, dag, run):
    sensor(backend="ibm_brussels", soft_fail=True)
    assert run(dag).state_of("wait") == "skipped"


def test_the_open_plan_has_no_wait_time_to_wait_for(ibm, dag, run, output):
    ibm.settings.plan = "open"
    sensor(max_wait=60)
    assert run(dag).state == "failed"
    assert "use max_queue_length in place of max_wait" in output()


def test_templates_are_read(ibm, run, fez):
    fez.queue_length = 2
    with DAG("wait_by_params", schedule=None, params={"qpu": "ibm_fez", "most": 2, "wait": "5m"}) as dag:
        sensor(backend="{{ params.qpu }}", max_queue_length="{{ params.most }}", max_wait="{{ params.wait }}")
    assert run(dag).state == "success"


@pytest.mark.parametrize(
    ("argument", "allowed"),
    [
        ({"backend": "ibm fez"}, "backend must be the name of a QPU"),
        ({"max_queue_length": -1}, "max_queue_length must be a whole number from 0"),
        ({"max_wait": 0}, "max_wait must be 1 to"),
        ({"poke_interval": 0}, "poke_interval must be a number of seconds"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named_when_the_dag_is_read(argument, allowed):
    with pytest.raises(ConfigurationError, match=allowed):
        sensor(**argument)
