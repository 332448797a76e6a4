# SPDX-License-Identifier: Apache-2.0
"""Flows of IBM's guides, each in both decorators: on the emulator, with the same results."""

from __future__ import annotations

from math import pi

import pytest
from airflow.sdk import task

pytest.importorskip("qiskit_aer")

pytestmark = pytest.mark.filterwarnings("ignore:The (Sampler|Estimator)V2 class is deprecated")

SHOTS = 200


def in_jobs(flow, **arguments):
    """Make a task of ``@task.ibm_quantum_jobs``."""

    @task.ibm_quantum_jobs(task_id="work", poll_interval=0.1, deferrable=True, **arguments)
    def work(backend):
        flow(backend, backend)

    return work()


def in_session(flow, **arguments):
    """Make a task of ``@task.ibm_quantum_session``, which waits for the results itself."""
    name = arguments["backend"]

    @task.ibm_quantum_session(task_id="work", **arguments)
    def work(session):
        return [job.result() for job in flow(session.service.backend(name), session)]

    return work()


@pytest.fixture(params=[in_jobs, in_session], ids=["jobs", "session"])
def results_of(request, qpu, dag, run):
    """Run a flow in one of the decorators; return the results of its jobs, and the jobs themselves."""

    def results_of(flow, **arguments):
        with dag:
            request.param(flow, **{"backend": "ibm_fez", "max_ttl": "8h", **arguments})
        result = run(dag)
        assert result.state == "success"
        session = qpu.service.scheduler.sessions[result.xcom("work", "session")["id"]]
        assert not session.accepts_jobs
        return result.xcom("work"), [qpu.service.scheduler.jobs[job_id] for job_id in session.jobs]

    return results_of


def compiled(backend, circuit):
    from qiskit.transpiler import generate_preset_pass_manager

    return generate_preset_pass_manager(backend=backend, optimization_level=1, seed_transpiler=1).run(circuit)


def bell(*, measured=True):
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    if measured:
        circuit.measure_all()
    return circuit


def correlation(backend):
    """Return the pub of an estimator: the correlation of a Bell pair, which is 1."""
    from qiskit.quantum_info import SparsePauliOp

    circuit = compiled(backend, bell(measured=False))
    return circuit, SparsePauliOp("ZZ").apply_layout(circuit.layout)


def counts_of(found):
    """Return the joint counts of a job's first pub."""
    assert found["format"] == "sampler"
    pub = found["results"][0]
    assert sum(pub["joint_counts"].values()) == pub["num_shots"]
    return pub["joint_counts"]


def values_of(found):
    """Return the expectation values of a job's first pub."""
    assert found["format"] == "estimator"
    return found["results"][0]["evs"]


def test_the_session_guide(results_of):
    def flow(backend, mode):
        from qiskit_ibm_runtime.executor_estimator import Estimator
        from qiskit_ibm_runtime.executor_sampler import Sampler

        sampler = Sampler(mode=mode)
        return [
            sampler.run([compiled(backend, bell())], shots=SHOTS),
            sampler.run([compiled(backend, bell())], shots=10),
            Estimator(mode=mode).run([correlation(backend)], precision=0.05),
        ]

    (first, second, value), jobs = results_of(flow)
    assert set(counts_of(first)) == {"00", "11"}
    assert [sum(counts_of(each).values()) for each in (first, second)] == [SHOTS, 10]
    assert values_of(value) == pytest.approx(1, abs=0.2)
    assert len({job.session_id for job in jobs}) == 1


def test_the_batch_guide(results_of):
    """Circuits are spread over the jobs of a batch."""

    def flow(backend, mode):
        from qiskit_ibm_runtime.executor_sampler import Sampler

        circuits = [compiled(backend, bell())] * 5
        return [Sampler(mode=mode).run(circuits[at : at + 2], shots=10) for at in range(0, 5, 2)]

    found, jobs = results_of(flow, mode="batch")
    assert [len(each["results"]) for each in found] == [2, 2, 1]
    assert len(jobs) == 3


