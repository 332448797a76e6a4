# SPDX-License-Identifier: Apache-2.0
"""Results in strict JSON, whichever of IBM's formats they come in; Qiskit's own figures are the measure."""

from __future__ import annotations

import base64
import copy
import json
import math
import sys
import tracemalloc
import zlib
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ibm_sessions.client import decode_results
from airflow_provider_ibm_sessions.client.errors import BadResponseError, ConfigurationError, IBMQuantumError
from airflow_provider_ibm_sessions.client.results import raw_to_primitive_result, to_strict_json
from testing.fake_ibm import Fault


def sampled(**registers):
    """The results of one sampler pub."""
    return {"results": [{"data": registers, "metadata": {}}], "metadata": {"version": 2}}


def only_pub(raw, **options):
    decoded = decode_results(raw, **options)
    (pub,) = decoded.results
    return pub


def counts(**registers):
    return only_pub(sampled(**registers))["counts"]


def strict(value):
    """The value after a journey as strict JSON."""
    return json.loads(json.dumps(value, allow_nan=False))


# -- samplers ------------------------------------------------------------------------------------------------


def test_a_pub_of_a_sampler_is_whole():
    raw = sampled(a={"samples": ["0x1", "0x0", "0x1"], "num_bits": 1}, b={"samples": ["0x3", "0x0", "0x3"]})
    raw["results"][0]["metadata"] = {"circuit_metadata": {"name": "bell"}}
    decoded = decode_results(raw)
    assert decoded.to_json() == {
        "format": "sampler",
        "results": [
            {
                "counts": {"a": {"1": 2, "0": 1}, "b": {"11": 2, "00": 1}},
                "joint_counts": {"111": 2, "000": 1},
                "num_shots": 3,
                "metadata": {"circuit_metadata": {"name": "bell"}},
            }
        ],
        "metadata": {"version": 2},
    }


def test_the_first_register_stands_on_the_right_of_joint_counts():
    raw = sampled(first={"samples": ["0x1"], "num_bits": 1}, last={"samples": ["0x0"], "num_bits": 2})
    assert only_pub(raw)["joint_counts"] == {"001": 1}


def test_one_register_has_joint_counts_too():
    pub = only_pub(sampled(c={"samples": ["0x3", "0x0", "0x3"], "num_bits": 2}))
    assert pub["joint_counts"] == pub["counts"]["c"] == {"00": 1, "11": 2}


def test_memory_keeps_the_order_of_the_shots():
    raw = sampled(c={"samples": [["0x2", "0x0"], ["0x1", "0x1"]], "num_bits": 2})
    pub = only_pub(raw, detail="memory")
    assert pub["memory"] == {"c": [["10", "00"], ["01", "01"]]}
    assert pub["counts"] == {"c": [{"10": 1, "00": 1}, {"01": 2}]}
    assert "memory" not in only_pub(raw)


def test_each_pub_is_decoded_by_itself():
    one, other = sampled(c={"samples": ["0x1"]}), sampled(d={"samples": ["0x0"]})
    both = {"results": one["results"] + other["results"]}
    assert [pub["counts"] for pub in decode_results(both).results] == [{"c": {"1": 1}}, {"d": {"0": 1}}]
    assert decode_results({"results": []}).results == []


def test_leading_zeros_are_kept():
    assert counts(c={"samples": ["0x1"], "num_bits": 5}) == {"c": {"00001": 1}}


@pytest.mark.parametrize("told", [{}, {"num_bits": None}], ids=str)
def test_a_missing_width_is_that_of_the_largest_sample(told):
    assert counts(c={"samples": ["0x1", "0x4", "0x0"], **told}) == {"c": {"001": 1, "100": 1, "000": 1}}


def test_a_register_of_zeros_has_a_bit():
    assert counts(c={"samples": ["0x0", "0x0"]}) == {"c": {"0": 2}}
    assert counts(c={"samples": []}) == {"c": {}}


