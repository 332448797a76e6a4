# SPDX-License-Identifier: Apache-2.0
"""Results of the executor and the noise learner, against what Qiskit's own decoders make of them."""

from __future__ import annotations

import json
import math
import sys

import pytest

from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.results import (
    decode_results,
    raw_to_primitive_result,
    to_plain_result,
)
from testing.result_payloads import EXECUTOR_VERSIONS, assert_as_qiskit, by_qiskit, executed, pairs, strict


@pytest.fixture(autouse=True, scope="module")
def qiskit():
    pytest.importorskip("qiskit_ibm_runtime")


def sampler_data(twirling, meas_type="classified"):
    post = {"version": "v0.1", "twirling": twirling, "meas_type": meas_type, "shots": 40, "options": {"a": 1}}
    return {"post_processor": post}


@pytest.mark.parametrize("version", ["v1.0", "v2.0"])
@pytest.mark.parametrize("twirling", [False, True], ids=["plain", "twirled"])
@pytest.mark.parametrize("widths", [(1,), (5, 3), (127, 2, 9)], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2)], ids=str)
def test_a_sampler_on_the_executor(version, twirling, widths, shape):
    import numpy

    dice = numpy.random.default_rng(7)
    leading = (4, *shape) if twirling else shape
    item = {}
    for index, width in enumerate(widths):
        item[f"r{index}"] = dice.integers(0, 2, (*leading, 10, width)).astype(bool)
        if twirling:
            item[f"measurement_flips.r{index}"] = dice.integers(0, 2, (*leading, 1, width)).astype(bool)
    raw = executed([item], sampler_data(twirling), "sampler_v2", version)
    decoded = decode_results(raw)
    assert decoded.format == "sampler"
    assert decoded.metadata["options"] == {"a": 1}
    pub = by_qiskit(raw)[0]
    assert pub.data.shape == shape
    assert_as_qiskit(raw, pub)


@pytest.mark.parametrize("meas_type", ["kerneled", "avg_kerneled"])
@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_complex_measurements_on_the_executor(meas_type, shape):
    import numpy

    size = (*shape, 4) if meas_type == "avg_kerneled" else (*shape, 10, 4)
    values = numpy.arange(math.prod(size)).reshape(size) * (1 - 0.5j)
    suffix = "_avg_iq" if meas_type == "avg_kerneled" else "_iq"
    decoded = decode_results(executed([{f"c{suffix}": values}], sampler_data(False, meas_type), "sampler_v2"))
    assert decoded.results[0]["data"] == {"c": pairs(values.tolist())}
    assert decoded.results[0]["num_shots"] == (10 if meas_type == "kerneled" else None)
    strict(decoded.to_json())


@pytest.fixture(scope="module")
def estimated(qiskit):
    """The results of an Estimator of Qiskit's that runs on the executor, twirled, as IBM sends them."""
    pytest.importorskip("qiskit_aer")
    from qiskit import QuantumCircuit
    from qiskit.circuit import Parameter
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime.executor_estimator.prepare import prepare
    from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
    from qiskit_ibm_runtime.options_models.estimator import EstimatorOptions
    from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions
    from qiskit_ibm_runtime.quantum_program.converters.converters_2_0 import passthrough_data_to_2_0

    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("x"), 0)
    circuit.cx(0, 1)
    options = EstimatorOptions(default_shots=64)
    options.twirling.enable_gates = options.twirling.enable_measure = True
    program, _ = prepare([(circuit, [["ZZ"], ["XX"]], [[0.1], [0.2], [0.3]])], options)
    result = run_quantum_program(AerSimulator(), program, SimulatorOptions(seed_simulator=1))
    items = [dict(item.items()) for item in result]
    return executed(items, passthrough_data_to_2_0(program.passthrough_data), "estimator_v2")


def test_an_estimator_on_the_executor(estimated):
    decoded = decode_results(estimated)
    assert (decoded.format, decoded.error) == ("estimator", None)
    (pub,) = decoded.results
    data = by_qiskit(estimated)[0].data
    assert data.evs.shape == (2, 3)
    for name in ("evs", "stds", "ensemble_standard_error"):
        assert pub[name] == data[name].tolist()
    assert raw_to_primitive_result(estimated)[0].data.evs.tolist() == pub["evs"]
    strict(decoded.to_json())