def test_vqe(results_of):
    """The energies of an ansatz over a grid of its parameter: the lowest is that of the ground state."""

    def flow(backend, mode):
        from qiskit import QuantumCircuit
        from qiskit.circuit import Parameter
        from qiskit.quantum_info import SparsePauliOp
        from qiskit_ibm_runtime.executor_estimator import Estimator

        ansatz = QuantumCircuit(1)
        ansatz.ry(Parameter("angle"), 0)
        ansatz = compiled(backend, ansatz)
        energy = SparsePauliOp.from_list([("Z", 1.0), ("X", 0.5)]).apply_layout(ansatz.layout)
        grid = [[step * pi / 4] for step in range(8)]
        return [Estimator(mode=mode).run([(ansatz, energy, grid)], precision=0.05)]

    [found], _ = results_of(flow)
    assert len(values_of(found)) == 8
    assert min(values_of(found)) == pytest.approx(-(1.5 / 2**0.5), abs=0.25)


def test_the_chsh_inequality(results_of):
    """Observables broadcast over an array of parameters."""

    def flow(backend, mode):
        from qiskit.circuit import Parameter
        from qiskit.quantum_info import SparsePauliOp
        from qiskit_ibm_runtime.executor_estimator import Estimator

        circuit = bell(measured=False)
        circuit.ry(Parameter("angle"), 0)
        circuit = compiled(backend, circuit)
        terms = [("ZZ", 1), ("ZX", 1), ("XZ", -1), ("XX", 1)]
        chsh = SparsePauliOp.from_list(terms).apply_layout(circuit.layout)
        return [Estimator(mode=mode).run([(circuit, chsh, [[0.0], [pi / 4], [pi]])], precision=0.05)]

    [found], _ = results_of(flow)
    assert values_of(found) == [pytest.approx(value, abs=0.4) for value in (2, 8**0.5, -2)]


def test_a_dynamic_circuit(results_of):
    """A measurement in the middle decides on the second qubit: their two registers are equal."""

    def flow(backend, mode):
        from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
        from qiskit_ibm_runtime.executor_sampler import Sampler

        first, second = ClassicalRegister(1, "first"), ClassicalRegister(1, "second")
        circuit = QuantumCircuit(QuantumRegister(2), first, second)
        circuit.h(0)
        circuit.measure(0, first)
        with circuit.if_test((first, 1)):
            circuit.x(1)
        circuit.measure(1, second)
        return [Sampler(mode=mode).run([compiled(backend, circuit)], shots=SHOTS)]

    [found], _ = results_of(flow)
    assert set(counts_of(found)) == {"00", "11"}
    counts = found["results"][0]["counts"]
    assert counts["first"] == counts["second"]


def test_the_executor_guide_with_twirling(results_of):
    def flow(backend, mode):
        from qiskit_ibm_runtime import Executor
        from qiskit_ibm_runtime.quantum_program import QuantumProgram
        from samplomatic import build
        from samplomatic.transpiler import generate_boxing_pass_manager

        circuit = compiled(backend, bell())
        boxed = generate_boxing_pass_manager(enable_gates=True, enable_measures=True).run(circuit)
        template, samplex = build(boxed)
        program = QuantumProgram(shots=20)
        program.append_circuit_item(circuit)
        program.append_samplex_item(template, samplex=samplex, shape=(4,))
        return [Executor(mode=mode).run(program)]

    [found], [job] = results_of(flow)
    assert (found["format"], job.program_id) == ("executor", "executor")
    plain, twirled = (item["results"] for item in found["results"]["data"])
    assert {tuple(bits) for bits in plain["meas"]} == {(False, False), (True, True)}
    # What twirling has flipped is flipped back with the flips that come along.
    for shots, [flips] in zip(twirled["meas"], twirled["measurement_flips.meas"], strict=True):
        assert len(shots) == 20
        assert all((bits[0] ^ flips[0]) == (bits[1] ^ flips[1]) for bits in shots)


@pytest.mark.parametrize("generation", ["executor", "V2"])
def test_options_of_a_sampler(results_of, generation):
    """Twirling and dynamical decoupling change nothing without noise; what is sent is what was asked for."""

    def flow(backend, mode):
        from qiskit_ibm_runtime import SamplerV2
        from qiskit_ibm_runtime.executor_sampler import Sampler

        sampler = (SamplerV2 if generation == "V2" else Sampler)(mode=mode)
        sampler.options.twirling.enable_gates = True
        sampler.options.twirling.enable_measure = True
        sampler.options.twirling.num_randomizations = 4
        sampler.options.twirling.shots_per_randomization = 50
        sampler.options.dynamical_decoupling.enable = True
        sampler.options.dynamical_decoupling.sequence_type = "XY4"
        sampler.options.environment.job_tags = ["twirled"]
        return [sampler.run([compiled(backend, bell())], shots=SHOTS)]

    [found], [job] = results_of(flow)
    counts = counts_of(found)
    assert set(counts) == {"00", "11"}
    assert sum(counts.values()) == SHOTS
    assert "twirled" in job.tags
    if generation == "V2":
        sent = job.params["options"]
        assert sent["twirling"]["num_randomizations"] == 4
        assert sent["dynamical_decoupling"] == {"enable": True, "sequence_type": "XY4"}
    else:
        assert job.program_id == "executor"


