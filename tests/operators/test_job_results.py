# SPDX-License-Identifier: Apache-2.0
"""Results that the QPU was paid for, and that are hard to deliver."""

from __future__ import annotations

import asyncio
import json

import pytest
from airflow.sdk import DAG, get_current_context, task

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger
from testing.airflow_runs import cleared
from testing.dag_tasks import AT_ONCE, run_jobs, sampler_job, submit
from testing.fake_ibm import Fault, Outcome
from testing.result_payloads import GOOD, encoded, nested, npy, typed
from testing.retry_policies import single_attempt

pytestmark = pytest.mark.usefixtures("connection", "short_jobs")

RESULTS = ("GET", "/v1/jobs/*/results")


def kerneled(*values):
    """Return results of a kerneled measurement in Qiskit's encoding: complex numbers, no bits."""
    import numpy
    from qiskit.primitives import DataBin, SamplerPubResult

    return encoded(SamplerPubResult(DataBin(meas=numpy.array([values]), shape=())))


class TestPaidResultsThatCannotBeDelivered:
    @pytest.mark.parametrize("fault", [{"status": 500}, {"empty": True}, {"html": True}], ids=str)
    def test_what_ibm_never_gives_out_takes_no_others_results_with_it(
        self, ibm, dag, run, monkeypatch, fault
    ):
        single_attempt(monkeypatch)
        ibm.script(Fault(*RESULTS, skip=1, **fault))
        run_jobs(on_job_failure="collect")
        result = run(dag)
        assert result.state == "success"
        reports = result.xcom("run")
        assert [report["state"] for report in reports] == ["Completed"] * 3
        [undelivered] = [report for report in reports if "results" not in report]
        assert "error" in undelivered

    def test_a_retry_fetches_what_may_come_later_and_runs_nothing_again(self, ibm, dag, run, monkeypatch):
        single_attempt(monkeypatch)
        ibm.script(Fault(*RESULTS, skip=1, status=500))
        run_jobs(on_job_failure="collect", retries=1, **AT_ONCE)
        result = run(dag)
        assert (result.state, result.tasks["run"].try_number) == ("success", 2)
        assert ["results" in report for report in result.xcom("run")] == [True] * 3
        assert len(ibm.jobs) == 3

    @pytest.mark.parametrize("fault", [{"status": 403}, {"status": 404}, {"html": True}], ids=str)
    @pytest.mark.parametrize("make", [run_jobs, submit], ids=["run-jobs", "submit"])
    def test_once_they_can_be_read_a_clear_collects_them_and_pays_for_nothing(
        self, ibm, dag, run, monkeypatch, make, fault
    ):
        single_attempt(monkeypatch)
        ibm.script(Fault(*RESULTS, times=None, **fault))
        make()
        first = run(dag)
        assert first.state == "failed"
        jobs = list(ibm.jobs)
        reports = first.xcom("run") if make is run_jobs else [first.xcom("run")]
        for name, report in zip(jobs, reports, strict=True):
            assert f"Job {name} is completed; fetch them with" in report["error"]
        ibm.clear_faults()
        assert cleared(first, dag, "run").state_of("run") == "success"
        assert list(ibm.jobs) == jobs

    def test_a_job_of_which_ibm_has_none_runs_again_after_a_clear(self, ibm, dag, run):
        ibm.script(Fault(*RESULTS, no_content=True))
        submit()
        first = run(dag)
        assert first.state == "failed"
        assert cleared(first, dag, "run").state_of("run") == "success"
        assert len(ibm.jobs) == 2

    def test_complex_measurements_are_pairs(self, ibm, dag, run):
        ibm.next_jobs([Outcome(results=kerneled(1 + 2j, complex("inf")))])
        submit()
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("run")["results"][0]["data"] == {"meas": [[[1.0, 2.0], ["Infinity", 0.0]]]}

    def test_an_unreadable_pub_leaves_the_others_and_says_so(self, ibm, dag, run, output):
        pubs = [{"data": {"c": {"samples": ["0x3", odd], "num_bits": 2}}} for odd in ("0x0", "zz")]
        ibm.next_jobs([Outcome(results={"results": pubs})])
        submit()
        report = run(dag).xcom("run")
        assert report["results"][0]["counts"] == {"c": {"11": 1, "00": 1}}
        assert "'zz' is not a hexadecimal string" in report["results"][1]["error"]
        assert report["results"][1]["raw"] == pubs[1]
        assert "'zz'" in report["results_error"]
        assert report["results_error"] in output()

    def test_those_of_a_private_job_are_kept_however_deep_they_are_nested(self, ibm, dag, run):
        deep = nested(500)
        ibm.next_jobs([Outcome(results=deep)])
        submit(private=True)
        result = run(dag)
        assert result.state == "success"
        assert json.loads(result.xcom("run")["results"]) == deep
        assert [job.results_read for job in ibm.jobs.values()] == [1]

    @pytest.mark.parametrize("own", [{"__classname__": "x"}, {"__type": "dict", "__var": 1}], ids=str)
    def test_keys_that_airflow_reserves_are_delivered_in_a_string(self, ibm, dag, run, output, own):
        odd = {"results": [{**GOOD, "metadata": {"circuit_metadata": own}}]}
        ibm.next_jobs([Outcome(results=odd)])
        run_jobs()
        result = run(dag)
        assert result.state == "success"
        first, second, _ = result.xcom("run")
        assert json.loads(first["results"])[0]["counts"] == {"c": {"1": 1}}
        assert json.loads(first["results"])[0]["metadata"] == {"circuit_metadata": own}
        assert "Airflow reserves a key" in first["results_error"]
        assert "Airflow reserves a key" in output()
        assert isinstance(second["results"], list)

    @pytest.mark.parametrize(
        ("own", "kept"), [({"a": "\0"}, {"a": "?"}), ({"__id__": 1},) * 2], ids=["NUL", "reserved"]
    )
    def test_options_that_xcom_cannot_hold_take_no_results_with_them(self, ibm, dag, run, own, kept):
        job = sampler_job()
        job["params"]["options"] = {"experimental": own}
        run_jobs(jobs=[job])
        result = run(dag)
        assert result.state == "success"
        [report] = result.xcom("run")
        assert "results" in report
        provenance = report["provenance"]
        provenance = json.loads(provenance) if isinstance(provenance, str) else provenance
        assert provenance["options"] == {"experimental": kept}

    def test_an_array_that_claims_to_be_huge_is_left_as_ibm_sent_it(self, ibm, dag, run):
        bomb = npy(b"", kind="<f8", shape="(1000000000,)")
        data = typed("DataBin", {"fields": {"evs": typed("ndarray", bomb)}, "shape": []})
        raw = typed("PrimitiveResult", {"pub_results": [typed("PubResult", {"data": data})], "metadata": {}})
        ibm.next_jobs([Outcome(results=raw)])
        submit()
        result = run(dag)
        assert result.state == "success"
        assert "too large to decode" in result.xcom("run")["results_error"]

    def test_the_threshold_of_their_size_is_no_number_of_seconds(self, dag):
        with pytest.raises(
            ConfigurationError, match="results_threshold must be a whole number from 1"
        ) as caught:
            run_jobs(results_threshold=0)
        assert "second" not in str(caught.value)

    @pytest.mark.parametrize("make", [run_jobs, submit], ids=["run-jobs", "submit"])
    def test_without_xcom_nothing_is_too_large_for_it(self, ibm, dag, run, make):
        make(do_xcom_push=False, results_threshold=1)
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("run") is None

    @pytest.mark.parametrize("make", [run_jobs, submit], ids=["run-jobs", "submit"])
    def test_without_xcom_a_failure_pushes_none_either(self, ibm, dag, run, make):
        ibm.next_jobs([Outcome(status="Failed", reason="The circuit is odd", reason_code=1517)])
        make(do_xcom_push=False)
        result = run(dag)
        assert result.state == "failed"
        assert result.xcom("run") is None

    @pytest.mark.parametrize("make", [run_jobs, submit], ids=["run-jobs", "submit"])
    def test_waiting_works_in_a_running_event_loop(self, ibm, dag, run, make):
        """A notebook has one: ``dag.test()`` is called inside of it."""
        make()

        async def notebook():
            return run(dag)

        assert asyncio.run(notebook()).state == "success"
        assert {job.status for job in ibm.jobs.values()} == {"Completed"}