def test_primitives_on_the_executor_need_qiskit(monkeypatch):
    import numpy

    raw = executed([{"c": numpy.ones((10, 2), bool)}], sampler_data(False), "sampler_v2")
    monkeypatch.setitem(sys.modules, "qiskit_ibm_runtime.decoders.defaults", None)
    decoded = decode_results(raw)
    assert (decoded.format, decoded.results) == ("raw", raw)
    assert "Qiskit is needed" in decoded.error


@pytest.mark.parametrize(
    "broken",
    [
        {"schema_version": "v99"},
        {"schema_version": None},
        {"passthrough_data": None},
        {"passthrough_data": {"post_processor": {"version": "v99"}}},
        {"passthrough_data": sampler_data(True, "odd")},
        {"data": [{}]},
        {"data": [{"results": {"c": {"data": "", "shape": [1], "dtype": "bool"}}, "metadata": {}}]},
        {"metadata": 7},
    ],
    ids=str,
)
def test_what_qiskit_cannot_decode_stays_raw_and_says_why(broken):
    import numpy

    raw = executed([{"c": numpy.ones((10, 2), bool)}], sampler_data(False), "sampler_v2") | broken
    decoded = decode_results(raw)
    assert (decoded.format, decoded.results) == ("raw", raw)
    assert decoded.error.startswith("Qiskit cannot decode these results")
    with pytest.raises(BadResponseError):
        raw_to_primitive_result(raw)


@pytest.mark.parametrize("version", ["v1.0", "v2.0"])
@pytest.mark.parametrize("role", [None, "of_tomorrow"])
def test_arrays_of_the_executor(version, role):
    import numpy

    values = {
        "meas": numpy.random.default_rng(1).integers(0, 2, (3, 5, 9)).astype(bool),
        "iq": numpy.array([[1 + 2j, complex(0, numpy.inf)]]),
        "angles": numpy.linspace(0, 1, 6).reshape(2, 3),
    }
    raw = executed([values], {"mine": [1, "two"]}, role, version)
    decoded = decode_results(raw)
    assert decoded.format == "executor"
    results = strict(decoded.results)["data"][0]["results"]
    assert results["meas"] == values["meas"].tolist() == by_qiskit(raw)[0]["meas"].tolist()
    assert results["iq"] == [[[1.0, 2.0], [0.0, "Infinity"]]]
    assert results["angles"] == values["angles"].tolist()
    assert decoded.results["passthrough_data"] == {"mine": [1, "two"]}
    with pytest.raises(BadResponseError):
        raw_to_primitive_result(raw)


@pytest.mark.parametrize("version", EXECUTOR_VERSIONS)
@pytest.mark.parametrize("shape", [(7,), (3, 9), (2, 3, 4, 127)], ids=str)
def test_arrays_in_every_version_of_the_schema(version, shape):
    import numpy

    bits = numpy.random.default_rng(3).integers(0, 2, shape).astype(bool)
    raw = executed([{"meas": bits}, {"meas": ~bits}], version=version)
    decoded = decode_results(raw)
    assert (decoded.format, decoded.results["schema_version"]) == ("executor", version)
    arrays = [item["results"]["meas"] for item in decoded.results["data"]]
    own = by_qiskit(raw)
    assert arrays == [item["meas"].tolist() for item in own]
    made = strict(to_plain_result(own))
    assert made["format"] == "executor"
    assert [item["results"]["meas"] for item in made["results"]["data"]] == arrays


@pytest.mark.parametrize(
    "tensor",
    [
        {"data": "AAAA", "shape": [7], "dtype": "f64"},
        {"data": "AAAA", "shape": [3], "dtype": "O"},
        {"data": "AAAA", "shape": [3], "dtype": None},
        {"data": "AAAA", "shape": 3, "dtype": "u8"},
        {"data": "AAAA", "shape": [10**12], "dtype": "bool"},
        {"data": "", "shape": [10**12, 0], "dtype": "u8"},
        {"data": "é", "shape": [3], "dtype": "u8"},
    ],
    ids=str,
)
def test_a_broken_tensor_leaves_the_results_raw(tensor):
    raw = {"schema_version": "v2.0", "data": [{"results": {"c": tensor}, "metadata": {}}]}
    decoded = decode_results(raw)
    assert (decoded.format, decoded.results) == ("raw", raw)
    assert decoded.error


