# SPDX-License-Identifier: Apache-2.0
"""The instance's usage limit is looked at before a session is opened."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from airflow_provider_ibm_sessions.client import instance_reader
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.operators.session import IBMQuantumCreateSessionOperator
from airflow_provider_ibm_sessions.triggers import usage
from testing.airflow_runs import cleared, next_try
from testing.dag_tasks import run_jobs
from testing.dag_tasks import sampler_job as job
from testing.fake_ibm import Fault

pytestmark = pytest.mark.usefixtures("connection")

USAGE = "/v1/instances/usage"


def create(**kwargs):
    return IBMQuantumCreateSessionOperator(
        task_id="run",
        **{"backend": "ibm_fez", "max_ttl": "10m", "min_usage_remaining": "10m", **kwargs},
    )


def jobs(**kwargs):
    return run_jobs(jobs=[job(), job()], **{"min_usage_remaining": "10m", **kwargs})


OPENERS = {"create": create, "run-jobs": jobs}
both = pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)


@pytest.fixture
def low(ibm):
    """Leave two minutes of ten hours."""
    ibm.settings.usage_before = 35_880.0
    ibm.settings.job_seconds = 0.05


@pytest.fixture
def quick_polls(monkeypatch):
    monkeypatch.setattr(instance_reader, "MAX_AGE", 0.1)
    monkeypatch.setattr(usage, "POLL_INTERVAL", 0.2)


@both
def test_too_little_fails_before_a_session_is_opened(ibm, low, dag, run, output, opener):
    opener(retries=2)
    assert run(dag).tasks["run"].try_number == 1
    assert (
        "AirflowFailException: The instance has 120 s of usage left, min_usage_remaining is 600 s: raise its "
        "limit, or set on_low_usage='wait'. Limit 36000 s, used 35880 s, remaining 120 s; the period ends "
    ) in output()
    assert ibm.requests("POST", "/v1/*") == []
    assert len(ibm.requests("GET", USAGE)) == 1


@both
def test_or_skips_the_task(ibm, low, dag, run, opener):
    opener(on_low_usage="skip")
    assert run(dag).state_of("run") == "skipped"
    assert ibm.requests("POST", "/v1/*") == []


@both
@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_or_waits_until_the_budget_is_back(ibm, low, dag, run, when, quick_polls, output, opener, deferrable):
    def new_period():
        ibm.settings.usage_before = 0.0

    when(lambda: len(ibm.requests("GET", USAGE)) >= 3, new_period)
    opener(on_low_usage="wait", deferrable=deferrable)
    result = run(dag)
    assert result.state == "success"
    assert len(ibm.sessions) == 1
    [opened] = ibm.requests("POST", "/v1/sessions")
    assert opened.time >= ibm.requests("GET", USAGE)[2].time
    assert "No session is opened before" in output()


@pytest.mark.parametrize("limit", [None, 36_000], ids=["no limit", "enough"])
def test_enough_or_no_limit_passes(ibm, dag, run, limit):
    ibm.settings.usage_limit_seconds = limit
    ibm.settings.usage_before = 20_000.0
    create(min_usage_remaining="{{ 15000 }}")
    assert run(dag).state == "success"
    assert len(ibm.requests("GET", USAGE)) == 1


def test_nobody_asks_if_it_is_not_wanted(ibm, low, dag, run):
    create(min_usage_remaining=None)
    assert run(dag).state == "success"
    assert ibm.requests("GET", USAGE) == []


@pytest.mark.parametrize("on_low_usage", ["fail", "wait"])
def test_a_key_that_may_not_read_the_usage_opens_nothing_and_is_told_why_once(
    ibm, dag, run, output, on_low_usage
):
    ibm.script(Fault(path=USAGE, status=403, message="Forbidden", times=None))
    create(on_low_usage=on_low_usage, retries=2)
    assert run(dag).tasks["run"].try_number == 1
    assert "lacks the IAM action quantum-computing.instance-usage.read" in output()
    assert len(ibm.requests("GET", USAGE)) == 1
    assert ibm.sessions == {}


def test_a_session_that_is_resumed_needs_no_new_budget(ibm, dag, run):
    create()
    result = run(dag)
    ibm.settings.usage_before = 36_000.0
    [session_id] = ibm.sessions
    again = next_try(result, dag, "run")
    assert again.xcom("run") == session_id
    assert len(ibm.requests("GET", USAGE)) == 1


def test_results_are_collected_without_budget(ibm, dag, run):
    ibm.settings.job_seconds = 0.05
    jobs()
    result = run(dag)
    ibm.settings.usage_before = 36_000.0
    again = cleared(result, dag, "run")
    assert again.state_of("run") == "success"
    assert len(ibm.requests("POST", "/v1/sessions")) == 1


def test_a_session_whose_create_response_was_lost_is_found_without_budget(ibm, dag, run, monkeypatch):
    """The next try looks for it first: it may be open, whatever is left."""
    from airflow_provider_ibm_sessions.client.recovery import PendingCreate

    def lost(self, *args):
        raise KeyboardInterrupt("as if the worker had died")

    with monkeypatch.context() as patch:
        patch.setattr(PendingCreate, "create", lost)
        create(retries=0)
        result = run(dag)
    assert ibm.sessions == {}
    ibm.settings.usage_before = 36_000.0
    next_try(result, dag, "run")
    assert len(ibm.requests("GET", USAGE)) == 1


def test_a_triggerer_that_cannot_wait_leaves_it_to_the_worker(
    ibm, low, dag, run, when, quick_polls, monkeypatch
):
    from airflow_provider_ibm_sessions.triggers.usage import IBMQuantumUsageTrigger

    async def fail(self):
        raise ConfigurationError("There is no Airflow connection", field="ibm_quantum_conn_id")

    deferred = []
    original = IBMQuantumUsageTrigger.run

    async def run_without_connection(self):
        deferred.append(self)
        self._find_connection = fail.__get__(self)
        async for event in original(self):
            yield event

    monkeypatch.setattr(IBMQuantumUsageTrigger, "run", run_without_connection)
    when(lambda: len(ibm.requests("GET", USAGE)) >= 4, lambda: setattr(ibm.settings, "usage_before", 0.0))
    create(on_low_usage="wait", deferrable=True)
    assert run(dag).state == "success"
    assert len(deferred) == 1


@pytest.mark.parametrize(
    ("argument", "allowed"),
    [
        ({"on_low_usage": "ignore"}, "on_low_usage must be one of fail, skip, wait"),
        ({"min_usage_remaining": "-10m"}, "min_usage_remaining must be 1 to"),
        ({"min_usage_remaining": 0}, "min_usage_remaining must be 1 to"),
        ({"deferrable": "no idea"}, "deferrable must be true or false"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named_when_the_dag_is_read(argument, allowed):
    with DAG("wrong_budget", schedule=None), pytest.raises(ConfigurationError, match=allowed):
        create(**argument)


def test_the_decorator_asks_as_well(ibm, low, dag, run, output):
    from airflow.sdk import task

    with dag:

        @task.ibm_quantum_session(backend="ibm_fez", max_ttl="5m", min_usage_remaining="10m")
        def work(session):
            return 1

        @task.ibm_quantum_session(backend="ibm_fez", min_usage_remaining="10m", on_low_usage="skip")
        def idle(session):
            return 1

        work()
        idle()
    result = run(dag)
    assert (result.state_of("work"), result.state_of("idle")) == ("failed", "skipped")
    assert "The instance has 120 s of usage left" in output()
    assert ibm.requests("POST", "/v1/*") == []


def test_the_decorator_waits_in_its_worker(ibm, low, dag, run, when, quick_polls):
    from airflow.sdk import task

    with dag:

        @task.ibm_quantum_session(
            backend="ibm_fez", max_ttl="5m", min_usage_remaining="10m", on_low_usage="wait"
        )
        def work(session):
            return session.session_id

        work()
    when(lambda: len(ibm.requests("GET", USAGE)) >= 3, lambda: setattr(ibm.settings, "usage_before", 0.0))
    result = run(dag)
    assert result.state == "success"
    assert result.xcom("work") in ibm.sessions