@pytest.mark.parametrize("bits", [63, 64, 65, 127, 156, 1000])
def test_registers_may_be_wide(bits):
    samples = [hex(1), hex(1 << (bits - 1)), hex((1 << bits) - 1)]
    expected = {"0" * (bits - 1) + "1": 1, "1" + "0" * (bits - 1): 1, "1" * bits: 1}
    assert counts(c={"samples": samples, "num_bits": bits}) == {"c": expected}
    assert counts(c={"samples": samples}) == {"c": expected}


@pytest.mark.parametrize("told", [{}, {"num_bits": 2}], ids=["inferred", "told"])
def test_nested_samples_give_nested_counts_of_one_width(told):
    samples = [[["0x0", "0x1"], ["0x1", "0x1"]], [["0x2", "0x0"], ["0x0", "0x0"]]]
    expected = [[{"00": 1, "01": 1}, {"01": 2}], [{"10": 1, "00": 1}, {"00": 2}]]
    assert counts(c={"samples": samples, **told}) == {"c": expected}


def test_what_is_no_register_is_kept_beside_them():
    pub = only_pub(sampled(c={"samples": ["0x1"]}, metadata=1, odd={"a": [math.inf]}))
    assert pub["data"] == {"metadata": 1, "odd": {"a": ["Infinity"]}}
    assert pub["metadata"] == {}


VALUES = st.integers(1, 200).flatmap(
    lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1), max_size=60))
)


@given(VALUES, st.booleans())
def test_counts_add_up_to_the_shots(values, told):
    bits, numbers = values
    register = {"samples": [hex(number) for number in numbers]} | ({"num_bits": bits} if told else {})
    width = bits if told else max([number.bit_length() for number in numbers] + [1])
    pub = only_pub(sampled(c=register))
    assert sum(pub["counts"]["c"].values()) == pub["num_shots"] == len(numbers)
    assert pub["counts"]["c"] == Counter(bin(number)[2:].rjust(width, "0") for number in numbers)


@pytest.mark.parametrize("samples", [["0x3", "0x03"], ["0xA", "0xa"], ["0x3", "3"]], ids=str)
def test_two_spellings_of_a_sample_are_one(samples):
    assert list(counts(c={"samples": samples, "num_bits": 4})["c"].values()) == [2]


# -- estimators and others -----------------------------------------------------------------------------------


def test_expectation_values_stay_as_they_are():
    data = {"evs": [[0.5, -1], [0, 1]], "stds": [[0.1, 0.2], [0, 0]], "ensemble_standard_error": 0.1}
    decoded = decode_results({"results": [{"data": data, "metadata": {"shots": 7}}]})
    assert decoded.format == "estimator"
    assert decoded.results == [{**data, "metadata": {"shots": 7}}]


@pytest.mark.parametrize(
    "results",
    [
        {"schema_version": "v0.1", "data": [{"value": 0.5}]},
        {"results": [{"data": [1, 2]}]},
        {"results": [{"data": {}}, 7]},
        {"results": {"c": 1}},
        {"results": None},
        {"__type__": "Unheard", "__value__": {"a": 1}},
        {"__type__": "PrimitiveResult", "__value__": 7},
        {"__type__": "PrimitiveResult", "__value__": {"pub_results": [{"__type__": "PubResult"}]}},
        {"__type__": 7, "__value__": 7},
        {},
        [{"data": {}}],
        "text",
        7,
        None,
    ],
    ids=str,
)
def test_other_results_stay_as_they_came_and_say_why(results):
    before = json.dumps(results)
    decoded = decode_results(results)
    assert (decoded.format, decoded.results) == ("raw", results)
    assert decoded.error
    assert json.dumps(results) == before


def test_raw_is_the_body_unchanged():
    raw = sampled(c={"samples": ["0x3"], "num_bits": True}) | {"more": [1.5, None]}
    decoded = decode_results(raw, detail="raw")
    assert (decoded.format, decoded.results, decoded.error) == ("raw", raw, None)


@pytest.mark.parametrize("detail", ["Counts", "", None, 7, ["counts"]], ids=str)
def test_an_unknown_detail_is_refused_with_those_allowed(detail):
    with pytest.raises(ConfigurationError, match="counts, memory, raw"):
        decode_results({}, detail=detail)