def test_the_noise_learner(qiskit):
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import PauliList
    from qiskit_ibm_runtime import RuntimeEncoder
    from qiskit_ibm_runtime.decoders.noise_learner import NoiseLearnerResultDecoder
    from qiskit_ibm_runtime.results import LayerError, PauliLindbladError

    learned = PauliLindbladError(PauliList(["XX", "ZI"]), [0.1, 0.2])
    layers = [LayerError(QuantumCircuit(2), [3, 4], learned), LayerError(QuantumCircuit(2), [5, 6])]
    text = json.dumps({"data": layers, "metadata": {"backend": "ibm_fez"}}, cls=RuntimeEncoder)
    decoded = decode_results(json.loads(text))
    assert decoded.format == "noise-learner"
    first, second = strict(decoded.results["data"])
    own = NoiseLearnerResultDecoder.decode(text).data[0]
    assert first["error"] == {"generators": own.error.generators.to_labels(), "rates": list(own.error.rates)}
    assert (first["qubits"], second["qubits"], second["error"]) == ([3, 4], [5, 6], None)
    assert first["circuit"]["__type__"] == "QuantumCircuit"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_third_noise_learner(qiskit, version):
    models = pytest.importorskip(f"ibm_quantum_schemas.noise_learner_v3.version_0_{version}.models")
    import numpy
    from ibm_quantum_schemas.common.tensor import F64TensorModel
    from qiskit_ibm_runtime.decoders.noise_learner_v3.decoder import NoiseLearnerV3ResultDecoder

    layer = {
        "generators_sparse": [[("XX", [0, 1])], [("Z", [0]), ("Z", [1])]],
        "num_qubits": 2,
        "rates": F64TensorModel.from_numpy(numpy.array([0.1, 0.2])),
        "rates_std": F64TensorModel.from_numpy(numpy.array([0.01, 0.02])),
        "metadata": {
            "learning_protocol": "trex",
            "post_selection": {"fraction_kept": 1, "success_rates": {}},
        },
    }
    raw = json.loads(models.NoiseLearnerV3ResultsModel(data=[layer]).model_dump_json())
    decoded = decode_results(raw)
    assert decoded.format == "noise-learner"
    (made,) = strict(decoded.results["data"])
    [own] = NoiseLearnerV3ResultDecoder.decode(json.dumps(raw))
    learned = own.to_pauli_lindblad_map().to_sparse_list()
    terms = zip(made["generators_sparse"], made["rates"], strict=True)
    assert [(paulis, list(qubits), rate) for paulis, qubits, rate in learned] == [
        (paulis, qubits, rate) for generator, rate in terms for paulis, qubits in generator
    ]
    assert to_plain_result(NoiseLearnerV3ResultDecoder.decode(json.dumps(raw)))["format"] == "noise-learner"
    assert made["rates"] == [0.1, 0.2]
    assert made["rates_std"] == [0.01, 0.02]
    assert made["generators_sparse"] == [[["XX", [0, 1]]], [["Z", [0]], ["Z", [1]]]]


def test_a_calibration_is_what_qiskit_says(qiskit):
    from qiskit_ibm_runtime.decoders.defaults import DEFAULT_DECODERS

    raw = {
        "schema_version": "v0.1",
        "start": "2026-11-01T10:00:00+00:00",
        "stop": "2026-11-01T11:00:00+00:00",
    }
    decoded = decode_results(raw)
    [decoder] = DEFAULT_DECODERS["calibrate"]
    own = decoder.decode(json.dumps(raw))
    assert decoded.format == "calibrator"
    assert (decoded.results["start"], decoded.results["stop"]) == (
        own.start.isoformat(),
        own.stop.isoformat(),
    )


def test_noise_that_is_learned_on_the_executor(qiskit):
    from qiskit.quantum_info import QubitSparsePauliList
    from qiskit_ibm_runtime.results import NoiseLearnerV3Result, NoiseLearnerV3Results

    from airflow_provider_ibm_sessions.client._results.arrays import MemoryBudget
    from airflow_provider_ibm_sessions.client._results.primitives import plain_noise

    terms = [("XX", [0, 1]), ("Z", [0])]
    paulis = [QubitSparsePauliList.from_sparse_list([term], 2) for term in terms]
    learned = NoiseLearnerV3Results([NoiseLearnerV3Result.from_generators(paulis, [0.1, 0.2])])
    (layer,) = strict(plain_noise(learned, MemoryBudget()))["data"]
    assert layer == {
        "generators_sparse": [[["XX", [0, 1]]], [["Z", [0]]]],
        "num_qubits": 2,
        "rates": [0.1, 0.2],
        "metadata": {},
    }
