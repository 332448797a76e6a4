# SPDX-License-Identifier: Apache-2.0
"""Results of jobs that exist already: found by their ids, their session or their tags."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.links import IBMQuantumSessionLink, console_url
from airflow_provider_ibm_sessions.operators.job import IBMQuantumJobResultsOperator
from airflow_provider_ibm_sessions.operators.results import (
    IBMQuantumJobResultsOperator as FromItsOwnModule,
)
from testing.airflow_runs import fails_once, with_rendered
from testing.dag_tasks import AT_ONCE, sampler_job
from testing.fake_ibm import Fault, Outcome
from testing.retry_policies import single_attempt

pytestmark = pytest.mark.usefixtures("connection")

both_ways = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])


@pytest.fixture(autouse=True)
def short_jobs(ibm):
    ibm.settings.job_seconds = 0.0


def submitted(*widths, **fields):
    """Submit jobs as any client would; return their ids."""
    hook = IBMQuantumHook()
    return [
        hook.submit_job(**sampler_job(width), backend="ibm_fez", **fields).id for width in widths or (1, 2, 3)
    ]


def planted(ibm, count, **fields):
    """Add jobs as if they had been submitted before."""
    with ibm.service.lock:
        now = ibm.clock.now()
        for _ in range(count):
            ibm.service.scheduler.submit(
                now,
                backend="ibm_fez",
                program_id="sampler",
                params=sampler_job(1, shots=1)["params"],
                user_id=ibm.user_id,
                cost=600,
                **fields,
            )


def fetch(**kwargs):
    return IBMQuantumJobResultsOperator(task_id="fetch", **{"poll_interval": 0.1, **kwargs})


def widths(reports):
    """The width of each report's register; None where there are no results."""
    found = []
    for report in reports:
        counts = report["results"][0]["counts"]["meas"] if "results" in report else {}
        found.append(next((len(bits) for bits in counts), None))
    return found


def assert_nothing_changed(ibm, before):
    assert [entry for entry in ibm.journal[before:] if entry.method in ("PATCH", "DELETE")] == []
    assert [e.path for e in ibm.journal[before:] if e.method == "POST" and "token" not in e.path] == []


def test_it_is_in_both_modules():
    assert FromItsOwnModule is IBMQuantumJobResultsOperator


class TestThreeWays:
    @both_ways
    def test_ids_in_their_order(self, ibm, dag, run, deferrable):
        first, second, third = submitted()
        before = len(ibm.journal)
        fetch(job_ids=[third, first, second], deferrable=deferrable)
        result = run(dag)
        assert result.state == "success"
        reports = result.xcom("fetch")
        assert widths(reports) == [3, 1, 2]
        assert [report["id"] for report in reports] == [third, first, second]
        assert {(report["state"], report["format"]) for report in reports} == {("Completed", "sampler")}
        assert_nothing_changed(ibm, before)

    def test_a_session(self, ibm, dag, run):
        session = ibm.add_session()
        submitted(1, 2, session_id=session.id)
        submitted(5)
        fetch(session_id=session.id)
        result = run(dag)
        assert widths(result.xcom("fetch")) == [1, 2]
        assert session.id in result.xcom("fetch", "_link_IBMQuantumSessionLink")
        assert ibm.state()["accepting"] == [session.id], "it is somebody else's"

    def test_while_it_waits_the_link_is_a_page(self, ibm, dag, run, monkeypatch):
        shown = []
        monkeypatch.setattr(
            IBMQuantumSessionLink, "persist", classmethod(lambda cls, context, url: shown.append(url))
        )
        session = ibm.add_session()
        submitted(1, session_id=session.id)
        fetch(session_id=session.id)
        assert run(dag).state == "success"
        assert shown == [console_url(session.id)]

    def test_tags_with_templates(self, ibm, run):
        now = datetime.now(UTC)
        submitted(1, tags=["nightly"])
        submitted(2, tags=["nightly", "calibration"])
        submitted(3, tags=["calibration", "nightly", "more"])
        with DAG("results_by_tags", schedule=None, params={"tag": "calibration"}) as dag:
            fetch(
                tags=["nightly", "{{ params.tag }}"],
                created_after=(now - timedelta(hours=1)).isoformat(),
                created_before="{{ (dag_run.start_date | ts) }}",
            )
        result = run(dag)
        assert result.state == "success"
        assert widths(result.xcom("fetch")) == [2, 3]
        [query] = [entry.query for entry in ibm.requests("GET", "/v1/jobs")]
        assert query["tags"] == ["nightly", "calibration"]
        assert "created_after" in query
        assert "created_before" in query

    def test_a_period_without_jobs(self, ibm, dag, run, output):
        submitted(1, tags=["nightly"])
        fetch(tags=["nightly"], created_before=datetime(2020, 1, 1, tzinfo=UTC))
        result = run(dag)
        assert (result.state, result.xcom("fetch")) == ("success", [])
        assert "IBM lists no job of tags" in output()

    def test_more_than_one_page(self, ibm, dag, run):
        planted(ibm, 203, tags=["many"])
        fetch(tags=["many"], results_threshold=10_000_000)
        reports = run(dag).xcom("fetch")
        assert widths(reports) == [1] * 203
        assert [report["id"] for report in reports] == list(ibm.jobs)
        assert len(ibm.requests("GET", "/v1/jobs")) == 2

    @both_ways
    def test_large_results_go_to_files(self, ibm, dag, run, tmp_path, deferrable):
        ids = submitted()
        fetch(job_ids=ids, results_path=f"file://{tmp_path}", results_threshold=10, results="memory")
        reports = run(dag).xcom("fetch")
        assert [report["results_path"].rsplit("/", 1)[1] for report in reports] == [f"{n}.json" for n in ids]