def test_decoding_changes_nothing_in_its_input():
    results = sampled(c={"samples": ["0x3", "0x0"], "num_bits": 2}, d=[math.inf])
    before = json.dumps(results)
    for detail in ("counts", "memory", "raw"):
        decode_results(results, detail=detail)
    assert json.dumps(results) == before


def test_a_calibration():
    raw = {"schema_version": "v0.1", "start": "2026-11-01T10:00:00Z", "stop": "2026-11-01T10:05:00Z"}
    decoded = decode_results(raw)
    assert (decoded.format, decoded.results) == ("calibrator", raw)


# -- what cannot be decoded ----------------------------------------------------------------------------------

GOOD = {"data": {"c": {"samples": ["0x1"], "num_bits": 1}}, "metadata": {}}


@pytest.mark.parametrize(
    "register",
    [
        {"samples": ["0x3", "zz"]},
        {"samples": ["-0x1"]},
        {"samples": [3]},
        {"samples": [None]},
        {"samples": ["0x1", ["0x1"]]},
        {"samples": [["0x1"], "0x1"]},
        {"samples": [["0x1"], ["0x1", "0x1"]]},
        {"samples": [{}]},
        {"samples": ["0x7"], "num_bits": 2},
        {"samples": ["0x1"], "num_bits": 10**9},
        {"samples": ["0x1"], "num_bits": True},
        {"samples": ["0x1"], "num_bits": "3"},
        {"samples": ["0x1"], "num_bits": -1},
        {"samples": ["0x" + "f" * 100_000, "0x0"]},
    ],
    ids=lambda register: str(register)[:60],
)
def test_a_paid_result_that_cannot_be_delivered_takes_no_other_with_it(register):
    broken = {"data": {"c": register}, "metadata": {"a": 1}}
    decoded = decode_results({"results": [GOOD, broken, GOOD]})
    assert decoded.format == "sampler"
    assert decoded.results[0]["counts"] == decoded.results[2]["counts"] == {"c": {"1": 1}}
    assert decoded.results[1]["raw"] == broken
    assert "register c" in decoded.results[1]["error"]
    assert decoded.error.startswith("pub 1: register c")
    strict(decoded.to_json())


def test_registers_that_differ_in_shots_make_an_error():
    raw = sampled(a={"samples": ["0x1"]}, b={"samples": ["0x1", "0x0"]})
    assert "differ in their number of shots" in only_pub(raw)["error"]


def test_many_errors_are_told_in_a_line():
    error = decode_results({"results": [GOOD] + [{"data": {"c": {"samples": ["zz"]}}}] * 50}).error
    assert error.endswith("and 47 more")
    assert len(error) < 400


def test_a_response_that_costs_more_than_it_is_worth():
    """A width of 10**9 took 2.9 GB and 9 s; a long sample among many made each as long."""
    tracemalloc.start()
    try:
        only_pub(sampled(c={"samples": ["0x0"], "num_bits": 10**9}))
        only_pub(sampled(c={"samples": ["0x" + "f" * 50_000, *(hex(number) for number in range(5_000))]}))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def nested(levels, inner=1):
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize("levels", [150, 500, 900])
def test_deep_nesting_is_given_as_a_string(levels):
    raw = {"results": [{"data": {"c": {"samples": nested(levels)}}}], "more": [math.nan]}
    for detail in ("counts", "memory", "raw"):
        decoded = decode_results(raw, detail=detail)
        assert decoded.format == "raw"
        assert "nested" in decoded.error
        assert json.loads(decoded.results) == {**raw, "more": ["NaN"]}


def test_nesting_beyond_any_parser_is_no_recursion_error():
    decoded = decode_results(nested(100_000))
    assert (decoded.format, decoded.results) == ("raw", None)
    assert "nested too deep" in decoded.error


ODD = [
    *(None, True, -1, 10**9, 10**400, 1.5, math.nan, "", "zz", "0x1", "eJ", [], {}, [[]], [{}]),
    *({"__type__": "ndarray"}, {"__type__": "ndarray", "__value__": "x"}, {"__type__": None, "__value__": 1}),
    *({"__type__": "complex", "__value__": [1, math.inf]}, {"data": "", "shape": [10**9], "dtype": "bool"}),
    *(["0x1", ["0x2"]], {"samples": []}, {"samples": [[[]]]}, {"samples": {}}),
]


