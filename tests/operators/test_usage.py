# SPDX-License-Identifier: Apache-2.0
"""The XCom ``usage`` of tasks that own a session or a job, and the waiting for IBM's final figures."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from airflow.sdk import task

from airflow_provider_ibm_sessions.cli.main import main
from airflow_provider_ibm_sessions.cli.metastore import records_of_run
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.operators.job import IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from testing.airflow_runs import cleared, fails_once
from testing.connections import connection_to
from testing.dag_tasks import run_jobs, sampler_job
from testing.fake_ibm import Outcome

PRICE = Decimal("1.6")
UNKNOWN = {"qpu_seconds": None, "billed_seconds": None, "cost": None, "currency": "EUR", "settled": False}


@pytest.fixture(autouse=True)
def _priced(ibm, airflow_db, monkeypatch):
    # As the form keeps it: text.
    priced = connection_to(ibm, price_per_second=str(PRICE), currency="EUR")
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", priced)


def submit_job(**kwargs):
    given = {"task_id": "submit", "program_id": "sampler", "backend": "ibm_fez", "poll_interval": 0.1}
    return IBMQuantumSubmitJobOperator(**{**given, "program_params": sampler_job()["params"], **kwargs})


def records(result):
    return records_of_run(result.dag_run.dag_id, result.dag_run.run_id)


def money(seconds):
    return float((Decimal(repr(seconds)) * PRICE).quantize(Decimal("0.000001")))


class TestSubmitJob:
    def test_a_job_alone_costs_what_it_ran(self, ibm, dag, run):
        with dag:
            submit_job()
        result = run(dag)
        [(job_id, billed)] = ibm.bill.items()
        assert result.xcom("submit", "usage") == {
            "qpu_seconds": billed,
            "billed_seconds": billed,
            "cost": money(billed),
            "currency": "EUR",
            "settled": True,
        }
        [record] = records(result)
        assert (record.session_id, record.mode, record.billed) == (job_id, "job", billed)

    def test_a_job_in_a_session_is_billed_with_that(self, ibm, dag, run):
        with dag:
            create = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
            close = IBMQuantumCloseSessionOperator(task_id="close", session_id=create.output)
            submit_job(session_id=create.output, backend=None) >> close
        result = run(dag)
        [session] = list(ibm.sessions.values())
        of_job, of_session = result.xcom("submit", "usage"), result.xcom("close", "usage")
        assert (of_job["billed_seconds"], of_job["cost"]) == (None, None)
        assert of_job["qpu_seconds"] == of_session["qpu_seconds"]
        assert of_session["billed_seconds"] == session.billed_seconds
        assert of_session["cost"] == money(session.billed_seconds)
        assert [record.session_id for record in records(result)] == [session.id]

    def test_a_job_that_fails_and_the_one_after_a_clear_are_both_recorded(self, ibm, dag, run):
        ibm.next_jobs([Outcome.failed(1517, seconds=0.5)])
        with dag:
            submit_job()
        first = run(dag)
        assert first.state == "failed"
        assert first.xcom("submit", "usage")["billed_seconds"] == pytest.approx(0.5)
        result = cleared(first, dag, "submit")
        assert {record.session_id: record.billed for record in records(result)} == ibm.bill
        assert [record.try_number for record in records(result)] == [1, 2]

    def test_one_that_is_not_waited_for_is_unknown(self, dag, run):
        with dag:
            submit_job(wait_for_completion=False)
        assert run(dag).xcom("submit", "usage") == UNKNOWN

    def test_one_that_is_given_up_leaves_what_it_used(self, ibm, dag, run):
        ibm.settings.job_seconds = 600
        with dag:
            submit_job(timeout=0.5)
        result = run(dag)
        [billed] = ibm.bill.values()
        assert result.state == "failed"
        assert billed > 0
        assert result.xcom("submit", "usage")["billed_seconds"] == billed


class TestSettling:
    @pytest.fixture(autouse=True)
    def _late(self, ibm):
        ibm.settings.usage_settle_seconds = 1e6

    @pytest.fixture
    def _settles(self, ibm, when):
        """IBM's usage is final when it was read once since the session has closed, and is read again."""
        read_before = []

        def is_read_again():
            if ibm.sessions and all(session.state == "closed" for session in ibm.sessions.values()):
                read_before.append(len(ibm.journal))
            return bool(read_before) and len(ibm.journal) >= read_before[0] + 3

        when(is_read_again, lambda: setattr(ibm.settings, "usage_settle_seconds", 0))

    def test_by_default_usage_may_be_provisional_and_says_so(self, ibm, dag, run):
        with dag:
            run_jobs(mode="batch")
        result = run(dag)
        [record] = records(result)
        usage = result.xcom("run", "usage")
        assert usage["settled"] is record.billed_is_final is False
        assert usage["billed_seconds"] == record.billed < sum(ibm.bill.values())

    @pytest.mark.usefixtures("_settles")
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_run_jobs_waits_until_it_is_final(self, ibm, dag, run, deferrable, output):
        with dag:
            run_jobs(mode="batch", settle_usage="15m", deferrable=deferrable)
        result = run(dag)
        [record] = records(result)
        assert result.xcom("run", "usage")["settled"] is record.billed_is_final is True
        assert record.billed == pytest.approx(sum(ibm.bill.values()))
        assert "Waiting up to 900 s until IBM's usage is final" in output()

    def test_it_waits_no_longer_than_it_may(self, ibm, dag, run):
        with dag:
            submit_job(settle_usage=1)
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("submit", "usage")["settled"] is False

    @pytest.mark.usefixtures("_settles")
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_closing_waits_until_what_runs_on_is_paid(self, ibm, dag, run, deferrable):
        ibm.settings.job_seconds = 2

        @task
        def work(session_id):
            from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

            IBMQuantumHook().submit_job(backend="ibm_fez", session_id=session_id, **sampler_job())

        with dag:
            create = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
            close = IBMQuantumCloseSessionOperator(
                task_id="close",
                session_id=create.output,
                settle_usage="15m",
                deferrable=deferrable,
                poll_interval=0.2,
            )
            work(create.output) >> close
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("close")["state"] == "closed"
        [record] = records(result)
        assert {record.session_id: record.billed} == ibm.bill
        assert result.xcom("close", "usage")["cost"] == money(record.billed)
        assert result.xcom("close", "usage")["settled"] is record.billed_is_final is True

    @pytest.mark.usefixtures("_settles")
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_a_usage_that_cannot_be_read_again_does_not_fail_the_closing(
        self, ibm, dag, run, output, monkeypatch, deferrable
    ):
        with dag:
            create = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="10m")
            IBMQuantumCloseSessionOperator(
                task_id="close", session_id=create.output, settle_usage="15m", deferrable=deferrable
            ) << submit_job(session_id=create.output, backend=None)
        fails_once(monkeypatch, IBMQuantumHook, "settle_session")
        result = run(dag)
        assert result.state == "success"
        assert result.xcom("close")["state"] == "closed"
        assert result.xcom("close", "usage")["billed_seconds"] > 0
        assert "was not read again" in output()

    def test_the_command_reads_again_what_was_not_final(self, ibm, dag, run, capfd):
        with dag:
            run_jobs(mode="batch")
        result = run(dag)
        ibm.settings.usage_settle_seconds = 0
        arguments = ["usage", "--dag-id", dag.dag_id, "--run-id", result.dag_run.run_id]
        capfd.readouterr()
        assert main([*arguments, "--json"]) == 0
        before = json.loads(capfd.readouterr().out)
        assert before["totals"]["not_final"] == 1
        assert main([*arguments, "--settle"]) == 0
        [billed] = [record.billed for record in records(result)]
        assert billed == pytest.approx(sum(ibm.bill.values()))
        table = capfd.readouterr().out
        assert "3 Completed" in table
        assert f"{billed * float(PRICE):.2f} EUR" in table

    @pytest.mark.parametrize("wrong", ["soon", 0, -1, True])
    def test_a_duration_that_is_none_is_refused_when_the_dag_is_parsed(self, wrong):
        with pytest.raises(ConfigurationError, match="settle_usage must be"):
            submit_job(settle_usage=wrong)