class TestTriggererWithoutTheConnection:
    """Its host lacks the connection, or a file of certificates, which says nothing of the jobs."""

    @pytest.mark.parametrize("make", [run_jobs, submit], ids=["run-jobs", "submit"])
    def test_the_worker_waits_itself_and_cancels_nothing(self, ibm, dag, run, monkeypatch, output, make):
        find_connection = IBMQuantumJobTrigger._find_connection

        async def find_in_worker_only(self):
            if "hook" not in vars(self):  # a worker's trigger has the task's
                raise ConfigurationError("There is no Airflow connection 'x'", field="ibm_quantum_conn_id")
            await find_connection(self)

        monkeypatch.setattr(IBMQuantumJobTrigger, "_find_connection", find_in_worker_only)
        ibm.settings.job_seconds = 0.5
        make(deferrable=True)
        assert run(dag).state == "success"
        assert {job.status for job in ibm.jobs.values()} == {"Completed"}
        assert "There is no Airflow connection 'x'. Polling from this worker" in output()


class TestOperatorsInALoopOfOneTask:
    """Each execution is work of its own, although its input is the same; a retry of the task is not."""

    @staticmethod
    def ids(run, make, times):
        @task
        def loop():
            outputs = [make(task_id="inner").execute(get_current_context()) for _ in range(times)]
            return [report["id"] for each in outputs for report in (each if make is run_jobs else [each])]

        # Not the fixture's Dag, to which the operators inside of the task would be added.
        with DAG(f"loop_of_{make.__name__}", schedule=None, default_args={"retries": 0}) as dag:
            loop()
        return run(dag).xcom("loop")

    def test_each_submits_a_job(self, ibm, run):
        assert self.ids(run, submit, 3) == list(ibm.jobs)
        assert len(ibm.jobs) == 3

    def test_one_that_fails_leaves_no_session_open(self, ibm, run):
        """Only its own record says that no other try goes on with its session."""
        ibm.script(Fault("POST", "/v1/jobs", times=None, status=400))

        @task
        def loop():
            context, inner = get_current_context(), run_jobs(task_id="inner")
            inner.pre_execute(context)
            inner.execute(context)

        with DAG("inner_fails", schedule=None, default_args={"retries": 0}) as dag:
            loop()
        assert run(dag).state == "failed"
        assert set(ibm.state()["sessions"]) == {"closed"}

    def test_each_opens_a_session(self, ibm, run):
        assert self.ids(run, run_jobs, 2) == list(ibm.jobs)
        assert len(ibm.jobs) == 6
        assert ibm.state()["sessions"] == {"closed": 2}