def spots(value, path=()):
    """The paths of all values inside of another."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from spots(item, (*path, key))


@given(st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None)
def test_whatever_stands_in_a_response_the_error_is_typed(dice):
    raw = copy.deepcopy(
        dice.choice(
            [
                sampled(a={"samples": ["0x1", "0x0"], "num_bits": 1}, b={"samples": ["0x3", "0x1"]}),
                {"results": [{"data": {"evs": [1.0], "stds": [math.inf]}, "metadata": {"x": 1}}, GOOD]},
                one_register(npy(b"\x01\x02\x02\x07")),
                {
                    "schema_version": "v2.0",
                    "data": [
                        {"results": {"c": {"data": "AAAA", "shape": [3], "dtype": "u8"}}, "metadata": {}}
                    ],
                    "metadata": {"chunk_timing": []},
                    "semantic_role": None,
                },
                {"data": [typed("_json", {"error": typed("settings", {"data": ["XX"]})})], "metadata": {}},
            ]
        )
    )
    for _ in range(dice.randint(1, 3)):
        if not (paths := list(spots(raw))):
            break
        *way, last = dice.choice(paths)
        container = raw
        for key in way:
            container = container[key]
        if isinstance(container, dict) and dice.random() < 0.2:
            del container[last]
        else:
            container[last] = copy.deepcopy(dice.choice(ODD))
    for detail in ("counts", "memory", "raw"):
        strict(decode_results(raw, detail=detail).to_json())
    with suppress(IBMQuantumError):
        raw_to_primitive_result(raw)


# -- over HTTP -----------------------------------------------------------------------------------------------


def finished(ibm, api, program_id, pubs, **params):
    params = {"pubs": pubs, **params}
    name = api.submit_job(program_id, backend="ibm_fez", params=params).id
    ibm.clock.advance(10)
    return decode_results(api.job_results(name)).results


CIRCUIT = "OPENQASM 3.0; bit[127] wide; bit[3] c;"


def test_a_sampler_over_http(ibm, api):
    first, second = finished(ibm, api, "sampler", [[CIRCUIT, None, 50], CIRCUIT], shots=20)
    for pub, shots in ((first, 50), (second, 20)):
        for register, bits in (("wide", 127), ("c", 3)):
            assert sum(pub["counts"][register].values()) == pub["num_shots"] == shots
            assert {len(key) for key in pub["counts"][register]} == {bits}


def test_a_sampler_in_the_encoding_of_qiskit_over_http(ibm, api):
    (pub,) = finished(ibm, api, "sampler", [[CIRCUIT, None, 50]], support_qiskit=True)
    for register, bits in (("wide", 127), ("c", 3)):
        assert sum(pub["counts"][register].values()) == 50
        assert {len(key) for key in pub["counts"][register]} == {bits}
    assert strict(pub) == pub


def test_an_estimator_over_http(ibm, api):
    (pub,) = finished(ibm, api, "estimator", [[CIRCUIT, ["ZZ", "XX"]]])
    assert len(pub["evs"]) == len(pub["stds"]) == 2


def test_infinity_and_nan_over_http(ibm, api):
    """IBM writes them as Python does, which is no JSON."""
    body = {"evs": [math.inf, -math.inf, 1.5], "stds": [math.nan, 0, 1]}
    ibm.script(Fault("GET", "/v1/jobs/*/results", json={"results": [{"data": body}]}))
    (pub,) = strict(decode_results(api.job_results("x")).results)
    assert pub == {"evs": ["Infinity", "-Infinity", 1.5], "stds": ["NaN", 0, 1], "metadata": {}}
    assert [float(value) for value in pub["evs"]] == body["evs"]


def test_many_shots_over_http(ibm, api):
    samples = ["0x3", "0x0"] * 100_000
    ibm.script(Fault("GET", "/v1/jobs/*/results", json=sampled(c={"samples": samples, "num_bits": 2})))
    assert only_pub(api.job_results("x"))["counts"] == {"c": {"00": 100_000, "11": 100_000}}


# -- strict JSON ---------------------------------------------------------------------------------------------


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_plain_values_are_strict_json_and_nothing_else_changes(value):
    made = to_strict_json(value)
    strict(made)
    if "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value):
        assert made == value
    strict(decode_results(value).to_json())


# -- as Qiskit encodes them, against what Qiskit makes of them -----------------------------------------------


@pytest.fixture(scope="module")
def qiskit():
    pytest.importorskip("qiskit_ibm_runtime")
    return pytest.importorskip("qiskit.primitives")


@pytest.fixture(scope="module")
def encoded(qiskit):
    """What IBM sends for a job whose circuits Qiskit has encoded."""
    from qiskit_ibm_runtime import RuntimeEncoder

    def encode(*pubs, **metadata):
        result = qiskit.PrimitiveResult(list(pubs), metadata=metadata)
        return json.loads(json.dumps(result, cls=RuntimeEncoder))

    return encode


def bit_array(bits, shots=20, shape=()):
    """Random bits of a register, the same ones in each run."""
    import numpy
    from qiskit.primitives import BitArray

    dice = numpy.random.default_rng(bits)
    values = dice.integers(0, 2, size=(*shape, shots, bits), dtype=numpy.uint8)
    values[..., : shots // 2, :] = values[..., :1, :]  # some outcomes come more than once
    return BitArray.from_bool_array(values.astype(bool))


def plain(*pubs):
    """The same pubs in IBM's plain JSON."""

    def samples(bits, index=()):
        if len(index) < bits.ndim:
            return [samples(bits, (*index, place)) for place in range(bits.shape[len(index)])]
        return [hex(int(string, 2)) for string in bits[index].get_bitstrings()]

    def one(pub):
        data = {
            name: {"samples": samples(bits), "num_bits": bits.num_bits} for name, bits in pub.data.items()
        }
        return {"data": data, "metadata": pub.metadata}

    return {"results": [one(pub) for pub in pubs], "metadata": {}}


