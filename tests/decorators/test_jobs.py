# SPDX-License-Identifier: Apache-2.0
"""``@task.ibm_quantum_jobs``: the runs of primitives become jobs, each submitted exactly once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.decorators._function import call_digest
from testing.airflow_runs import cleared, failures_of, next_try, with_rendered
from testing.fake_ibm import Fault, Outcome

pytestmark = pytest.mark.filterwarnings("ignore:The (Sampler|Estimator)V2 class is deprecated")

ARGUMENTS = {"backend": "ibm_fez", "max_ttl": "10m", "poll_interval": 0.1}
BATCH = {**ARGUMENTS, "max_ttl": "8h", "mode": "batch", "deferrable": True}


def bell(backend, *, measured=True):
    """Return a Bell pair in the instructions of the backend."""
    from qiskit import QuantumCircuit, transpile

    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    if measured:
        circuit.measure_all()
    return transpile(circuit, backend, optimization_level=1)


def sample(backend, widths=(1, 2, 3)):
    """Run a sampler for each width, on a circuit that needs no compiling."""
    from qiskit import QuantumCircuit
    from qiskit_ibm_runtime import SamplerV2

    runs = []
    for width in widths:
        circuit = QuantumCircuit(backend.num_qubits, width, name=f"width-{width}")
        circuit.x(range(width))
        circuit.measure(range(width), range(width))
        runs.append(SamplerV2(mode=backend).run([circuit], shots=10))
    return runs


class TestResults:
    """Real circuits, simulated by the emulator."""

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_both_generations_of_primitives(self, qpu, dag, run, deferrable):
        with dag:

            @task.ibm_quantum_jobs(**{**BATCH, "mode": "dedicated", "deferrable": deferrable})
            def work(backend) -> dict:
                from qiskit.quantum_info import SparsePauliOp
                from qiskit_ibm_runtime import EstimatorV2, SamplerV2
                from qiskit_ibm_runtime.executor_estimator import Estimator
                from qiskit_ibm_runtime.executor_sampler import Sampler

                circuit, state = bell(backend), bell(backend, measured=False)
                correlation = SparsePauliOp("ZZ").apply_layout(state.layout)
                Sampler(mode=backend).run([circuit], shots=100)
                SamplerV2(mode=backend).run([circuit], shots=200)
                Estimator(mode=backend).run([(state, correlation)])
                EstimatorV2(mode=backend).run([(state, correlation)])
                return {"qubits": 2}

            work()
        result = run(dag)
        assert result.state == "success"
        reports = result.xcom("work")
        assert [report["format"] for report in reports] == ["sampler", "sampler", "estimator", "estimator"]
        for report, shots in zip(reports, (100, 200), strict=False):
            counts = report["results"][0]["joint_counts"]
            assert set(counts) == {"00", "11"}
            assert sum(counts.values()) == shots
        for report in reports[2:]:
            assert report["results"][0]["evs"] == pytest.approx(1, abs=0.1)
        assert result.xcom("work", "returned") == {"qubits": 2}
        assert result.xcom("work", "session")["state"] == "closed"

    def test_options_twirling_and_programs_of_the_executor(self, qpu, dag, run):
        with dag:

            @task.ibm_quantum_jobs(**BATCH, results="memory")
            def work(backend):
                from qiskit_ibm_runtime import Executor, QuantumProgram
                from qiskit_ibm_runtime.executor_sampler import Sampler

                circuit = bell(backend)
                sampler = Sampler(mode=backend)
                sampler.options.environment.job_tags = ["bell"]
                sampler.options.max_execution_time = 9999
                sampler.options.twirling.enable_measure = True
                sampler.run([circuit], shots=64)
                program = QuantumProgram(shots=32)
                program.append_circuit_item(circuit)
                Executor(mode=backend).run(program)

            work()
        result = run(dag)
        assert result.state == "success"
        sampled, executed = result.xcom("work")
        [pub] = sampled["results"]
        assert len(pub["memory"]["meas"]) == 64
        assert set(pub["counts"]["meas"]) == {"00", "11"}
        assert executed["format"] == "executor"
        assert len(executed["results"]["data"][0]["results"]["meas"]) == 32
        assert "bell" in sampled["tags"]
        assert qpu.service.scheduler.jobs[sampled["id"]].cost == 9999

    def test_it_can_be_mapped(self, qpu, run):
        with DAG("mapped_jobs", schedule=None, params={"backend": "ibm_fez"}) as dag:

            @task.ibm_quantum_jobs(**{**BATCH, "backend": "{{ params.backend }}"})
            def work(number, backend):
                sample(backend, widths=[number])
                return number

            work.expand(number=[1, 2])
        result = run(dag)
        assert result.state == "success"
        assert result.xcom_of_each("work", "returned") == [1, 2]
        counts = [reports[0]["results"][0]["joint_counts"] for reports in result.xcom_of_each("work")]
        assert counts == [{"1": 10}, {"11": 10}]


@pytest.mark.usefixtures("connection", "quick")
class TestSubmission:
    def test_nothing_is_sent_while_the_function_runs(self, ibm, dag, run):
        sent = []
        with dag:

            @task.ibm_quantum_jobs(**ARGUMENTS)
            def work(backend):
                sample(backend)
                sent.extend(entry.method for entry in ibm.journal if entry.operation != "token")

            work()
        assert run(dag).state == "success"
        assert set(sent) == {"GET"}
        changes = [entry.operation for entry in ibm.journal if entry.method != "GET"]
        expected = ["create_session", *["create_job"] * 3, "update_session"]
        assert [operation for operation in changes if operation != "token"] == expected

    def test_a_lost_response_runs_no_job_twice(self, ibm, dag, run):
        with dag:

            @task.ibm_quantum_jobs(**ARGUMENTS)
            def work(backend):
                sample(backend)

            work()
        ibm.script(Fault("POST", "/v1/jobs", drop=True, phase="after", skip=1))
        result = run(dag)
        assert [report["id"] for report in result.xcom("work")] == list(ibm.jobs)
        assert ibm.state()["jobs"] == {"Completed": 3}
        assert ibm.state()["duplicate_submits"] == []

    def test_a_private_job_and_the_calibration(self, ibm, dag, run):
        with dag:

            @task.ibm_quantum_jobs(**ARGUMENTS, calibration_id="{{ 'night' }}")
            def work(backend):
                from qiskit import QuantumCircuit
                from qiskit_ibm_runtime import SamplerV2

                circuit = QuantumCircuit(backend.num_qubits, 1)
                circuit.measure(0, 0)
                sampler = SamplerV2(mode=backend)
                sampler.options.environment.private = True
                sampler.options.environment.log_level = "DEBUG"
                sampler.run([circuit], shots=10)

            work()
        assert run(dag).state == "success"
        [sent] = ibm.requests("POST", "/v1/jobs")
        assert (sent.json["private"], sent.json["log_level"]) == (True, "debug")
        assert sent.json["calibration_id"] == "night"
        assert len(ibm.requests("GET", "/v1/jobs/*/results")) == 1


@pytest.mark.usefixtures("connection", "quick")
class TestRetries:
    @pytest.fixture
    def calls(self, dag):
        """The widths that the task's function was called with."""
        calls = []
        with dag:

            @task.ibm_quantum_jobs(**ARGUMENTS)
            def work(widths, backend):
                calls.append(widths)
                sample(backend, widths)
                return len(widths)

            work([1, 2])
        return calls

    @pytest.fixture
    def first(self, ibm, dag, run, calls):
        """A try that has recorded its jobs, and could not open a session."""
        ibm.script(Fault("POST", "/v1/sessions", status=400))
        result = run(dag)
        assert result.state == "failed"
        assert calls == [[1, 2]]
        return result

    def test_do_not_call_the_function_again(self, ibm, dag, calls, first):
        result = next_try(first, dag, "work")
        assert result.state_of("work") == "success"
        assert calls == [[1, 2]]
        assert len(result.xcom("work")) == len(ibm.jobs) == 2
        assert result.xcom("work", "returned") == 2

    def test_call_it_again_if_an_argument_has_changed(self, ibm, dag, calls, first):
        dag.task_dict["work"].op_args = ([3],)
        result = next_try(first, dag, "work")
        assert calls == [[1, 2], [3]]
        assert len(result.xcom("work")) == len(ibm.jobs) == 1

    def test_call_it_again_if_its_code_has_changed(self, ibm, dag, calls, first):
        def work(widths, backend):
            sample(backend, widths)
            return "other"

        dag.task_dict["work"].python_callable = work
        assert next_try(first, dag, "work").xcom("work", "returned") == "other"

    def test_clearing_a_finished_task_collects(self, ibm, dag, run, calls):
        first = run(dag)
        again = cleared(first, dag, "work")
        assert calls == [[1, 2]]
        assert again.xcom("work") == first.xcom("work")
        assert again.xcom("work", "returned") == 2
        assert len(ibm.jobs) == 2

    @pytest.mark.parametrize("stored", [True, False], ids=["stored", "too large"])
    def test_the_same_try_submits_what_has_failed_again(self, ibm, dag, run, calls, monkeypatch, stored):
        if not stored:
            monkeypatch.setattr("airflow_provider_ibm_sessions.lifecycle.recorded_jobs.MAX_STORED_BYTES", 1)
        ibm.next_jobs([Outcome(seconds=0.05), Outcome.failed(9999, seconds=0.05)])
        dag.task_dict["work"].job_retries, dag.task_dict["work"].deferrable = 1, True
        result = run(dag)
        assert result.state == "success"
        assert calls == ([[1, 2]] if stored else [[1, 2], [1, 2]])
        assert [report["attempts"] for report in result.xcom("work")] == [1, 2]
        assert len(ibm.jobs) == 3

    def test_a_clear_calls_the_function_again_if_it_is_to_run_all(self, ibm, dag, run, calls):
        dag.task_dict["work"].on_clear = "rerun"
        first = run(dag)
        again = cleared(first, dag, "work")
        assert calls == [[1, 2], [1, 2]]
        assert len(ibm.jobs) == 4
        assert [report["id"] for report in again.xcom("work")] == list(ibm.jobs)[2:]

    def test_jobs_too_large_to_be_stored_are_made_again(self, ibm, dag, run, calls, monkeypatch):
        monkeypatch.setattr("airflow_provider_ibm_sessions.lifecycle.recorded_jobs.MAX_STORED_BYTES", 1)
        ibm.script(Fault("POST", "/v1/sessions", status=400))
        result = next_try(run(dag), dag, "work")
        assert result.state_of("work") == "success"
        assert calls == [[1, 2], [1, 2]]
        cleared(result, dag, "work")
        assert calls == [[1, 2], [1, 2]], "all of them have been submitted"
        assert len(ibm.jobs) == 2


