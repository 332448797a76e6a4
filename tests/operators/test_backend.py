# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions.client import instance_reader
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, NoBackendError
from airflow_provider_ibm_sessions.emulator.service.settings import Device
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.operators.backend import IBMQuantumSelectBackendOperator
from testing.airflow_runs import next_try
from testing.fake_ibm import Fault

pytestmark = pytest.mark.usefixtures("connection", "devices")


@pytest.fixture
def devices(ibm):
    """Devices in all states; ``ibm_kingston`` is the one that is free soonest."""
    ibm.settings.backends = {
        "ibm_fez": Device(156, queue_length=2, wait_seconds=5400),
        "ibm_kingston": Device(156, queue_length=3, wait_seconds=420),
        "ibm_torino": Device(133, queue_length=0, wait_seconds=9000),
        "ibm_marrakesh": Device(156, "paused", "calibration", wait_seconds=0),
        "ibm_miami": Device(120, "offline", wait_seconds=0),
        "mock_fez": Device(156, wait_seconds=0),
    }
    return ibm.settings.backends


@pytest.fixture
def fresh(monkeypatch):
    """Let each poll ask: what is shared for 30 s would hold up the test."""
    monkeypatch.setattr(instance_reader, "MAX_AGE", 0.1)


def select(**kwargs):
    return IBMQuantumSelectBackendOperator(
        task_id="select", **{"poll_interval": 0.2, "timeout": 60, **kwargs}
    )


def test_the_qpu_that_is_free_soonest_is_chosen_and_the_xcom_says_by_what(ibm, dag, run, output):
    select(min_qubits=140)
    result = run(dag)
    assert result.xcom("select") == "ibm_kingston"
    chosen = result.xcom("select", "backend")
    assert (chosen["name"], chosen["order_by"], chosen["wait_time"]) == ("ibm_kingston", "wait_time", 420)
    assert chosen["candidates"] == ["ibm_kingston", "ibm_fez"]
    assert chosen["reasons"]["ibm_marrakesh"] == "paused (calibration)"
    assert "QPU ibm_kingston is chosen by wait_time 420" in output()
    assert len(ibm.requests("GET", "/v1/backends")) == 1


def test_templates_are_read(ibm, run):
    with DAG("select_by_params", schedule=None, params={"least": 150, "never": ["ibm_kingston"]}) as dag:
        select(min_qubits="{{ params.least }}", exclude="{{ params.never | tojson }}")
    assert run(dag).xcom("select") == "ibm_fez"


def test_without_wait_times_it_falls_back_to_the_queue_and_says_so(ibm, dag, run, output):
    ibm.settings.plan = "open"
    select(min_qubits=140)
    result = run(dag)
    assert result.xcom("select") == "ibm_fez"
    assert result.xcom("select", "backend")["is_fallback"] is True
    assert "QPU ibm_fez is chosen by queue_length 2, since IBM tells no wait times on this plan" in output()


def test_if_none_does_the_error_names_each(ibm, dag, run, output):
    select(max_wait="5m", min_qubits=140, retries=1, retry_delay=0)
    assert run(dag).state == "failed"
    for part in (
        "No QPU meets the requirements: ibm_fez: wait time 5400.0 s, max_wait is 300 s; ibm_kingston: wait",
        "ibm_torino: 133 qubits, min_qubits is 140, wait time 9000.0 s",
        "ibm_marrakesh: paused (calibration); ibm_miami: 120 qubits, min_qubits is 140, offline",
        "mock_fez: a device for dry runs",
    ):
        assert part in output()
    assert "IBMQuantumTaskError" in output(), "a retry may help"


@pytest.mark.parametrize("wait", [False, True])
def test_what_no_qpu_will_ever_have_fails_at_once(ibm, dag, run, output, wait):
    select(min_qubits=1000, wait=wait, retries=1)
    assert run(dag).tasks["select"].try_number == 1
    assert "AirflowFailException: No QPU meets the requirements" in output()


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_it_waits_until_one_is_back(ibm, dag, run, devices, when, fresh, deferrable):
    def repair():
        devices["ibm_marrakesh"].status = "online"

    when(lambda: len(ibm.requests("GET", "/v1/backends")) > 2, repair)
    select(among=["ibm_marrakesh", "ibm_miami"], wait=True, deferrable=deferrable)
    result = run(dag)
    assert result.xcom("select") == "ibm_marrakesh"
    assert result.xcom("select", "backend")["reasons"] == {"ibm_miami": "offline (maintenance)"}


def test_it_does_not_wait_for_longer_than_its_timeout(ibm, dag, run, fresh, output):
    select(among=["ibm_miami"], wait=True, deferrable=True, timeout=0.5, retries=1)
    assert run(dag).tasks["select"].try_number == 1
    assert "ibm_miami: offline (maintenance). Waited in vain until the timeout" in output()


def test_later_tasks_and_their_retries_keep_the_choice(ibm, dag, run, devices):
    with dag:

        @task
        def use(backend):
            return backend

        use(select().output)
    result = run(dag)
    devices["ibm_kingston"].status = "offline"
    again = next_try(result, dag, "use")
    assert again.xcom("use") == "ibm_kingston"
    assert len(ibm.requests("GET", "/v1/backends")) == 1


@pytest.mark.parametrize(
    ("argument", "allowed"),
    [
        ({"order_by": "price"}, "order_by must be one of wait_time, queue_length, two_q_error"),
        ({"min_qubits": -1}, "min_qubits must be a whole number from 1"),
        ({"max_wait": "soon"}, "max_wait must be 1 to"),
        ({"max_two_q_error": 2}, "max_two_q_error must be a number from 0 to 1"),
        ({"among": ["{{ params.x }}", "ibm_fez"], "exclude": [3]}, "exclude[0] must be the name of a QPU"),
        ({"wait": "perhaps"}, "wait must be true or false"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named_when_the_dag_is_read(argument, allowed):
    with pytest.raises(ConfigurationError) as caught:
        select(**argument)
    assert allowed in str(caught.value)


def test_a_template_that_renders_to_nothing_is_named_before_anything_is_sent(ibm, dag, run, output):
    select(among="{{ ti.xcom_pull(task_ids='nope') }}")
    assert run(dag).state == "failed"
    assert "among is empty" in output()
    assert ibm.requests("GET", "/v1/backends") == []


def test_the_hook_does_the_same(ibm):
    hook = IBMQuantumHook()
    assert hook.select_backend(order_by="queue_length", min_qubits=140) == "ibm_fez"
    assert [backend.name for backend in hook.list_backends()] == list(ibm.settings.backends)
    assert hook.instance_usage().remaining == 36_000
    with pytest.raises(NoBackendError, match="ibm_old: not a QPU of this instance"):
        IBMQuantumHook().select_backend(among=["ibm_old"])
    assert len(ibm.requests("GET", "/v1/backends")) == 1, "hooks on one connection share a request"


def test_an_outage_is_for_a_retry(ibm, dag, run, output, quick):
    ibm.script(Fault(path="/v1/backends", status=503, times=3))
    select()
    assert run(dag).xcom("select") == "ibm_kingston"