def nested_by_qiskit(bits, of, index=()):
    """What Qiskit says of each point of a sweep, nested as the sweep is."""
    if len(index) < bits.ndim:
        return [nested_by_qiskit(bits, of, (*index, place)) for place in range(bits.shape[len(index)])]
    return of(bits, index)


def assert_as_qiskit(raw, pub):
    """Everything in the report equals what Qiskit says of the same pub."""
    from qiskit.primitives import BitArray

    report = only_pub(raw, detail="memory")
    registers = dict(pub.data.items())
    assert report["counts"] == {
        name: nested_by_qiskit(bits, BitArray.get_counts) for name, bits in registers.items()
    }
    assert report["memory"] == {
        name: nested_by_qiskit(bits, BitArray.get_bitstrings) for name, bits in registers.items()
    }
    assert report["joint_counts"] == nested_by_qiskit(pub.join_data(), BitArray.get_counts)
    assert report["num_shots"] == next(iter(registers.values())).num_shots
    assert report["metadata"] == pub.metadata
    assert strict(report) == report
    assert raw_to_primitive_result(raw)[0].data == pub.data or [
        made == bits
        for made, bits in zip(raw_to_primitive_result(raw)[0].data.values(), registers.values(), strict=True)
    ] == [True] * len(registers)


@pytest.mark.parametrize("encoding", ["qiskit", "plain"])
def test_all_widths_from_1_to_300_bits(qiskit, encoded, encoding):
    for width in range(1, 301):
        pub = qiskit.SamplerPubResult(qiskit.DataBin(c=bit_array(width)), metadata={"width": width})
        assert_as_qiskit(encoded(pub) if encoding == "qiskit" else plain(pub), pub)


@pytest.mark.parametrize("encoding", ["qiskit", "plain"])
@pytest.mark.parametrize("widths", [(1, 2), (8, 3), (127, 5), (3, 16, 1), (64, 65, 66)], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 4)], ids=str)
def test_several_registers_and_sweeps(qiskit, encoded, encoding, widths, shape):
    registers = {f"r{index}": bit_array(width, shape=shape) for index, width in enumerate(widths)}
    pub = qiskit.SamplerPubResult(qiskit.DataBin(**registers, shape=shape))
    assert_as_qiskit(encoded(pub) if encoding == "qiskit" else plain(pub), pub)


