# SPDX-License-Identifier: Apache-2.0
"""With a real scheduler, triggerer and API server, and the connection in the metadata database."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from airflow_provider_ibm_sessions.client import Credentials, IBMQuantumClient
from testing.airflow_home import AIRFLOW_HOME
from testing.airflow_standalone import running_airflow, until
from testing.connections import connection_to
from testing.dag_tasks import sampler_job
from testing.fake_ibm import FakeIBM
from testing.secret_scan import remember_secrets

pytestmark = pytest.mark.standalone
CONNECTION = "ibm_quantum_default"
BEFORE_3_3 = find_spec("airflow.models.task_state_store") is None
AIRFLOWS_OWN = "Connection schemes (type: ibm_quantum) shall not contain '_'"
"""What Airflow before 3.3 warns of whenever it reads a connection."""


@pytest.fixture(scope="module")
def service():
    with FakeIBM() as fake:
        yield fake
        remember_secrets(fake)
        assert fake.leaks == []


@pytest.fixture(scope="module")
def airflow(service):
    dags = Path(__file__).parent / "dags"
    home = AIRFLOW_HOME / "standalone"  # searched for secrets after the last test
    with running_airflow(home, dags, {"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}) as airflow:
        fields = json.loads(connection_to(service))
        airflow.put_connection({"connection_id": CONNECTION, **fields, "extra": json.dumps(fields["extra"])})
        yield airflow


def test_a_deferred_sensor_wakes_up_when_the_session_closes(airflow, service):
    airflow.wait_for_dags({"waits"})
    run_id = airflow.trigger("waits", {})

    def state_of(task_id):
        return airflow.tasks("waits", run_id)[task_id]["state"]

    until(lambda: state_of("wait") == "deferred", seconds=300)
    [session] = service.sessions.values()
    polls = len(service.requests("GET", f"/v1/sessions/{session.id}"))
    until(lambda: len(service.requests("GET", f"/v1/sessions/{session.id}")) > polls + 1, seconds=300)
    links = airflow.get(f"/dags/waits/dagRuns/{run_id}/taskInstances/wait/links")["extra_links"]
    assert links == {
        "IBM Quantum session": f"https://quantum.cloud.ibm.com/workloads?search={session.id}",
        "IBM Quantum page": f"{airflow.url}/plugin/ibm-quantum?session={session.id}",
    }
    assert state_of("wait") == "deferred"

    service.clock.advance(1900)  # never used for half an hour: IBM closes it

    assert airflow.wait_for_run("waits", run_id, seconds=300) == "success"
    assert airflow.xcom("waits", run_id, "wait")["state"] == "closed"
    assert service.state()["accepting"] == []


def test_there_is_no_import_error(airflow):
    airflow.wait_for_dags({"waits"})
    assert airflow.get("/importErrors")["total_entries"] == 0


def test_the_connection_does_not_show_its_key(airflow, service):
    shown = json.dumps(airflow.get(f"/connections/{CONNECTION}"))
    assert service.crn in shown
    assert service.api_key not in shown


def test_the_form_is_offered(airflow):
    meta = airflow.http.get(f"{airflow.url}/ui/connections/hook_meta").raise_for_status().json()
    [form] = [entry for entry in meta if entry["connection_type"] == "ibm_quantum"]
    assert form["hook_name"] == "IBM Quantum"
    if BEFORE_3_3 and form["extra_fields"] is None:
        pytest.skip("this Airflow's form needs WTForms, which comes with the FAB provider")
    assert "crn" in form["extra_fields"]


def test_the_test_button_says_that_all_is_well(airflow, service):
    fields = json.loads(connection_to(service))
    body = {"connection_id": CONNECTION, **fields, "extra": json.dumps(fields["extra"])}
    answer = airflow.http.post(f"{airflow.url}/api/v2/connections/test", json=body).raise_for_status().json()
    assert answer["status"] is True, answer
    assert "us-east" in answer["message"]


def test_the_log_of_a_green_task_has_no_error_and_no_warning_twice(airflow, service):
    """Airflow logs as an error what a task writes to stderr."""
    service.settings.job_seconds = 1
    service.next_jobs([{"seconds": 5}])
    airflow.wait_for_dags({"green"})
    run_id = airflow.trigger("green", {})
    state = airflow.wait_for_run("green", run_id, seconds=600)
    tasks = airflow.tasks("green", run_id)
    assert state == "success", {name: task["state"] for name, task in tasks.items()}
    for task_id in tasks:
        path = f"/dags/green/dagRuns/{run_id}/taskInstances/{task_id}/logs/1"
        entries = [entry for entry in airflow.get(path)["content"] if "level" in entry]
        assert entries, f"{task_id} has a log"
        errors = [entry for entry in entries if entry["level"] in ("error", "critical")]
        assert errors == [], task_id
        warnings = [entry["event"] for entry in entries if entry["level"] == "warning"]
        warnings = [text for text in warnings if not text.startswith(AIRFLOWS_OWN)]
        assert len(warnings) == len(set(warnings)), task_id


def test_events_start_the_example_dags_once_over_a_restart_of_the_triggerer(airflow, service):
    """No event is sent twice. From Airflow 3.3 on, none of what happens meanwhile is lost."""
    on_qpu, on_job = "ibm_quantum_on_qpu_ready", "ibm_quantum_on_job_final"
    airflow.wait_for_dags({on_qpu, on_job})
    qpu = service.settings.backends["ibm_fez"]

    def polls():
        """Return how often QPUs and jobs were read: QPUs twice a minute at most, whatever the interval."""
        return len(service.requests("GET", "/v1/backends")), len(service.requests("GET", "/v1/jobs"))

    def wait_for_polls(before):
        """Wait until both triggers have polled, the one of jobs twice: each poll makes two requests."""
        qpus, jobs = before
        until(lambda: polls()[0] > qpus and polls()[1] >= jobs + 4, seconds=300)

    def submit_job():
        credentials = Credentials(service.api_key, service.crn, url=service.url, iam_url=service.iam_url)
        with IBMQuantumClient(credentials) as client:
            return client.submit_job(**sampler_job(tags=["nightly"]), backend="ibm_torino").id

    def runs_of(dag_id):
        return [run["dag_run_id"] for run in airflow.get(f"/dags/{dag_id}/dagRuns")["dag_runs"]]

    def wait_for_runs(dag_id, count):
        until(lambda: len(runs_of(dag_id)) >= count, seconds=300)
        found = runs_of(dag_id)
        assert [airflow.wait_for_run(dag_id, run_id, seconds=300) for run_id in found] == ["success"] * count
        return found

    before = polls()
    qpu.queue_length = 6  # more than the example waits for
    for dag_id in (on_qpu, on_job):
        airflow.unpause(dag_id)
    wait_for_polls(before)
    qpu.queue_length = 0
    job_id = submit_job()
    [run_id] = wait_for_runs(on_qpu, 1)
    [figures] = airflow.xcom(on_qpu, run_id, "report_qpu")
    assert (figures["name"], figures["queue_length"]) == ("ibm_fez", 0)
    [run_id] = wait_for_runs(on_job, 1)
    assert airflow.xcom(on_job, run_id, "report_jobs") == [{"id": job_id, "state": "Completed"}]

    with airflow.without_triggerer():
        before = polls()
        meanwhile = submit_job()
        until(lambda: service.jobs[meanwhile].final, seconds=60)

    expected = [job_id] if BEFORE_3_3 else [job_id, meanwhile]
    found = wait_for_runs(on_job, len(expected))
    told = [job["id"] for run_id in found for job in airflow.xcom(on_job, run_id, "report_jobs")]
    assert sorted(told) == sorted(expected)
    wait_for_polls(before)
    assert len(runs_of(on_job)) == len(expected)
    assert len(runs_of(on_qpu)) == 1