def early_result(backend):
    sample(backend)[0].result()


def early_id(backend):
    return sample(backend)[0].job_id()


def nothing(backend):
    return 1


def simulated(backend):
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime.executor_sampler import Sampler

    simulator = AerSimulator()
    Sampler(mode=simulator).run([bell(simulator)], shots=1)


def own_batch(backend):
    from qiskit_ibm_runtime import Batch

    with Batch(backend=backend) as batch:
        sample(batch)


def other_qpu(backend):
    sample(backend.service.backend("ibm_marrakesh"))


def mock(backend):
    from qiskit_ibm_runtime.executor_sampler import Sampler

    Sampler(mode=backend).run([bell(backend)], dry_run=True)


def returns_runs(backend):
    return sample(backend)


def returns_a_circuit(backend):
    sample(backend)
    return {"circuit": bell(backend)}


def returns_a_reserved_key(backend):
    sample(backend)
    return {"a": [{"__type": "dict", "__var": 1}]}


def not_compiled(backend):
    from qiskit import QuantumCircuit
    from qiskit_ibm_runtime.executor_sampler import Sampler

    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.measure_all()
    Sampler(mode=backend).run([circuit])


def not_compiled_v2(backend):
    from qiskit import QuantumCircuit
    from qiskit_ibm_runtime import SamplerV2

    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.measure_all()
    SamplerV2(mode=backend).run([circuit])