@pytest.mark.parametrize("generation", ["executor", "V2"])
@pytest.mark.parametrize("level", [1, 2])
def test_resilience_of_an_estimator(results_of, generation, level):
    def flow(backend, mode):
        from qiskit_ibm_runtime import EstimatorV2
        from qiskit_ibm_runtime.executor_estimator import Estimator

        estimator = (EstimatorV2 if generation == "V2" else Estimator)(mode=mode)
        estimator.options.resilience_level = level
        estimator.options.dynamical_decoupling.enable = True
        return [estimator.run([correlation(backend)], precision=0.05)]

    [found], [job] = results_of(flow)
    assert values_of(found) == pytest.approx(1, abs=0.2)
    if generation == "V2":
        assert job.params["resilience_level"] == level
        assert job.params["options"]["dynamical_decoupling"]["enable"] is True


def rotated():
    """Return a circuit of which fractional gates need less: an interaction by an angle."""
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(2)
    circuit.rx(0.6, [0, 1])
    circuit.rzz(0.8, 0, 1)
    circuit.rx(0.6, [0, 1])
    circuit.measure_all()
    return circuit


def test_fractional_gates(results_of):
    from qiskit.primitives import StatevectorSampler

    gates = []

    def flow(backend, mode):
        from qiskit_ibm_runtime import SamplerV2
        from qiskit_ibm_runtime.executor_sampler import Sampler

        circuit = compiled(backend, rotated())
        gates.append(set(circuit.count_ops()))
        return [kind(mode=mode).run([circuit], shots=4000) for kind in (Sampler, SamplerV2)]

    found, _ = results_of(flow, use_fractional_gates=True)
    assert {"rx", "rzz"} <= gates[0]
    exact = StatevectorSampler(seed=1).run([rotated()], shots=100_000).result()[0].data.meas.get_counts()
    for each in found:
        counts = counts_of(each)
        for bits, count in exact.items():
            assert counts.get(bits, 0) / 4000 == pytest.approx(count / 100_000, abs=0.05)


def test_without_fractional_gates_circuits_use_others(results_of):
    gates = []

    def flow(backend, mode):
        from qiskit_ibm_runtime.executor_sampler import Sampler

        circuit = compiled(backend, rotated())
        gates.append(set(circuit.count_ops()))
        return [Sampler(mode=mode).run([circuit], shots=10)]

    results_of(flow)
    assert not {"rx", "rzz"} & gates[0]


def test_a_calibration(results_of):
    def flow(backend, mode):
        from qiskit_ibm_runtime.executor_sampler import Sampler

        return [Sampler(mode=mode).run([compiled(backend, bell())], shots=10)]

    _, [job] = results_of(flow, calibration_id="{{ 'alter' ~ 'nate' }}")
    assert job.calibration_id == "alternate"


@pytest.mark.parametrize("decorated", [in_jobs, in_session], ids=["jobs", "session"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"calibration_id": "of-last-year"}, "calibration not found: of-last-year"),
        ({"backend": "ibm_brisbane", "use_fractional_gates": True}, "does not support fractional gates"),
    ],
    ids=["calibration", "fractional gates"],
)
def test_what_a_qpu_does_not_have_runs_no_job(qpu, dag, run, output, decorated, arguments, said):
    from airflow_provider_ibm_sessions.emulator.service.settings import Device

    scheduler = qpu.service.scheduler
    scheduler.settings.backends.setdefault("ibm_brisbane", Device(127))
    jobs, sessions = len(scheduler.jobs), len(scheduler.sessions)
    with dag:
        decorated(lambda backend, mode: [], **{"backend": "ibm_fez", "max_ttl": "8h", **arguments})
    assert run(dag).state == "failed"
    assert said in output()
    assert len(scheduler.jobs) == jobs
    assert len(scheduler.sessions) == sessions or decorated is in_session
    assert all(not session.accepts_jobs for session in scheduler.sessions.values())
