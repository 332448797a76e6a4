# SPDX-License-Identifier: Apache-2.0
"""What is weaker on older versions of Airflow: the rows of the table in ``docs/versions.md``."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import task
from airflow.triggers.base import BaseTrigger

from airflow_provider_ibm_sessions.cli.metastore import records_of_run
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.lifecycle.kill import another_try_is_active
from testing.airflow_runs import cleared, next_try
from testing.dag_tasks import dies, run_jobs, sampler_job, submit
from testing.jobs_seen import only, statuses

pytestmark = pytest.mark.usefixtures("connection", "quick", "short_jobs")

HAS_STORE = find_spec("airflow.models.task_state_store") is not None
IS_3_1 = find_spec("airflow.serialization.definitions.dag") is None
before_3_3 = pytest.mark.skipif(HAS_STORE, reason="this Airflow has the task state store")


def test_the_delay_between_retries_doubles(dag):
    """In Airflow 3.1 it can only be switched on."""
    with dag:
        operator = submit()
    assert operator.retry_exponential_backoff in (True, 2)
    assert (operator.retry_exponential_backoff is True) == IS_3_1


@before_3_3
def test_clearing_cannot_return_the_results_of_a_private_job_again(ibm, dag, run, output):
    from airflow.sdk import Variable

    with dag:
        submit(private=True)
    first = run(dag)
    assert first.state == "success"
    assert cleared(first, dag, "run").state_of("run") == "failed"
    assert "IBM gives those of a private job out once only" in output()
    assert len(ibm.jobs) == 1
    assert Variable.get(f"ibm_quantum_results_{only(ibm.jobs).id}", default=None) is None


@before_3_3
def test_a_retry_with_other_input_does_not_end_the_jobs_of_the_old_one(ibm, dag, run, monkeypatch):
    ibm.settings.job_seconds = 600
    dies(monkeypatch, IBMQuantumHook, "update_session", before=False)
    with dag:
        operator = run_jobs(jobs=[sampler_job(1)], timeout=5)
    first = run(dag)
    operator.jobs = [sampler_job(2)]
    next_try(first, dag, "run")
    assert len(ibm.jobs) == 2
    assert statuses(ibm)[0] in ("Queued", "Running")


@pytest.mark.skipif(IS_3_1 and find_spec("wtforms") is None, reason="the form needs WTForms")
def test_the_connection_form_has_its_fields(airflow_db):
    from airflow.providers_manager import ProvidersManager

    assert "extra__ibm_quantum__crn" in ProvidersManager().connection_form_widgets


@before_3_3
def test_the_command_usage_says_what_it_needs(dag, run):
    with dag:
        EmptyOperator(task_id="nothing")
    result = run(dag)
    with pytest.raises(ConfigurationError, match="usage needs Airflow"):
        records_of_run(result.dag_run.dag_id, result.dag_run.run_id)


@before_3_3
def test_the_record_of_a_session_is_an_xcom(ibm, dag, run):
    with dag:
        run_jobs()
    result = run(dag)
    session = only(ibm.sessions)
    assert result.xcom("run", f"ibm_quantum_record_{session.id}") is not None


@before_3_3
def test_the_state_of_a_task_is_not_kept(ibm, dag, run):
    from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState

    with dag:

        @task
        def look():
            from airflow.sdk import get_current_context

            return TaskState.load(get_current_context()).is_durable

        look()
    assert run(dag).xcom("look") is False


@before_3_3
def test_a_killed_task_does_not_know_of_another_try(dag, run):
    """So it ends its session and jobs, and a try that follows submits them again."""
    with dag:

        @task
        def look():
            from airflow.sdk import get_current_context

            return another_try_is_active(get_current_context())

        look()
    assert run(dag).xcom("look") is False


@before_3_3
def test_airflow_does_not_tell_a_trigger_of_the_end_of_its_task():
    assert not hasattr(BaseTrigger, "on_kill")
