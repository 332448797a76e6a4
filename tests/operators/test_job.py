# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
from airflow.sdk import DAG

from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState
from airflow_provider_ibm_sessions.operators.job import IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.session import IBMQuantumCreateSessionOperator
from testing.airflow_runs import cleared, fails_once, failures_of, next_try, with_rendered
from testing.dag_tasks import AT_ONCE, both_ways
from testing.fake_ibm import Fault, Outcome
from testing.jobs_seen import only, posts

pytestmark = pytest.mark.usefixtures("connection", "short_jobs")

PUB = ["OPENQASM 3.0; bit[2] meas; qubit[2] q;", None, 10]


def submit(**kwargs):
    backend = {} if "session_id" in kwargs else {"backend": "ibm_fez"}
    defaults = {"task_id": "submit", "program_id": "sampler", "program_params": {"pubs": [PUB]}}
    defaults["poll_interval"] = 0.1
    return IBMQuantumSubmitJobOperator(**defaults | backend | kwargs)


class TestResults:
    @both_ways
    def test_alone(self, ibm, dag, run, deferrable):
        submit(deferrable=deferrable, tags=["mine"], cost=300, private=False, calibration_id="today")
        result = run(dag)
        job = only(ibm.jobs)
        assert result.state == "success"
        report = result.xcom("submit")
        assert report["id"] == job.id
        assert report["state"] == "Completed"
        assert report["backend"] == "ibm_fez"
        assert "session_id" not in report
        assert "error" not in report
        [pub] = report["results"]
        assert sum(pub["counts"]["meas"].values()) == 10
        assert {len(bits) for bits in pub["counts"]["meas"]} == {2}
        assert report["usage"]["qpu_charge_time_seconds"] == pytest.approx(0.05, abs=0.001)
        assert (job.tags[0], job.cost, job.calibration_id) == ("mine", 300, "today")
        assert len(job.tags) == 2
        assert result.xcom("submit", "job_id") == job.id
        assert job.id in result.xcom("submit", "_link_IBMQuantumJobLink")
        assert not result.xcom("submit", "_link_IBMQuantumSessionLink")
        assert len(posts(ibm)) == 1

    @both_ways
    def test_in_a_session_that_names_the_backend(self, ibm, dag, run, deferrable):
        session = ibm.add_session(backend="ibm_torino", age=1)
        submit(session_id=session.id, deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("submit")["session_id"] == session.id
        assert only(ibm.jobs).backend == "ibm_torino"
        assert session.id in result.xcom("submit", "_link_IBMQuantumSessionLink")
        assert ibm.state()["accepting"] == [session.id], "it is not this task's to close"

    def test_a_session_that_does_not_name_its_backend_yet(self, ibm, dag, run, output):
        session = ibm.add_session(age=1)
        session.backend = None
        submit(session_id=session.id)
        assert run(dag).state == "failed"
        assert "backend must be given" in output()
        assert posts(ibm) == []

    def test_estimator(self, ibm, dag, run):
        pub = [PUB[0], ["ZZ", "XX", "YY"]]
        submit(program_id="estimator", program_params={"pubs": [pub]})
        [pub] = run(dag).xcom("submit")["results"]
        assert len(pub["evs"]) == len(pub["stds"]) == 3

    def test_other_programs_results_come_as_they_are(self, ibm, dag, run):
        submit(program_id="executor", program_params={"anything": {"goes": [1, None]}})
        result = run(dag)
        assert result.xcom("submit")["results"]["schema_version"] == "v0.1"
        assert only(ibm.jobs).params == {"anything": {"goes": [1, None]}}

    @both_ways
    def test_infinite_numbers_come_as_text(self, ibm, dag, run, deferrable):
        values = {"evs": [float("inf"), float("-inf"), float("nan")], "stds": [0.1, 0.1, 0.1]}
        ibm.next_jobs([Outcome(results={"results": [{"data": values}]})])
        submit(program_id="estimator", program_params={"pubs": [[PUB[0], "ZZ"]]}, deferrable=deferrable)
        [pub] = run(dag).xcom("submit")["results"]
        assert pub["evs"] == ["Infinity", "-Infinity", "NaN"]
        assert pub["stds"] == [0.1, 0.1, 0.1]

    def test_not_waiting(self, ibm, dag, run):
        ibm.settings.job_seconds = 600
        session = ibm.add_session(age=1)
        submit(session_id=session.id, wait_for_completion=False)
        result = run(dag)
        job = only(ibm.jobs)
        assert result.state == "success"
        assert result.xcom("submit") == {"id": job.id, "backend": "ibm_fez", "session_id": session.id}
        assert result.xcom("submit", "job_id") == job.id
        assert job.id in result.xcom("submit", "_link_IBMQuantumJobLink")
        assert job.status == "Running"
        assert ibm.requests("GET", "/v1/jobs/*") == []

    def test_templates(self, ibm, run):
        with DAG("templated", schedule=None, params={"circuit": PUB[0], "shots": 7, "cost": 300}) as dag:
            created = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez")
            submit(
                program_id="{{ 'samp' }}ler",
                program_params={"pubs": [["{{ params.circuit }}", None, "{{ params.shots }}"]]},
                session_id=created.output,
                tags=["{{ dag.dag_id }}"],
                cost="{{ params.cost }}",
            )
        result = run(dag)
        assert result.state == "success"
        job = only(ibm.jobs)
        assert job.params["pubs"] == [[PUB[0], None, "7"]]
        assert job.session_id == result.xcom("create")
        assert job.cost == 300
        assert job.tags[0] == "templated"
        assert sum(result.xcom("submit")["results"][0]["counts"]["meas"].values()) == 7

    @pytest.mark.parametrize(
        ("cost", "seconds"), [("5m", 300), (timedelta(minutes=2), 120), (0, 0), ("0", 0)]
    )
    def test_forms_of_cost(self, ibm, dag, run, cost, seconds):
        submit(cost=cost, wait_for_completion=False)
        assert run(dag).state == "success"
        assert posts(ibm)[0].json["cost"] == seconds

    @both_ways
    def test_mapped(self, ibm, dag, run, deferrable):
        circuits = [PUB[0].replace("2", str(width)) for width in (2, 3, 4)]
        IBMQuantumSubmitJobOperator.partial(
            task_id="submit",
            program_id="sampler",
            backend="ibm_fez",
            poll_interval=0.1,
            deferrable=deferrable,
        ).expand(program_params=[{"pubs": [[circuit, None, 5]]} for circuit in circuits])
        result = run(dag)
        assert result.state == "success"
        counts = [report["results"][0]["counts"]["meas"] for report in result.xcom_of_each("submit")]
        assert [{len(bits) for bits in each} for each in counts] == [{2}, {3}, {4}]
        assert len({tag for job in ibm.jobs.values() for tag in job.tags}) == 3
        ids = [report["id"] for report in result.xcom_of_each("submit")]
        links = result.xcom_of_each("submit", "_link_IBMQuantumJobLink")
        assert [job_id in link for job_id, link in zip(ids, links, strict=True)] == [True] * 3

    def test_two_runs_of_a_dag_are_two_jobs(self, ibm, dag, run):
        submit()
        ids = {run(dag).xcom("submit")["id"] for _ in range(2)}
        assert ids == set(ibm.jobs)
        assert len(ids) == 2


class TestFailures:
    @both_ways
    def test_a_failed_job_fails_the_task_for_good(self, ibm, dag, run, output, deferrable):
        ibm.next_jobs([Outcome(status="Failed", reason="The circuit is odd", reason_code=1517)])
        submit(deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        assert len(posts(ibm)) == 1
        log = output()
        assert "The circuit is odd" in log
        assert "1517" in log
        report = result.xcom("submit")
        assert "The circuit is odd" in report["error"]
        assert (report["state"], report["reason_code"]) == ("Failed", 1517)
        assert "results" not in report

    def test_a_job_over_its_cost_was_cancelled_by_ibm(self, ibm, dag, run, output):
        ibm.settings.job_seconds = 60
        submit(cost=1, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        assert "Cancelled - Ran too long" in output()
        assert result.xcom("submit")["reason_code"] == 1305
        assert len(posts(ibm)) == 1

    @both_ways
    def test_somebody_cancels_the_job(self, ibm, dag, run, output, deferrable):
        ibm.next_jobs([Outcome(status="Cancelled")])
        submit(deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        assert f"Job {only(ibm.jobs).id}: Cancelled" in output()

    @both_ways
    def test_the_timeout_cancels_the_job(self, ibm, dag, run, output, deferrable):
        ibm.settings.job_seconds = 600
        submit(timeout=0.5, deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        job = only(ibm.jobs)
        assert job.status == "Cancelled"
        assert f"Job {job.id} not final in time" in output()

    WRONG = (
        ({"program_params": {}}, "pubs must be a list"),
        ({"program_params": {"pubs": []}}, "pubs must be a list"),
        ({"program_params": {"pubs": [[None]]}}, "pubs[0] must begin with a circuit"),
        ({"program_params": ["a", "list"]}, "program_params must be a mapping"),
        ({"program_params": {"pubs": [[PUB[0], {1, 2}]]}}, "params: must be JSON"),
        ({"program_id": ""}, "program_id: "),
        ({"program_id": "estimator"}, "pubs[0] must be [circuit, obs"),
        ({"tags": list("abcdefgh")}, "tags must be a list of at most 7"),
        ({"tags": "one"}, "tags must be a list"),
        ({"tags": ["x" * 87]}, "tags[0] must be"),
        ({"tags": [""]}, "tags[0] must be"),
        ({"cost": -1}, "cost must be"),
        ({"cost": 10801}, "cost: "),
        ({"cost": "soon"}, "cost must be"),
        ({"cost": True}, "cost must be"),
        ({"backend": None}, "backend or session_id must be given"),
        ({"backend": "two words"}, "backend must be"),
        ({"session_id": "../x"}, "session_id must be"),
        ({"session_id": ""}, "session_id is empty"),
        ({"results_path": "nosuch://x"}, "results_path nosuch://x"),
        ({"results_path": ""}, "results_path is empty"),
    )

    def test_bad_input_fails_at_once_and_sends_nothing(self, ibm, dag, run):
        said = {}
        for number, (wrong, text) in enumerate(self.WRONG):
            said[f"submit_{number}"] = text
            circuit_only = {"program_params": {"pubs": [PUB[:1]]}}
            task = submit(task_id=f"submit_{number}", **circuit_only, retries=2, **AT_ONCE)
            with_rendered(task, **wrong)
        told = failures_of(dag, run)
        assert [text for name, text in said.items() if text not in told[name]] == []
        assert ibm.journal == []

    @pytest.mark.parametrize(
        "wrong",
        [
            {"timeout": 0},
            {"timeout": "soon"},
            {"poll_interval": -1},
            {"private": "yes"},
            {"results": "all"},
            {"results_threshold": 0},
            {"log_level": "loud"},
        ],
        ids=str,
    )
    def test_what_is_no_template_is_an_import_error(self, wrong):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            submit(**wrong)

    @pytest.mark.parametrize(
        ("planted", "backend", "said"),
        [
            ({"state": "closed"}, None, "accepts no jobs, it is closed (session_closed_early)"),
            ({"accepting_jobs": False, "state": "active"}, None, "accepts no jobs"),
            ({"backend": "ibm_torino"}, "ibm_fez", "backend must be that of session"),
        ],
        ids=["closed", "draining", "other backend"],
    )
    def test_a_session_that_cannot_take_it(self, ibm, dag, run, output, planted, backend, said):
        session = ibm.add_session(**{"age": 1, **planted})
        submit(session_id=session.id, backend=backend, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        assert said in output()
        assert ibm.jobs == {}
        assert posts(ibm) == []

    def test_a_session_that_closes_in_between(self, ibm, dag, run, output):
        session = ibm.add_session(age=1)
        wrong = {"status": 400, "code": 1217, "message": "Session has been closed"}
        ibm.script(Fault(method="POST", path="/v1/jobs", **wrong))
        submit(session_id=session.id, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        assert "Session has been closed" in output()
        assert len(posts(ibm)) == 1

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"program_id": "nosuch", "program_params": {}}, "Program not found: nosuch"),
            ({"backend": "ibm_nowhere"}, "device not found"),
            ({"session_id": "unknown"}, "Session not found. Session ID: unknown"),
        ],
        ids=["program", "backend", "session"],
    )
    def test_what_ibm_does_not_know_is_told_in_its_words(self, ibm, dag, run, output, wrong, said):
        submit(**wrong, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        assert said in output()
        assert ibm.jobs == {}

    @both_ways
    def test_trouble_while_waiting_is_waited_through(self, ibm, dag, run, quick, deferrable):
        ibm.settings.job_seconds = 0.5
        path = "/v1/jobs/*"
        ibm.script(
            Fault(method="GET", path=path, status=502),
            Fault(method="GET", path=path, html=True),
            Fault(method="GET", path=path, drop=True, phase="after"),
            Fault(method="GET", path=path, status=429, headers={"Retry-After": "1"}),
        )
        submit(deferrable=deferrable)
        assert run(dag).state == "success"
        assert ibm.faults.left == []

    @both_ways
    @pytest.mark.parametrize("status", [400, 404, 409])
    def test_a_job_that_ibm_does_not_know_yet_is_not_ended(self, ibm, dag, run, deferrable, status):
        ibm.settings.job_seconds = 0.5
        ibm.script(Fault(method="GET", path="/v1/jobs/*", status=status, times=4))
        submit(deferrable=deferrable, poll_interval=0.1, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["submit"].try_number == 1
        assert only(ibm.jobs).status == "Completed"
        assert ibm.requests("POST", "*/cancel") == []

    def test_a_job_that_ibm_does_not_know_any_more_fails_the_task(self, ibm, dag, run, output):
        ibm.settings.job_seconds = 600
        ibm.script(Fault(method="GET", path="/v1/jobs/*", status=404, times=None))
        submit(poll_interval=0.1, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        assert "HTTP 404" in output()

    @both_ways
    def test_a_key_that_is_revoked_ends_the_waiting(self, ibm, dag, run, output, deferrable):
        ibm.settings.job_seconds = 600
        ibm.script(Fault(method="GET", path="/v1/jobs/*", status=401, times=None))
        submit(deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        assert only(ibm.jobs).status == "Cancelled"
        assert "HTTP 401" in output()


class TestOnce:
    @pytest.mark.parametrize("phase", ["before", "after"])
    @pytest.mark.parametrize(
        "fault", [{"drop": "rst"}, {"status": 503}, {"truncate": True}, {"html": True}], ids=str
    )
    def test_an_answer_that_is_lost(self, ibm, dag, run, quick, fault, phase):
        ibm.script(Fault(method="POST", path="/v1/jobs", phase=phase, **fault))
        submit()
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("submit")["id"] == only(ibm.jobs).id
        assert result.tasks["submit"].try_number == 1

    @both_ways
    def test_a_retry_after_the_submission_goes_on_with_the_job(
        self, ibm, dag, run, monkeypatch, output, deferrable
    ):
        fails_once(monkeypatch, IBMQuantumSubmitJobOperator, "_take_job")
        submit(deferrable=deferrable, retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["submit"].try_number == 2
        assert len(posts(ibm)) == 1
        assert f"job {only(ibm.jobs).id}, which an earlier try has submitted" in output()

    def test_a_retry_goes_on_though_the_session_takes_no_more_jobs(self, ibm, dag, run, monkeypatch):
        session = ibm.add_session(age=1)
        calls = fails_once(monkeypatch, IBMQuantumSubmitJobOperator, "_take_job")
        ibm.script(Fault(method="GET", path="/v1/sessions/*", skip=1, status=400, times=None))
        submit(session_id=session.id, retries=1, **AT_ONCE)
        assert run(dag).state == "success"
        assert len(calls) == 2
        assert len(posts(ibm)) == 1

    def test_a_retry_submits_anew_what_somebody_has_cancelled(self, ibm, dag, run, monkeypatch):
        fails_once(monkeypatch, IBMQuantumSubmitJobOperator, "_take_job")
        ibm.next_jobs([Outcome(status="Cancelled")])
        submit(retries=1, retry_delay=timedelta(seconds=0.5))
        result = run(dag)
        assert result.state == "success"
        assert [job.status for job in ibm.jobs.values()] == ["Cancelled", "Completed"]

    @both_ways
    @pytest.mark.parametrize("private", [False, True])
    def test_a_failure_after_the_results_were_read(self, ibm, dag, run, monkeypatch, deferrable, private):
        calls = fails_once(monkeypatch, TaskState, "mark_finished")
        submit(private=private, deferrable=deferrable, retries=1, **AT_ONCE)
        result = run(dag)
        job = only(ibm.jobs)
        assert result.state == "success"
        assert result.tasks["submit"].try_number == len(calls) == 2
        assert sum(result.xcom("submit")["results"][0]["counts"]["meas"].values()) == 10
        assert len(posts(ibm)) == 1
        assert job.results_read == (1 if private else 2)

    def test_a_private_job_whose_results_somebody_has_read(self, ibm, dag, run, output):
        submit(private=True, retries=2, **AT_ONCE)
        ibm.script(Fault(method="GET", path="/v1/jobs/*/results", no_content=True, phase="after"))
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        assert "its results were read elsewhere" in output()
        assert len(posts(ibm)) == 1

    def test_a_private_job_whose_results_were_lost_on_their_way(self, ibm, dag, run, quick, output):
        submit(private=True, retries=2, **AT_ONCE)
        ibm.script(Fault(method="GET", path="/v1/jobs/*/results", drop=True, phase="after"))
        assert run(dag).state == "failed"
        assert "its results were read elsewhere" in output()
        assert len(posts(ibm)) == 1

    def test_clearing_a_success_collects_and_runs_nothing_again(self, ibm, dag, run):
        submit()
        first = run(dag)
        before = first.xcom("submit")
        again = cleared(first, dag, "submit")
        assert again.state_of("submit") == "success"
        assert [job.status for job in ibm.jobs.values()] == ["Completed"]
        after = again.xcom("submit")
        assert [each.pop("provenance")["try_number"] for each in (before, after)] == [1, 2]
        assert after == before

    def test_clearing_a_task_whose_job_failed_starts_anew(self, ibm, dag, run):
        ibm.next_jobs([Outcome(status="Failed", reason="Bad luck", reason_code=9999)])
        submit()
        first = run(dag)
        again = cleared(first, dag, "submit")
        assert again.state_of("submit") == "success"
        assert [job.status for job in ibm.jobs.values()] == ["Failed", "Completed"]

    def test_clearing_a_task_that_has_told_nothing_goes_on(self, ibm, dag, run, monkeypatch):
        fails_once(monkeypatch, IBMQuantumSubmitJobOperator, "_take_job")
        submit()
        first = run(dag)
        assert first.state == "failed"
        assert cleared(first, dag, "submit").state_of("submit") == "success"
        assert len(posts(ibm)) == 1

    def test_a_retry_in_a_cleared_task_is_not_taken_for_another_clear(self, ibm, dag, run, monkeypatch):
        submit(retries=1, **AT_ONCE, results_threshold=10)
        first = run(dag)
        assert first.state == "failed", "too large, so nothing was told"
        dag.task_dict["submit"].results_threshold = 10**6
        # The cleared task tells its outcome, and Airflow fails to take it.
        fails_once(monkeypatch, TaskState, "mark_finished", before=False)
        again = cleared(first, dag, "submit")
        assert again.state_of("submit") == "up_for_retry"
        last = next_try(again, dag, "submit")
        assert last.state_of("submit") == "success"
        assert len(posts(ibm)) == 1


class TestLargeResults:
    @both_ways
    def test_without_a_path_the_task_says_what_to_do(self, ibm, dag, run, output, deferrable):
        submit(results_threshold=50, deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        job = only(ibm.jobs)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 1
        log = output()
        assert "more than 50 bytes" in log
        assert f"job_results('{job.id}')" in log
        report = result.xcom("submit")
        assert report["state"] == "Completed"
        assert "results" not in report

    def test_clearing_with_a_path_brings_them_and_runs_nothing_again(self, ibm, dag, run, tmp_path):
        operator = submit(results_threshold=50)
        first = run(dag)
        assert first.state == "failed"
        operator.results_path = f"file://{tmp_path}/results"
        again = cleared(first, dag, "submit")
        assert again.state_of("submit") == "success"
        assert len(posts(ibm)) == 1
        assert list((tmp_path / "results").iterdir()) != []

    @both_ways
    def test_with_a_path_they_are_stored_as_json(self, ibm, run, tmp_path, deferrable):
        with DAG(f"stored_{deferrable}", schedule=None, params={"folder": str(tmp_path)}) as dag:
            path = "file://{{ params.folder }}/{{ dag.dag_id }}"
            submit(results_threshold=50, results_path=path, deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        report = result.xcom("submit")
        assert "results" not in report
        file = tmp_path / dag.dag_id / f"{only(ibm.jobs).id}.json"
        assert report["results_path"].endswith(str(file))
        [pub] = json.loads(file.read_text())
        assert sum(pub["counts"]["meas"].values()) == 10

    def test_small_results_do_not_use_the_path(self, ibm, dag, run, tmp_path):
        submit(results_path=f"file://{tmp_path}/results")
        report = run(dag).xcom("submit")
        assert "results" in report
        assert "results_path" not in report
        assert not (tmp_path / "results").exists()

    def test_a_path_that_cannot_be_written_is_tried_again_with_the_same_job(self, ibm, dag, run, tmp_path):
        blocked = tmp_path / "results"
        blocked.write_text("a file, no folder")
        submit(results_threshold=50, results_path=f"file://{blocked}", retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "failed"
        assert result.tasks["submit"].try_number == 2
        assert len(posts(ibm)) == 1

    def test_those_of_a_private_job_are_never_lost(self, ibm, dag, run, output):
        submit(private=True, results_threshold=50)
        result = run(dag)
        assert result.state == "success"
        assert "results" in result.xcom("submit")
        assert "no results_path" in output()


class TestKill:
    def test_the_signal_cancels_the_job(self, ibm, dag, run, terminate, output):
        ibm.settings.job_seconds = 600
        submit(timeout=20)
        terminate(lambda: ibm.requests("GET", "/v1/jobs/*"))
        assert run(dag).state == "failed"
        assert only(ibm.jobs).status == "Cancelled"
        assert f"Cancelling job {only(ibm.jobs).id}" in output()

    def test_unless_it_is_not_to(self, ibm, dag, run, terminate, when, monkeypatch):
        ibm.settings.job_seconds = 600
        submit(cancel_on_kill=False)
        killed, on_kill = [], IBMQuantumSubmitJobOperator.on_kill
        monkeypatch.setattr(IBMQuantumSubmitJobOperator, "on_kill", lambda self: killed.append(on_kill(self)))
        terminate(lambda: ibm.requests("GET", "/v1/jobs/*"))
        when(lambda: killed, lambda: ibm.clock.advance(700))
        assert run(dag).state == "success"
        assert only(ibm.jobs).status == "Completed"

    @pytest.mark.parametrize("phase", ["before", "after"])
    def test_the_signal_strikes_while_the_job_is_being_submitted(self, ibm, dag, run, terminate, phase):
        ibm.settings.job_seconds = 600
        ibm.script(Fault(method="POST", path="/v1/jobs", delay=1, phase=phase))
        submit(timeout=20)
        terminate(lambda: posts(ibm))
        result = run(dag)
        assert result.state == "failed"
        assert [job.status for job in ibm.jobs.values()] == ["Cancelled"]

    def test_its_own_timeout_cancels_the_job(self, ibm, dag, run, time_out):
        ibm.settings.job_seconds = 600
        submit(execution_timeout=timedelta(minutes=10))
        time_out(lambda: ibm.requests("GET", "/v1/jobs/*"))
        assert run(dag).state == "failed"
        assert only(ibm.jobs).status == "Cancelled"

    def test_an_ibm_that_does_not_answer_does_not_hold_the_process(self, ibm, dag, run, terminate):
        ibm.settings.job_seconds = 3
        ibm.script(Fault(method="POST", path="/v1/jobs/*/cancel", delay=30, times=None))
        operator = submit(timeout=20)
        took = []
        on_kill = type(operator).on_kill

        def timed(task):
            began = time.monotonic()
            on_kill(task)
            took.append(time.monotonic() - began)

        type(operator).on_kill = timed
        try:
            terminate(lambda: ibm.requests("GET", "/v1/jobs/*"))
            run(dag)
        finally:
            type(operator).on_kill = on_kill
        assert max(took) < 4
