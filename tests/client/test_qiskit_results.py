# SPDX-License-Identifier: Apache-2.0
"""Results in Qiskit's encoding, and as Qiskit's own objects; its figures are the measure."""

from __future__ import annotations

import base64
import io
import math
import sys
import tracemalloc
import zipfile
import zlib
from contextlib import suppress

import pytest

from airflow_provider_ibm_sessions.client.errors import BadResponseError, ConfigurationError
from airflow_provider_ibm_sessions.client.results import (
    decode_results,
    raw_to_primitive_result,
    to_plain_result,
)
from testing.result_payloads import (
    GOOD,
    assert_as_qiskit,
    bit_array,
    encoded,
    nested,
    npy,
    one_register,
    only_pub,
    pairs,
    plain,
    strict,
)


@pytest.fixture(scope="module")
def qiskit():
    pytest.importorskip("qiskit_ibm_runtime")
    return pytest.importorskip("qiskit.primitives")


# -- as Qiskit encodes them, against what Qiskit makes of them -----------------------------------------------


@pytest.mark.parametrize("encoding", ["qiskit", "plain"])
def test_all_widths_from_1_to_300_bits(qiskit, encoding):
    for width in range(1, 301):
        pub = qiskit.SamplerPubResult(qiskit.DataBin(c=bit_array(width)), metadata={"width": width})
        assert_as_qiskit(encoded(pub) if encoding == "qiskit" else plain(pub), pub)


@pytest.mark.parametrize("encoding", ["qiskit", "plain"])
@pytest.mark.parametrize("widths", [(1, 2), (8, 3), (127, 5), (3, 16, 1), (64, 65, 66)], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 4)], ids=str)
def test_several_registers_and_sweeps(qiskit, encoding, widths, shape):
    registers = {f"r{index}": bit_array(width, shape=shape) for index, width in enumerate(widths)}
    pub = qiskit.SamplerPubResult(qiskit.DataBin(**registers, shape=shape))
    assert_as_qiskit(encoded(pub) if encoding == "qiskit" else plain(pub), pub)


def test_a_register_without_bits(qiskit):
    import numpy

    nothing = qiskit.BitArray(numpy.zeros((20, 0), numpy.uint8), num_bits=0)
    for registers in ({"a": nothing}, {"a": nothing, "b": bit_array(3)}):
        pub = qiskit.SamplerPubResult(qiskit.DataBin(**registers))
        assert_as_qiskit(encoded(pub), pub)


def test_bits_beyond_the_width_are_ignored_as_qiskit_does(qiskit):
    import numpy

    stray = numpy.arange(256, dtype=numpy.uint8).reshape(128, 2)
    pub = qiskit.SamplerPubResult(qiskit.DataBin(c=qiskit.BitArray(stray, num_bits=11)))
    assert only_pub(encoded(pub))["counts"]["c"] == pub.data.c.get_counts()


def test_an_array_in_fortrans_order(qiskit):
    import numpy

    values = numpy.arange(48, dtype=numpy.uint8).reshape(2, 3, 4, 2)
    bits = qiskit.BitArray(numpy.asfortranarray(values), num_bits=16)
    pub = qiskit.SamplerPubResult(qiskit.DataBin(c=bits, shape=(2, 3)))
    assert_as_qiskit(encoded(pub), pub)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("kind", ["complex128", "complex64"])
@pytest.mark.parametrize("averaged", [False, True], ids=["kerneled", "averaged"])
def test_complex_measurements(qiskit, shape, kind, averaged):
    import numpy

    size = (*shape, 4) if averaged else (*shape, 10, 4)
    values = (numpy.arange(math.prod(size)).reshape(size) * (0.5 + 0.25j)).astype(kind)
    pub = qiskit.SamplerPubResult(qiskit.DataBin(meas=values, shape=shape), metadata={"a": 1})
    decoded = decode_results(encoded(pub))
    assert decoded.format == "sampler"
    assert strict(decoded.results) == [
        {
            "data": {"meas": pairs(values.tolist())},
            "num_shots": None if averaged else 10,
            "metadata": {"a": 1},
        }
    ]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 1, 4)], ids=str)
@pytest.mark.parametrize("kind", ["float64", "float32", ">f8", "int64"])
def test_expectation_values_of_qiskit(qiskit, shape, kind):
    import numpy
    from qiskit_ibm_runtime.results import EstimatorPubResult

    values = numpy.linspace(-1, 1, math.prod(shape)).reshape(shape).astype(kind)
    names = ("evs", "stds", "ensemble_standard_error")
    data = qiskit.DataBin(**dict.fromkeys(names, values), shape=shape)
    for pub_type in (qiskit.PubResult, EstimatorPubResult):
        decoded = decode_results(encoded(pub_type(data, metadata={"shots": 5}), version=2))
        assert (decoded.format, decoded.metadata) == ("estimator", {"version": 2})
        assert decoded.results == [dict.fromkeys(names, values.tolist()) | {"metadata": {"shots": 5}}]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 1, 4)], ids=str)