def too_many_tags(backend):
    from qiskit_ibm_runtime.executor_sampler import Sampler

    sampler = Sampler(mode=backend)
    sampler.options.environment.job_tags = [str(number) for number in range(8)]
    sampler.run([bell(backend)])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            early_result,
            r"result\(\) of a job is not available.*after the function.*@task.ibm_quantum_session",
        ),
        (early_id, r"job_id\(\) of a job is not available"),
        (nothing, r"nothing has run no primitive: call one's run\(\)"),
        (simulated, "simulated has run no primitive"),
        (own_batch, r"Nothing is sent while .* runs: give primitives mode=backend\. .*POST /api/v1/sessions"),
        (other_qpu, r"run 1 \(sampler\) is for ibm_marrakesh: .*mode=backend, which is ibm_fez"),
        (mock, r"run 1 \(executor\): dry_run is not supported"),
        (returns_runs, "returns_runs must return plain JSON .* not list"),
        (returns_a_circuit, "returns_a_circuit must return plain JSON .* not dict"),
        (returns_a_reserved_key, "must return plain JSON .* Airflow reserves its key __var"),
        (not_compiled, "The instruction h on qubits .* is not supported by the target"),
        (not_compiled_v2, "The instruction h on qubits .* is not supported by the target"),
        (too_many_tags, r"run 1 \(executor\): tags must be"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_function_that_cannot_work_opens_no_session(ibm, connection, dag, run, function, message):
    with dag:
        task.ibm_quantum_jobs(**ARGUMENTS)(function)()
    [error] = failures_of(dag, run).values()
    assert_matches(message, error)
    assert ibm.sessions == ibm.jobs == {}


def test_a_job_that_is_too_large_opens_no_session(ibm, connection, dag, run, monkeypatch):
    monkeypatch.setattr("airflow_provider_ibm_sessions.client.models.jobs.MAX_JOB_BYTES", 1_000_000)
    with dag:

        @task.ibm_quantum_jobs(**ARGUMENTS)
        def work(backend):
            from qiskit import QuantumCircuit
            from qiskit_ibm_runtime import SamplerV2

            circuit = QuantumCircuit(backend.num_qubits, 1)
            circuit.measure(0, 0)
            circuit.metadata = {"note": os.urandom(1_500_000).hex()}
            SamplerV2(mode=backend).run([circuit])

        work()
    [error] = failures_of(dag, run).values()
    assert_matches(r"run 1 \(sampler\): params: must be at most 1 MB of JSON, got \d MB", error)
    assert ibm.sessions == {}


def assert_matches(pattern, text):
    import re

    assert re.search(pattern, text, re.S), text


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"backend": "no such name"}, "backend"),
        ({"mode": "x"}, "mode"),
        ({"max_ttl": "soon"}, "max_ttl"),
        ({"calibration_id": ["x"]}, "calibration_id"),
        ({"calibration_id": "{{ '' }}"}, "calibration_id"),
    ],
    ids=str,
)
def test_bad_arguments_open_nothing(ibm, connection, dag, run, output, wrong, field):
    with dag:
        with_rendered(task.ibm_quantum_jobs(**ARGUMENTS)(sample)().operator, **wrong)
    assert run(dag).state == "failed"
    assert f"{field} must be" in output()
    assert ibm.journal == []


