# SPDX-License-Identifier: Apache-2.0
"""Reports say what is needed to repeat a job."""

from __future__ import annotations

import hashlib
import json
import platform

import pytest

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.operators.job import IBMQuantumSubmitJobOperator
from testing.dag_tasks import run_jobs, sampler_job
from testing.fake_ibm import Fault

pytestmark = pytest.mark.usefixtures("connection", "airflow_db")

OPTIONS = {"default_shots": 10, "simulator": {"seed_simulator": 7}, "twirling": {"enable_gates": True}}


def sha256(params):
    return hashlib.sha256(json.dumps(params, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.mark.parametrize("deferrable", [True, False])
def test_of_run_jobs(ibm, dag, run, deferrable):
    with_options = sampler_job(calibration_id="c-1")
    with_options["params"]["options"] = OPTIONS
    with dag:
        run_jobs(jobs=[with_options, sampler_job(3, private=True)], deferrable=deferrable)
    result = run(dag)
    first, private = (report["provenance"] for report in result.xcom("run"))
    [session] = list(ibm.sessions.values())
    of_first, of_private = list(ibm.jobs.values())
    versions = first.pop("versions")
    assert versions["airflow-provider-ibm-sessions"] == __version__
    assert versions["python"] == platform.python_version()
    assert [each["status"] for each in first.pop("session_timestamps")] == ["open", "active", "closed"]
    assert first == {
        "backend": "ibm_fez",
        "calibration_id": "c-1",
        "session_id": session.id,
        "options": OPTIONS,
        "seeds": {"simulator.seed_simulator": 7},
        "params_sha256": sha256(of_first.params),
        "dag_id": dag.dag_id,
        "run_id": result.dag_run.run_id,
        "task_id": "run",
        "map_index": -1,
        "try_number": 1,
    }
    assert private["params_sha256"] == sha256(of_private.params)
    assert not {"options", "seeds"} & set(private)


def test_of_a_job_alone_that_failed(ibm, dag, run):
    ibm.settings.failures = [1517]
    with dag:
        IBMQuantumSubmitJobOperator(
            task_id="submit",
            program_id="sampler",
            program_params={**sampler_job()["params"], "options": OPTIONS},
            backend="ibm_fez",
        )
    result = run(dag)
    assert result.state == "failed"
    found = result.xcom("submit")["provenance"]
    assert found["params_sha256"] == sha256(next(iter(ibm.jobs.values())).params)
    assert found["options"] == OPTIONS
    assert "session_id" not in found


def test_a_folder_for_each_job(ibm, dag, run, tmp_path):
    ibm.settings.qiskit_version = "2.4.1"
    with dag:
        run_jobs(jobs=[sampler_job(), sampler_job(3, private=True)], provenance_path=str(tmp_path))
    result = run(dag)
    assert result.state == "success"
    (name, job), (private, _) = ibm.jobs.items()
    kept = {path.name: json.loads(path.read_text()) for path in (tmp_path / name).iterdir()}
    assert sorted(kept) == ["backend-properties.json", "params.json", "provenance.json", "results.json"]
    assert kept["params.json"] == job.params
    assert kept["provenance.json"] == result.xcom("run")[0]["provenance"]
    assert kept["results.json"]["results"][0]["data"]["meas"]["num_bits"] == 2
    assert kept["backend-properties.json"]["backend_name"] == "ibm_fez"
    assert kept["provenance.json"]["qiskit_version"] == "2.4.1"
    [read] = ibm.requests("GET", "/v1/backends/ibm_fez/properties")
    assert list(read.query) == ["updated_before"]
    assert not (tmp_path / private / "params.json").exists()
    assert (tmp_path / private / "results.json").exists()


def test_a_folder_that_cannot_be_written_fails_no_job(ibm, dag, run, tmp_path, output):
    (tmp_path / "file").write_text("")
    with dag:
        run_jobs(jobs=[sampler_job()], provenance_path=str(tmp_path / "file"))
    assert run(dag).state == "success"
    assert "was not kept in" in output()


def test_metrics_that_cannot_be_read_fail_no_job(ibm, dag, run, tmp_path, output):
    ibm.script(Fault("GET", "/v1/jobs/*/metrics", status=403, times=None))
    with dag:
        IBMQuantumSubmitJobOperator(
            task_id="submit",
            program_id="sampler",
            program_params=sampler_job()["params"],
            backend="ibm_fez",
            provenance_path=str(tmp_path),
        )
    result = run(dag)
    assert result.state == "success"
    assert "qiskit_version" not in result.xcom("submit")["provenance"]
    assert "metrics of job" in output()


def test_a_template_that_rendered_to_nothing_is_named_before_a_session_is_opened(ibm, dag, run, output):
    with dag:
        run_jobs(provenance_path="{{ ti.xcom_pull(task_ids='nobody') }}")
    assert run(dag).state == "failed"
    assert ibm.requests("POST", "/v1/sessions") == []
    assert "provenance_path is empty" in output()