def test_a_session_that_a_failed_task_closes_leaves_its_usage(ibm, dag, run):
    ibm.settings.failures = [1517]
    with dag:
        run_jobs(jobs=[sampler_job()])
    result = run(dag)
    assert result.state == "failed"
    [session] = list(ibm.sessions.values())
    assert result.xcom("run", "usage")["billed_seconds"] == session.billed_seconds


class TestLogs:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_verbose_brings_the_jobs_own_log(self, ibm, dag, run, deferrable, output):
        ibm.next_jobs([Outcome(logs=f"transpiling\nkey {ibm.api_key}\x1b[31m\n")])
        with dag:
            run_jobs(jobs=[sampler_job()], verbose=True, deferrable=deferrable)
        assert run(dag).state == "success"
        [job_id] = ibm.jobs
        assert f"Job {job_id}: transpiling" in output()
        assert "\x1b" not in output()

    def test_a_log_that_cannot_be_read_fails_nothing(self, ibm, dag, run, output):
        from testing.fake_ibm import Fault

        ibm.script(Fault("GET", "/v1/jobs/*/logs", status=403, times=None))
        with dag:
            submit_job(verbose=True)
        assert run(dag).state == "success"
        assert "was not read" in output()


class TestUsageCommand:
    def test_an_unknown_run_is_named(self, dag, run, capfd):
        assert main(["usage", "--dag-id", "nobody", "--run-id", "never"]) == 2
        assert "There is no run never of Dag nobody" in capfd.readouterr().err

    def test_a_run_that_opened_nothing_has_nothing(self, dag, run, capfd):
        @task
        def nothing():
            return 1

        with dag:
            nothing()
        result = run(dag)
        capfd.readouterr()
        assert main(["usage", "--dag-id", dag.dag_id, "--run-id", result.dag_run.run_id, "--json"]) == 0
        assert json.loads(capfd.readouterr().out) == {
            "records": [],
            "totals": {
                "sessions": 0,
                "single_jobs": 0,
                "billed": 0.0,
                "cost": {},
                "not_final": 0,
                "unknown": 0,
            },
        }


class TestEstimate:
    def test_jobs_above_the_bound_are_not_submitted(self, ibm, dag, run, output):
        with dag:
            run_jobs(jobs=[sampler_job(shots=100_000)], max_estimate="30s")
        assert run(dag).state == "failed"
        assert ibm.requests("POST", "/v1/sessions") == []
        assert "max_estimate is 30 s, and the jobs take at least 37 s of QPU time, 59.20 EUR" in output()

    def test_nor_are_they_when_the_task_is_cleared(self, ibm, dag, run):
        with dag:
            run_jobs(jobs=[sampler_job(shots=100_000)], max_estimate="30s")
        assert cleared(run(dag), dag, "run").state_of("run") == "failed"
        assert ibm.requests("POST", "/v1/*") == []

    def test_jobs_below_it_run_and_the_log_tells_the_price(self, dag, run, output):
        with dag:
            run_jobs(jobs=[sampler_job(shots=100_000)], max_estimate="1m")
        assert run(dag).state == "success"
        assert "The jobs (1) take at least 37 s of QPU time, 59.20 EUR" in output()