class TestWaiting:
    @both_ways
    def test_until_all_are_final(self, ibm, dag, run, when, deferrable):
        ibm.next_jobs([Outcome(), Outcome(seconds=600), Outcome(seconds=600)])
        ids = submitted(tags=["slow"])
        polled = lambda: len([e for e in ibm.journal if e.operation in ("get_job", "list_jobs")]) > 3  # noqa: E731
        when(polled, lambda: ibm.clock.advance(2000))
        fetch(tags=["slow"], deferrable=deferrable)
        result = run(dag)
        assert [report["id"] for report in result.xcom("fetch")] == ids
        assert widths(result.xcom("fetch")) == [1, 2, 3]

    def test_not_waiting(self, ibm, dag, run):
        ibm.next_jobs([Outcome(), Outcome(seconds=600)])
        submitted(1, 2, tags=["slow"])
        fetch(tags=["slow"], wait_for_completion=False)
        first, second = run(dag).xcom("fetch")
        assert widths([first]) == [1]
        assert second["state"] in ("Queued", "Running")
        assert not {"results", "error"} & set(second)

    @both_ways
    def test_the_time_is_over(self, ibm, dag, run, output, deferrable):
        ibm.next_jobs([Outcome(), Outcome(seconds=6000)])
        ids = submitted(1, 2)
        before = len(ibm.journal)
        fetch(job_ids=ids, timeout=0.5, deferrable=deferrable, retries=2, **AT_ONCE)
        result = run(dag)
        assert (result.state, result.tasks["fetch"].try_number) == ("failed", 1)
        assert widths(result.xcom("fetch")) == [1, None]
        assert f"Job {ids[1]} not final in time" in output()
        assert_nothing_changed(ibm, before)

    def test_a_kill_cancels_nothing(self, ibm, dag, run, terminate, when, monkeypatch):
        """Airflow calls ``on_kill``, and ends the process later."""
        ibm.next_jobs([Outcome(seconds=600)])
        ids = submitted(1)
        before, killed, on_kill = len(ibm.journal), [], IBMQuantumJobResultsOperator.on_kill
        monkeypatch.setattr(
            IBMQuantumJobResultsOperator, "on_kill", lambda self: killed.append(on_kill(self))
        )
        terminate(lambda: len(ibm.requests("GET", f"/v1/jobs/{ids[0]}")) > 2)
        when(lambda: killed, lambda: ibm.clock.advance(700))
        fetch(job_ids=ids, deferrable=False)
        assert run(dag).state == "success"
        assert killed
        assert_nothing_changed(ibm, before)