def without_argument(other):
    pass


async def coroutine(backend):
    pass


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (without_argument, {}, "without_argument must have an argument 'backend'"),
        (coroutine, {}, "must be a plain function"),
        (sample, {"backend": "no such name"}, "backend must be the name of a QPU"),
        (sample, {"mode": "x"}, "mode must be one of dedicated, batch"),
        (sample, {"max_ttl": "soon"}, "max_ttl must be"),
        (sample, {"calibration_id": ["x"]}, "calibration_id must be a string"),
        (sample, {"use_fractional_gates": "some"}, "use_fractional_gates must be true or false"),
        (sample, {"results": "all"}, "results must be .*counts, memory, raw"),
        (sample, {"on_job_failure": "ignore"}, "on_job_failure must be"),
        (sample, {"multiple_outputs": True}, "multiple_outputs cannot be set"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_is_known_when_the_dag_is_parsed_is_refused_then(dag, function, arguments, message):
    with pytest.raises(ConfigurationError, match=message), dag:
        task.ibm_quantum_jobs(**{**ARGUMENTS, **arguments})(function)()


def test_the_backend_is_not_the_dags_to_give(dag):
    with pytest.raises(ConfigurationError, match="'backend' of sample is set by the task"), dag:
        task.ibm_quantum_jobs(**ARGUMENTS)(sample)(backend="ibm_fez")


class TestDigest:
    PROGRAM = """
from airflow_provider_ibm_sessions.decorators._function import call_digest
def function(x):
    return [word in {"one", "two", "three"} for word in x]
print(call_digest(function, [{"a", "b"}, {"k": 1}]))
"""

    def test_is_the_same_in_each_process(self):
        found = set()
        for seed in ("1", "2"):
            environment = {**os.environ, "PYTHONHASHSEED": seed}
            command = [sys.executable, "-c", self.PROGRAM]
            found.add(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
        assert len(found) == 1

    def test_differs_with_code_constants_and_arguments(self):
        digests = [
            call_digest(function, arguments)
            for function in (lambda: 1, lambda: 2, lambda: print(1), lambda: [lambda: 1])
            for arguments in ([], [1], ["1"], [{"angle": 0.5}])
        ]
        assert len(set(digests)) == 16

    def test_does_not_differ_with_the_line(self):
        source = "def function():\n    return 1\n"
        names, later = {}, {}
        exec(source, names)
        exec(f"\n\n{source}", later)
        assert call_digest(names["function"], []) == call_digest(later["function"], [])
