# SPDX-License-Identifier: Apache-2.0
"""Tasks on a connection with ``emulator: true``: their reports say so, and their links lead to its pages."""

from __future__ import annotations

import json

import httpx
import pytest

from airflow_provider_ibm_sessions.client import Credentials
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.emulator.emulator import IDENTITY, connection
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.links import console_url
from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator
from airflow_provider_ibm_sessions.sensors.job import IBMQuantumJobSensor

from .conftest import BELL

IBM = "quantum.cloud.ibm.com"


@pytest.fixture
def emulated(emulator, monkeypatch):
    """The connection ``ibm_quantum_default`` as the emulator prints it."""
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", json.dumps(connection(emulator.port)))
    return emulator


def run_jobs(**arguments):
    jobs = [{"program_id": "sampler", "params": {"pubs": [[BELL, None, 100]]}}]
    return IBMQuantumRunJobsOperator(
        task_id="bell", backend="ibm_fez", max_ttl="10m", jobs=jobs, poll_interval=0.2, **arguments
    )


def test_reports_and_links_are_the_emulators(emulated, dag, run, output):
    with dag:
        bell = run_jobs()
        IBMQuantumJobSensor(
            task_id="look", job_id="{{ ti.xcom_pull('bell')[0]['id'] }}", poke_interval=0.2
        ).set_upstream(bell)
    result = run(dag)
    assert result.state == "success"
    [report] = result.xcom("bell")
    assert report["emulator"] is True
    assert set(report["results"][0]["counts"]["pair"]) == {"00", "11"}
    pages = [
        result.xcom("bell", "_link_IBMQuantumSessionLink"),
        result.xcom("look", "_link_IBMQuantumJobLink"),
    ]
    for url in pages:
        page = httpx.get(url)
        assert (page.status_code, report["id"] in page.text) == (200, True), url
    assert all(page in output() for page in pages)
    assert IBM not in output()


def test_an_error_leads_to_the_emulators_page(emulated, settings, dag, run, output):
    settings.failures = [1517]
    with dag:
        run_jobs()
    result = run(dag)
    assert result.state == "failed"
    [report] = result.xcom("bell")
    assert report["emulator"] is True
    assert f"See http://127.0.0.1:{emulated.port}/workloads?search={report['id']}" in report["error"]
    assert IBM not in output()


def test_a_refusal_is_one_error_with_one_traceback(emulated, settings, dag, run, output):
    settings.plan = "open"
    with dag:
        run_jobs()
    assert run(dag).state == "failed"
    logged = output()
    remedy = "Create a session: Use mode='batch', or an instance of a paid plan"
    assert f"AirflowFailException: {remedy}" in logged
    assert "The above exception was the direct cause" not in logged
    assert "During handling of the above exception" not in logged


def test_the_page_of_all_is_the_emulators(emulated):
    hook = IBMQuantumHook()
    assert hook.console_url() == f"http://127.0.0.1:{emulated.port}/workloads"
    assert "IBM Quantum emulator" in httpx.get(hook.console_url()).text
    works, message = hook.test_connection()
    assert (works, message.startswith("This is an emulator. ")) == (True, True)


def test_without_a_connection_links_lead_to_ibm(airflow_db, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", '{"conn_type": "ibm_quantum", "extra": {"emulator": true}}')
    assert (
        IBMQuantumHook("broken").console_url("x") == console_url("x") == f"https://{IBM}/workloads?search=x"
    )


def test_ibms_own_host_is_no_emulator():
    with pytest.raises(ConfigurationError, match="emulator must be false, or host the emulator's") as e:
        Credentials(api_key="k" * 44, crn=IDENTITY.crn, emulator=True)
    assert e.value.field == "emulator"