@pytest.mark.parametrize("extra", [(), ("ensemble_standard_error",)], ids=["two", "three"])
def test_expectation_values_in_plain_json(qiskit, shape, extra):
    """As IBM's REST form has them; Qiskit's object made of them has the same ``evs``."""
    import numpy

    values = numpy.linspace(-1, 1, math.prod(shape)).reshape(shape)
    data = {name: (values / scale).tolist() for scale, name in enumerate(("evs", "stds", *extra), 1)}
    raw = {"results": [{"data": data, "metadata": {"shots": 5}}], "metadata": {"version": 2}}
    decoded = decode_results(raw)
    assert (decoded.format, decoded.metadata) == ("estimator", {"version": 2})
    assert decoded.results == [data | {"metadata": {"shots": 5}}]
    made = raw_to_primitive_result(raw)[0].data
    for name, value in data.items():
        assert made[name].tolist() == decoded.results[0][name] == value


# -- Qiskit's own objects, as a function returns them --------------------------------------------------------


@pytest.mark.parametrize("widths", [(1,), (5, 3), (127, 2, 9)], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4)], ids=str)
def test_a_result_of_qiskits_is_as_plain_as_what_ibm_sends(qiskit, widths, shape):
    registers = {f"r{index}": bit_array(width, shape=shape) for index, width in enumerate(widths)}
    pub = qiskit.SamplerPubResult(qiskit.DataBin(**registers, shape=shape), metadata={"a": 1 + 2j})
    made = to_plain_result(qiskit.PrimitiveResult([pub], metadata={"version": 2}))
    assert made == decode_results(encoded(pub, version=2)).to_json()
    (report,) = made["results"]
    assert to_plain_result(pub) == report
    assert to_plain_result(pub.data) == {name: value for name, value in report.items() if name != "metadata"}
    assert {name: to_plain_result(bits) for name, bits in registers.items()} == report["counts"]
    strict(made)


def test_estimates_of_qiskits_are_plain(qiskit):
    import numpy

    data = qiskit.DataBin(evs=numpy.array([0.5, numpy.nan]), stds=numpy.array([1, 2]), shape=(2,))
    pub = qiskit.PubResult(data, metadata={"shots": 7})
    plain_data = {"evs": [0.5, "NaN"], "stds": [1, 2]}
    assert to_plain_result(data) == plain_data
    assert to_plain_result(pub) == plain_data | {"metadata": {"shots": 7}}
    assert to_plain_result(qiskit.PrimitiveResult([pub]))["format"] == "estimator"


