# SPDX-License-Identifier: Apache-2.0
"""
Jobs run exactly once though a process dies.

A worker is killed (SIGKILL) before each of its requests to IBM, after each response, and when ``execute()``
has returned; another process then runs the task's retry to its end. Wherever it was killed, each job has run
once, and no orphaned session is open.
"""

from __future__ import annotations

import itertools
import os

import pytest
from airflow.sdk import task as airflow_task

from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator, IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.session import IBMQuantumCreateSessionOperator
from testing.airflow_runs import serialize
from testing.worker_process import WorkerRun

pytestmark = [
    pytest.mark.usefixtures("connection", "quick", "warm"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


def job(width):
    circuit = f"OPENQASM 3.0; bit[{width}] meas; qubit[{width}] q;"
    return {"program_id": "sampler", "program_params": {"pubs": [[circuit, None, 10]]}}


JOBS = [{"program_id": "sampler", "params": job(width)["program_params"]} for width in (2, 3, 4)]


def run_jobs(**kwargs):
    return IBMQuantumRunJobsOperator(
        task_id="run", **{"backend": "ibm_fez", "jobs": JOBS, "poll_interval": 0.05, "retries": 1, **kwargs}
    )


def assert_each_ran_once(jobs, count):
    assert [job.status for job in jobs] == ["Completed"] * count
    assert len({tag for job in jobs for tag in job.tags}) == count


def assert_results(reports):
    """Each job has its own results, which differ by the width of their register."""
    widths = [{len(bits) for bits in report["results"][0]["counts"]["meas"]} for report in reports]
    assert widths == [{index + 2} for index in range(len(reports))]


class TestCreateSession:
    """A task that was killed resumes the session that it had opened, even if it had not learned its id."""

    @pytest.fixture
    def task(self, ibm, dag):
        task = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", retries=20)
        serialize(dag)
        return task

    @pytest.mark.parametrize("point", ["before", "after"])
    def test_killed_at_any_request(self, ibm, task, point):
        for number in itertools.count(1):
            run = WorkerRun(ibm, task, f"{point}-{number}")
            killed = run.killed_once(point, number)
            assert run.sessions == [session.id for session in run.left_open] == [run.result()]
            if not killed:
                break
        assert number > 2

    def test_killed_when_all_is_done_but_not_reported(self, ibm, task):
        run = WorkerRun(ibm, task, "end")
        assert run.killed_once("end", 0)
        assert list(ibm.sessions) == [run.result()]

    def test_killed_again_and_again(self, ibm, task):
        """Each attempt gets one request further than the one before it."""
        run = WorkerRun(ibm, task, "again")
        for number in range(1, 20):
            if not run.worker.attempt(("after", number)):
                break
            run.worker.report_lost()
        assert number > 4, "token and request; token, list, session, jobs ..."
        assert list(ibm.sessions) == ibm.state()["accepting"] == [run.result()]


class TestRunJobs:
    @pytest.mark.parametrize("point", ["before", "after"])
    def test_killed_at_any_request(self, ibm, dag, point):
        ibm.settings.job_seconds = 0.05
        task = run_jobs()
        serialize(dag)
        for number in itertools.count(1):
            run = WorkerRun(ibm, task, f"{point}-{number}")
            killed = run.killed_once(point, number)
            assert_each_ran_once(run.jobs, 3)
            assert_results(run.result())
            assert run.left_open == []
            if not killed:
                break
        assert number > 8, "token, session, 3 jobs, drain, 3 results; polls, as many as the machine is slow"
        assert ibm.state()["duplicates"] == []

    def test_killed_when_all_is_done_but_not_reported(self, ibm, dag):
        ibm.settings.job_seconds = 0.05
        task = run_jobs()
        serialize(dag)
        run = WorkerRun(ibm, task, "end")
        assert run.killed_once("end", 0)
        assert_each_ran_once(run.jobs, 3)
        assert_results(run.result())
        assert len(ibm.sessions) == 1

    def test_killed_again_and_again(self, ibm, dag):
        """Each attempt gets one request further than the one before it."""
        ibm.settings.job_seconds = 0.05
        task = run_jobs(retries=40)
        serialize(dag)
        run = WorkerRun(ibm, task, "again")
        for number in range(1, 40):
            if not run.worker.attempt(("after", number)):
                break
            run.worker.report_lost()
        assert number > 8
        assert_each_ran_once(run.jobs, 3)
        assert_results(run.result())
        assert run.left_open == []


class TestJobsOfAFunction:
    """``@task.ibm_quantum_jobs``: killed between the recording of its jobs and the last submission."""

    pytestmark = pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated")

    @pytest.fixture
    def calls(self, tmp_path):
        """A file with a line for each call of the function, in whatever process."""
        path = tmp_path / "calls"
        path.touch()
        return path

    @pytest.fixture
    def task(self, ibm, dag, calls):
        import airflow_provider_ibm_sessions.hooks.qiskit_recorder  # noqa: F401  once, in the parent

        ibm.settings.job_seconds = 0.05
        with dag:

            @airflow_task.ibm_quantum_jobs(backend="ibm_fez", max_ttl="10m", poll_interval=0.05, retries=20)
            def work(widths, backend):
                from qiskit import QuantumCircuit
                from qiskit_ibm_runtime import SamplerV2

                with calls.open("a") as file:
                    file.write(f"{widths}\n")
                for width in widths:
                    circuit = QuantumCircuit(backend.num_qubits, width, name="one")
                    circuit.measure(range(width), range(width))
                    SamplerV2(mode=backend).run([circuit], shots=10)

            task = work([2, 3, 4]).operator
        serialize(dag)
        return task

    def submissions(self, ibm, task):
        """Run the task once; return the numbers of its requests from the session's to the last job's."""
        before = len(ibm.journal)
        run = WorkerRun(ibm, task, "not-killed")
        assert run.worker.attempt() is None
        operations = [entry.operation for entry in ibm.journal[before:]]
        last = len(operations) - operations[::-1].index("create_job")
        return range(operations.index("create_session") + 1, last + 1)

    @pytest.mark.parametrize("point", ["before", "after"])
    def test_each_runs_once_and_the_function_is_called_once(self, ibm, task, calls, point):
        for number in self.submissions(ibm, task):
            calls.write_text("")
            run = WorkerRun(ibm, task, f"{point}-{number}")
            assert run.killed_once(point, number)
            assert_each_ran_once(run.jobs, 3)
            assert [report["id"] for report in run.result()] == [job.id for job in run.jobs]
            assert run.left_open == []
            assert calls.read_text() == "[2, 3, 4]\n"
        assert ibm.state()["duplicates"] == []

    def test_killed_before_its_jobs_are_recorded(self, ibm, task, calls):
        first = self.submissions(ibm, task)[0]
        calls.write_text("")
        run = WorkerRun(ibm, task, "early")
        assert run.killed_once("before", first - 1)
        assert_each_ran_once(run.jobs, 3)

    def test_jobs_too_large_to_be_stored_are_made_again(self, ibm, task, calls, monkeypatch):
        monkeypatch.setattr("airflow_provider_ibm_sessions.lifecycle.recorded_jobs.MAX_STORED_BYTES", 1)
        numbers = self.submissions(ibm, task)
        calls.write_text("")
        run = WorkerRun(ibm, task, "large")
        assert run.killed_once("after", numbers[2])
        assert_each_ran_once(run.jobs, 3)
        assert calls.read_text() == "[2, 3, 4]\n" * 2

    def test_other_input_ends_what_was_submitted(self, ibm, task, calls):
        numbers = self.submissions(ibm, task)
        ibm.settings.job_seconds = 600
        run = WorkerRun(ibm, task, "changed")
        assert run.worker.attempt(("after", numbers[2]))
        run.worker.report_lost()
        ibm.settings.job_seconds = 0.05
        before = run.jobs
        task.op_args = ([5],)
        assert run.worker.attempt() is None
        assert len(before) == 2
        assert [ibm.jobs[job.id].status for job in before] == ["Cancelled"] * 2
        [report] = run.result()
        assert report["state"] == "Completed"
        assert run.left_open == []


class TestSubmitJob:
    @pytest.mark.parametrize("point", ["before", "after", "end"])
    def test_a_job_in_a_session_killed_at_any_request(self, ibm, dag, point):
        ibm.settings.job_seconds = 0.05
        session = ibm.add_session(age=1)
        task = IBMQuantumSubmitJobOperator(
            task_id="submit", session_id=session.id, poll_interval=0.05, retries=1, **job(2)
        )
        serialize(dag)
        for number in itertools.count(1) if point != "end" else [0]:
            run = WorkerRun(ibm, task, f"{point}-{number}")
            killed = run.killed_once(point, number)
            assert_each_ran_once(run.jobs, 1)
            assert_results([run.result()])
            if not killed:
                break
        assert killed == (point == "end")
        assert number > 5 or point == "end"
        assert ibm.state()["duplicates"] == []

    def test_a_job_alone_killed_again_and_again(self, ibm, dag):
        ibm.settings.job_seconds = 0.05
        task = IBMQuantumSubmitJobOperator(
            task_id="submit", backend="ibm_fez", poll_interval=0.05, retries=20, **job(2)
        )
        serialize(dag)
        run = WorkerRun(ibm, task, "again")
        for number in range(1, 20):
            if not run.worker.attempt(("after", number)):
                break
            run.worker.report_lost()
        assert number > 3
        assert_each_ran_once(run.jobs, 1)
        assert_results([run.result()])

    def test_a_private_job_whose_results_had_been_stored(self, ibm, dag):
        """Killed when they have been read and stored, but not reported: they cannot be read again."""
        ibm.settings.job_seconds = 0.05
        task = IBMQuantumSubmitJobOperator(
            task_id="submit", backend="ibm_fez", poll_interval=0.05, retries=1, private=True, **job(2)
        )
        serialize(dag)
        run = WorkerRun(ibm, task, "private")
        assert run.killed_once("end", 0)
        [submitted] = run.jobs
        assert submitted.results_read == 1
        assert_results([run.result()])