class TestFailures:
    @pytest.mark.parametrize("on_job_failure", ["fail", "collect"])
    def test_a_job_that_failed(self, ibm, dag, run, on_job_failure):
        ibm.next_jobs([Outcome(), Outcome.failed(1517), Outcome()])
        fetch(job_ids=submitted(), on_job_failure=on_job_failure, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == ("failed" if on_job_failure == "fail" else "success")
        assert result.tasks["fetch"].try_number == 1
        assert widths(result.xcom("fetch")) == [1, None, 3]
        assert "1517" in str(result.xcom("fetch")[1])

    def test_results_that_cannot_be_read_at_the_first_try(self, ibm, dag, run, monkeypatch):
        single_attempt(monkeypatch)
        ids = submitted(1)
        ibm.script(Fault(method="GET", path="/v1/jobs/*/results", status=503))
        fetch(job_ids=ids, retries=2, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert result.tasks["fetch"].try_number == 2
        assert widths(result.xcom("fetch")) == [1]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"job_ids": ["of-another"]}, "job_ids: of-another is not known to the instance of connection"),
            ({"session_id": "of-another"}, "session_id: of-another is not known to the instance of"),
        ],
        ids=["job", "session"],
    )
    def test_of_another_instance(self, ibm, dag, run, output, arguments, said):
        fetch(**arguments, retries=2, **AT_ONCE)
        result = run(dag)
        assert (result.state, result.tasks["fetch"].try_number) == ("failed", 1)
        assert said in output()
        assert "another instance" in output()

    def test_a_private_job_whose_results_were_read_elsewhere(self, ibm, dag, run, output):
        [job_id] = submitted(1, private=True)
        IBMQuantumHook().job_results(job_id)
        fetch(job_ids=[job_id])
        assert run(dag).state == "failed"
        assert "is private, and its results were read elsewhere" in output()

    @pytest.mark.parametrize("way", ["job_ids", "tags"])
    def test_private_results_survive_a_failure(self, ibm, dag, run, monkeypatch, way):
        ids = submitted(4, private=True, tags=["secret"])
        fails_once(monkeypatch, IBMQuantumJobResultsOperator, "_finish", before=False)
        fetch(**({"job_ids": ids} if way == "job_ids" else {"tags": ["secret"]}), retries=1, **AT_ONCE)
        result = run(dag)
        assert result.state == "success"
        assert widths(result.xcom("fetch")) == [4]
        assert [job.results_read for job in ibm.jobs.values()] == [1]

    @pytest.mark.parametrize("state", ["success", "failed"])
    def test_before_airflow_33_no_variable_keeps_private_results(
        self, ibm, dag, run, without_task_state, state
    ):
        from airflow.models.variable import Variable

        ids = submitted(4, private=True)
        ibm.next_jobs([Outcome(status="Failed")])
        ids += submitted(3) if state == "failed" else []
        fetch(job_ids=ids)
        result = run(dag)
        assert result.state == state
        assert widths(result.xcom("fetch"))[0] == 4
        assert Variable.get(f"ibm_quantum_results_{ids[0]}", default_var=None) is None


class TestBadInput:
    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"job_ids": ["a"], "tags": ["b"]},
            {"session_id": "a", "tags": ["b"]},
            {"session_id": "a", "created_after": "2026-01-01T00:00:00Z"},
            {"job_ids": ["a"], "created_before": "2026-01-01T00:00:00Z"},
            {"tags": ["b"], "on_job_failure": "x"},
            {"tags": ["b"], "wait_for_completion": "maybe"},
        ],
        ids=str,
    )
    def test_what_is_no_template_is_an_import_error(self, wrong):
        with pytest.raises(ConfigurationError, match=r"must be|exactly one|need tags"):
            fetch(**wrong)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"job_ids": []}, "job_ids must be a list of at least one id"),
            ({"job_ids": "abc"}, "job_ids must be a list of at least one id"),
            ({"job_ids": ["a", "../b"]}, "job_ids[1] must be 1 to 500 letters"),
            ({"session_id": "None"}, "session_id is empty"),
            ({"tags": []}, "tags must name at least one tag"),
            ({"tags": ["x"], "created_after": datetime(2026, 1, 1)}, "created_after must be a time with a"),  # noqa: DTZ001
            ({"tags": ["x"], "created_before": "yesterday"}, "created_before must be a time with a time"),
            (
                {"tags": ["x"], "created_after": "2026-02-01T00:00Z", "created_before": "2026-01-01T00:00Z"},
                "created_after must be before created_before",
            ),
            ({"tags": ["x"], "results_path": "nosuch://x"}, "results_path"),
        ],
        ids=str,
    )
    def test_it_fails_at_once_and_sends_nothing(self, ibm, dag, run, output, wrong, said):
        with_rendered(fetch(job_ids=["a"], retries=2, **AT_ONCE), **wrong)
        result = run(dag)
        assert (result.state, result.tasks["fetch"].try_number) == ("failed", 1)
        assert said in output()
        assert ibm.journal == []