def test_a_register_without_bits(qiskit, encoded):
    import numpy

    nothing = qiskit.BitArray(numpy.zeros((20, 0), numpy.uint8), num_bits=0)
    for registers in ({"a": nothing}, {"a": nothing, "b": bit_array(3)}):
        pub = qiskit.SamplerPubResult(qiskit.DataBin(**registers))
        assert_as_qiskit(encoded(pub), pub)


def test_bits_beyond_the_width_are_ignored_as_qiskit_does(qiskit, encoded):
    import numpy

    stray = numpy.arange(256, dtype=numpy.uint8).reshape(128, 2)
    pub = qiskit.SamplerPubResult(qiskit.DataBin(c=qiskit.BitArray(stray, num_bits=11)))
    assert only_pub(encoded(pub))["counts"]["c"] == pub.data.c.get_counts()


def test_an_array_in_fortrans_order(qiskit, encoded):
    import numpy

    values = numpy.arange(48, dtype=numpy.uint8).reshape(2, 3, 4, 2)
    bits = qiskit.BitArray(numpy.asfortranarray(values), num_bits=16)
    pub = qiskit.SamplerPubResult(qiskit.DataBin(c=bits, shape=(2, 3)))
    assert_as_qiskit(encoded(pub), pub)


def pairs(values):
    """Complex numbers as strict JSON."""
    if isinstance(values, list):
        return [pairs(value) for value in values]
    return [values.real, values.imag]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("kind", ["complex128", "complex64"])
@pytest.mark.parametrize("averaged", [False, True], ids=["kerneled", "averaged"])
def test_complex_measurements(qiskit, encoded, shape, kind, averaged):
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
def test_expectation_values_of_qiskit(qiskit, encoded, shape, kind):
    import numpy
    from qiskit_ibm_runtime.results import EstimatorPubResult

    values = numpy.linspace(-1, 1, math.prod(shape)).reshape(shape).astype(kind)
    names = ("evs", "stds", "ensemble_standard_error")
    data = qiskit.DataBin(**dict.fromkeys(names, values), shape=shape)
    for pub_type in (qiskit.PubResult, EstimatorPubResult):
        decoded = decode_results(encoded(pub_type(data, metadata={"shots": 5}), version=2))
        assert (decoded.format, decoded.metadata) == ("estimator", {"version": 2})
        assert decoded.results == [dict.fromkeys(names, values.tolist()) | {"metadata": {"shots": 5}}]


def test_expectation_values_that_are_no_numbers(qiskit, encoded):
    import numpy

    data = qiskit.DataBin(evs=numpy.array([numpy.nan, -numpy.inf, 1.5]), stds=0.25, shape=(3,))
    pub = only_pub(encoded(qiskit.PubResult(data)))
    assert pub == {"evs": ["NaN", "-Infinity", 1.5], "stds": 0.25, "metadata": {}}


def test_metadata_of_qiskit_are_plain(qiskit, encoded):
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


