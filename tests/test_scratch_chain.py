"""Scratch: three tries, each one's session drained after an error."""
import pytest
from datetime import timedelta
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.operators.run_jobs import IBMQuantumRunJobsOperator
pytestmark = pytest.mark.usefixtures("connection", "quick")
JOB = {"program_id": "sampler", "params": {"pubs": [["OPENQASM 3.0; bit[2] meas; qubit[2] q;", None, 10]]}}

def test_chain(ibm, dag, run, monkeypatch):
    ibm.settings.job_seconds = 0
    submit, calls = IBMQuantumHook.submit_job_once, []
    def flaky(self, tag, **job):
        calls.append(tag)
        if len(calls) in (2, 4):
            raise RuntimeError("a failure that a retry gets past")
        return submit(self, tag, **job)
    monkeypatch.setattr(IBMQuantumHook, "submit_job_once", flaky)
    IBMQuantumRunJobsOperator(task_id="run", backend="ibm_fez", jobs=[JOB, JOB, JOB], retries=2, retry_delay=timedelta(0), deferrable=True, poll_interval=0.1)
    result = run(dag)
    print("STATE", result.state, len(ibm.sessions), [(j.id, j.session_id, j.status, j.tags) for j in ibm.jobs.values()])
    print("SUBMITS", len(ibm.requests("POST", "/v1/jobs")), calls)
    assert len(ibm.jobs) == 3