def test_arrays_and_numbers_are_plain(qiskit):
    import numpy

    for value, plain_value in (
        (numpy.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (numpy.array([True, False]), [True, False]),
        (numpy.array(["a", "bc"]), ["a", "bc"]),
        (numpy.array(1.5), 1.5),
        (numpy.float32(0.5), 0.5),
        (numpy.complex128(1 - 1j), [1.0, -1.0]),
        (2j, [0.0, 2.0]),
        ([1, 2], [1, 2]),
        (None, None),
    ):
        assert strict(to_plain_result(value)) == plain_value
    with pytest.raises(BadResponseError, match="unknown type 'O"):
        to_plain_result(numpy.array([object()]))


def test_expectation_values_that_are_no_numbers(qiskit):
    import numpy

    data = qiskit.DataBin(evs=numpy.array([numpy.nan, -numpy.inf, 1.5]), stds=0.25, shape=(3,))
    pub = only_pub(encoded(qiskit.PubResult(data)))
    assert pub == {"evs": ["NaN", "-Infinity", 1.5], "stds": 0.25, "metadata": {}}


def test_metadata_of_qiskit_are_plain(qiskit):
    from datetime import UTC, datetime

    import numpy
    from qiskit_ibm_runtime.execution_span import DoubleSliceSpan, ExecutionSpans

    start, stop = datetime(2026, 11, 1, 10, tzinfo=UTC), datetime(2026, 11, 1, 11, tzinfo=UTC)
    spans = ExecutionSpans([DoubleSliceSpan(start, stop, {0: ((20,), slice(0, 1), slice(0, 20))})])
    metadata = {
        "resilience": {"zne": {"extrapolator": numpy.array(["linear", "exponential"])}},
        "factors": numpy.array([[1, 3], [5, 7]]),
        "at": start,
        "phase": 1 - 2j,
        "names": {"one"},
    }
    pub = qiskit.PubResult(qiskit.DataBin(evs=numpy.float64(0.5)), metadata=metadata)
    decoded = decode_results(encoded(pub, execution={"execution_spans": spans}))
    assert strict(decoded.results[0]["metadata"]) == {
        "resilience": {"zne": {"extrapolator": ["linear", "exponential"]}},
        "factors": [[1, 3], [5, 7]],
        "at": "2026-11-01T10:00:00+00:00",
        "phase": [1.0, -2.0],
        "names": ["one"],
    }
    (span,) = strict(decoded.metadata)["execution"]["execution_spans"]
    assert (span["type"], span["start"]) == ("DoubleSliceSpan", "2026-11-01T10:00:00+00:00")
    assert span["data_slices"] == {"0": [[20], 0, 1, 0, 20]}


def test_results_have_the_same_shape_without_qiskit(qiskit, monkeypatch):
    pub = qiskit.SamplerPubResult(qiskit.DataBin(a=bit_array(5), b=bit_array(9)))
    raw = encoded(pub)
    with_qiskit = decode_results(raw, detail="memory")
    for name in ("qiskit", "qiskit.primitives", "qiskit_ibm_runtime", "numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    assert decode_results(raw, detail="memory") == with_qiskit
    with pytest.raises(ConfigurationError, match="pip install"):
        raw_to_primitive_result(raw)


# -- Qiskit's encoding, broken -------------------------------------------------------------------------------


def test_the_broken_ones_would_be_read_if_they_were_not():
    assert only_pub(one_register(npy(b"\x01\x02\x02\x07")))["counts"]["c"] == {"001": 1, "010": 2, "111": 1}


@pytest.mark.parametrize(
    "array",
    [
        npy(b"\x01\x02"),
        npy(b"\x01\x02\x03\x04\x05"),
        npy(b"\x01\x02\x03\x04", shape="(4,)"),
        npy(b"\x01\x02\x03\x04", shape="(2, 2)"),
        npy(b"\x01\x02\x03\x04", shape="(-4, -1)"),
        npy(b"\x01\x02\x03\x04", shape="(4L, 1)"),
        npy(b"", shape="(100000000000000, 1)"),
        npy(b"", shape="(" + "1, " * 33 + ")"),
        npy(b"\x00" * 32, kind="<f8"),
        npy(b"\x00" * 32, kind="|O8"),
        npy(b"\x00" * 32, kind="<M8"),
        npy(b"\x01\x02\x03\x04", magic=b"\x93NUMPY\x09\x00"),
        npy(b"\x01\x02\x03\x04")[:-8],
        base64.b64encode(b"plain").decode(),
        base64.b64encode(zlib.compress(b"")).decode(),
        "no base64 !",
        "é",
        "",
        7,
        None,
        [1, 2],
        {},
    ],
    ids=lambda array: str(array)[:40],
)
def test_a_broken_array_makes_an_error(array):
    raw = one_register(array)
    decoded = decode_results(raw)
    assert decoded.format == "sampler"
    assert decoded.results == [{"error": decoded.error.removeprefix("pub 0: "), "raw": pub_of(raw)}]
    assert "register c" in decoded.error
    with suppress(BadResponseError):  # Qiskit reads one or two of these
        raw_to_primitive_result(raw)


def pub_of(raw):
    return raw["__value__"]["pub_results"][0]


@pytest.mark.parametrize("num_bits", [10**9, True, "3", -3, None, 9], ids=str)
def test_a_width_that_does_not_fit_makes_an_error(num_bits):
    assert "error" in only_pub(one_register(npy(b"\x01\x02\x02\x07"), num_bits))


def bomb(size):
    """A NumPy file of zeros that is compressed to a thousandth."""
    return npy(bytes(size), shape=f"({size}, 1)")


def test_a_zlib_bomb_is_not_decompressed(qiskit):
    """1.4 MB took 3 GB."""
    honest, lying = npy(b"", shape="(3000000000, 1)"), npy(bytes(30_000_000))
    for array in (honest, lying):
        raw = one_register(array)
        tracemalloc.start()
        try:
            assert "error" in only_pub(raw)
            assert tracemalloc.get_traced_memory()[1] < 5e6
        finally:
            tracemalloc.stop()


SPARSE = {
    "empty in Fortran's order": ("(1000000000, 0, 1, 1)", True, b""),
    "long in Fortran's order": ("(40000000, 1)", True, bytes(40_000_000)),
    "many dimensions": (f"(1000000, {'1, ' * 29}1)", False, bytes(1_000_000)),
}


@pytest.mark.parametrize("kind", SPARSE)
def test_an_array_that_costs_more_than_its_bytes_is_not_decoded(kind):
    """Each of a few KB took over 8 GB: of indices, and of lists in lists."""
    shape, fortran, data = SPARSE[kind]
    array = npy(data, shape=shape, fortran=fortran)
    value = {"__type__": "ndarray", "__value__": array}
    pub = one_register(array, 8)
    kerneled = one_register(array, 8)
    pub_of(kerneled)["__value__"]["data"]["__value__"]["fields"] = {"c": value}
    for raw in (pub, kerneled) if fortran else (kerneled,):
        tracemalloc.start()
        try:
            assert "too large" in only_pub(raw)["error"]
            assert tracemalloc.get_traced_memory()[1] < 500e6
        finally:
            tracemalloc.stop()


def deflated(data, window):
    compressor = zlib.compressobj(9, zlib.DEFLATED, window)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize("prefix", ["", "\n", "!", " \u0000"], ids=repr)
@pytest.mark.parametrize("window", [9, 12, 15])
def test_a_bomb_is_seen_however_it_is_written(prefix, window):
    """Libraries skip what is no base64, and read streams of every window size."""
    from airflow_provider_ibm_sessions.client._results.arrays import check_expansion

    text = prefix + base64.b64encode(deflated(bytes(2_000_000), window)).decode()
    check_expansion({"a": [text]}, most=3_000_000)
    with pytest.raises(BadResponseError, match="too large"):
        check_expansion({"a": [text]}, most=1_000_000)


def test_a_bomb_in_a_sparse_matrix_is_seen():
    from airflow_provider_ibm_sessions.client._results.arrays import check_expansion

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", bytes(2_000_000))
    matrix = {"__type__": "spmatrix", "__value__": base64.b64encode(file.getvalue()).decode()}
    with pytest.raises(BadResponseError, match="too large"):
        check_expansion(matrix, most=1_000_000)


@pytest.mark.parametrize("kind", ["QuantumCircuit", "Instruction"])
def test_qiskit_makes_no_circuit_of_results(qiskit, kind):
    """A circuit of 120 bytes that claims ten million qubits took 3 GB; no result of a primitive has one."""
    raw = one_register(bomb(4), 8)
    pub_of(raw)["__value__"]["metadata"] = {"x": [{"__type__": kind, "__value__": "eJw="}]}
    with pytest.raises(BadResponseError, match="hold a circuit"):
        raw_to_primitive_result(raw)
    assert only_pub(raw)["num_shots"] == 4


def test_qiskit_is_given_no_zlib_bomb(qiskit, monkeypatch):
    from airflow_provider_ibm_sessions.client._results import primitives
    from airflow_provider_ibm_sessions.client._results.arrays import check_expansion

    monkeypatch.setattr(primitives, "check_expansion", lambda raw: check_expansion(raw, most=1_000_000))
    assert raw_to_primitive_result(one_register(bomb(900_000), 8))[0].data.c.num_shots == 900_000
    for raw in (one_register(bomb(1_100_000), 8), {"semantic_role": "sampler_v2", "data": [bomb(1_100_000)]}):
        with pytest.raises(BadResponseError, match="too large"):
            raw_to_primitive_result(raw)


def test_more_than_the_memory_allowed_makes_an_error(monkeypatch):
    from airflow_provider_ibm_sessions.client._results.arrays import MemoryBudget

    monkeypatch.setattr(MemoryBudget.__init__, "__defaults__", (10_000,))
    small, large = ({"samples": [hex(number) for number in range(size)]} for size in (10, 1_000))
    decoded = decode_results({"results": [{"data": {"c": small}}, {"data": {"c": large}}]})
    assert "counts" in decoded.results[0]
    assert "too large" in decoded.results[1]["error"]
    assert decode_results({"results": [{"data": {"c": small}}, GOOD]}).error is None


# -- Qiskit's own object -------------------------------------------------------------------------------------


def test_plain_expectation_values_as_a_primitive_result(qiskit):
    data = {"evs": [0.5, -1], "stds": [0.1, 0.2]}
    result = raw_to_primitive_result(
        {"results": [{"data": data, "metadata": {"shots": 7}}], "metadata": {"v": 2}}
    )
    assert result[0].data.evs.tolist() == [0.5, -1.0]
    assert (result[0].data.shape, result[0].metadata, result.metadata) == ((2,), {"shots": 7}, {"v": 2})


@pytest.mark.parametrize(
    "raw",
    [
        None,
        7,
        [],
        {},
        {"results": [7]},
        {"results": [{"data": {"c": {"samples": ["zz"]}}}]},
        {"results": [{"data": {"items": {"samples": ["0x1"]}}}]},
        {"__type__": "BitArray", "__value__": 7},
        nested(500),
    ],
    ids=lambda raw: str(raw)[:60],
)
def test_what_is_no_primitive_result_is_refused(qiskit, raw):
    with pytest.raises(BadResponseError):
        raw_to_primitive_result(raw)