def test_results_have_the_same_shape_without_qiskit(qiskit, encoded, monkeypatch):
    pub = qiskit.SamplerPubResult(qiskit.DataBin(a=bit_array(5), b=bit_array(9)))
    raw = encoded(pub)
    with_qiskit = decode_results(raw, detail="memory")
    for name in ("qiskit", "qiskit.primitives", "qiskit_ibm_runtime", "numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    assert decode_results(raw, detail="memory") == with_qiskit
    with pytest.raises(ConfigurationError, match="pip install"):
        raw_to_primitive_result(raw)


# -- Qiskit's encoding, broken -------------------------------------------------------------------------------


def npy(body, kind="|u1", shape="(4, 1)", magic=b"\x93NUMPY\x01\x00", **changes):
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    file = magic + len(head).to_bytes(2, "little") + head + body
    return base64.b64encode(zlib.compress(file)).decode()


def typed(name, value):
    return {"__type__": name, "__value__": value}


def one_register(array, num_bits=3):
    bits = typed("BitArray", {"array": typed("ndarray", array), "num_bits": num_bits})
    data = typed("DataBin", {"field_names": ["c"], "shape": [], "fields": {"c": bits}})
    pub = typed("SamplerPubResult", {"data": data, "metadata": {}})
    return typed("PrimitiveResult", {"pub_results": [pub], "metadata": {}})


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


# -- tensors of the executor and the noise learner -----------------------------------------------------------


@pytest.fixture(scope="module")
def executed(qiskit):
    """What IBM sends for a ``QuantumProgramResult``, in the first and the last version of the schema."""
    v2 = pytest.importorskip("ibm_quantum_schemas.executor.version_2_0.models")
    v1 = pytest.importorskip("ibm_quantum_schemas.executor.version_1_0.models")
    from ibm_quantum_schemas.common import CompressedTensorModel, TensorModel

    def encode(items, passthrough=None, role=None, version="v2.0"):
        models, tensor = (v2, CompressedTensorModel) if version == "v2.0" else (v1, TensorModel)
        result = models.QuantumProgramResultModel(
            data=[
                {"results": {name: tensor.from_numpy(array) for name, array in item.items()}, "metadata": {}}
                for item in items
            ],
            metadata={"chunk_timing": []},
            passthrough_data=passthrough,
            semantic_role=role,
        )
        return json.loads(result.model_dump_json())

    return encode


def by_qiskit(raw):
    """What Qiskit's own decoders make of the executor's results."""
    from qiskit_ibm_runtime.decoders.defaults import DEFAULT_DECODERS

    result = json.dumps(raw)
    for decoder in DEFAULT_DECODERS["executor"]:
        if decoder.is_applicable(result):
            result = decoder.decode(result)
    return result


def sampler_data(twirling, meas_type="classified"):
    post = {"version": "v0.1", "twirling": twirling, "meas_type": meas_type, "shots": 40, "options": {"a": 1}}
    return {"post_processor": post}


@pytest.mark.parametrize("version", ["v1.0", "v2.0"])
@pytest.mark.parametrize("twirling", [False, True], ids=["plain", "twirled"])
@pytest.mark.parametrize("widths", [(1,), (5, 3), (127, 2, 9)], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2)], ids=str)
def test_a_sampler_on_the_executor(executed, version, twirling, widths, shape):
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
def test_complex_measurements_on_the_executor(executed, meas_type, shape):
    import numpy

    size = (*shape, 4) if meas_type == "avg_kerneled" else (*shape, 10, 4)
    values = numpy.arange(math.prod(size)).reshape(size) * (1 - 0.5j)
    suffix = "_avg_iq" if meas_type == "avg_kerneled" else "_iq"
    decoded = decode_results(executed([{f"c{suffix}": values}], sampler_data(False, meas_type), "sampler_v2"))
    assert decoded.results[0]["data"] == {"c": pairs(values.tolist())}
    assert decoded.results[0]["num_shots"] == (10 if meas_type == "kerneled" else None)
    strict(decoded.to_json())


@pytest.fixture(scope="module")
def estimated(executed):
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


def test_primitives_on_the_executor_need_qiskit(executed, monkeypatch):
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
def test_what_qiskit_cannot_decode_stays_raw_and_says_why(executed, broken):
    import numpy

    raw = executed([{"c": numpy.ones((10, 2), bool)}], sampler_data(False), "sampler_v2") | broken
    decoded = decode_results(raw)
    assert (decoded.format, decoded.results) == ("raw", raw)
    assert decoded.error.startswith("Qiskit cannot decode these results")
    with pytest.raises(BadResponseError):
        raw_to_primitive_result(raw)


@pytest.mark.parametrize("version", ["v1.0", "v2.0"])
@pytest.mark.parametrize("role", [None, "of_tomorrow"])
def test_arrays_of_the_executor(executed, version, role):
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


def test_the_third_noise_learner(qiskit):
    models = pytest.importorskip("ibm_quantum_schemas.noise_learner_v3.version_0_3.models")
    import numpy
    from ibm_quantum_schemas.common.tensor import F64TensorModel

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
    assert made["rates"] == [0.1, 0.2]
    assert made["rates_std"] == [0.01, 0.02]
    assert made["generators_sparse"] == [[["XX", [0, 1]]], [["Z", [0]], ["Z", [1]]]]


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
