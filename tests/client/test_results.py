# SPDX-License-Identifier: Apache-2.0
"""Results in strict JSON, whichever of IBM's formats they come in."""

from __future__ import annotations

import copy
import json
import math
import re
import tracemalloc
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError
from airflow_provider_ibm_sessions.client.results import (
    decode_results,
    raw_to_primitive_result,
    to_strict_json,
)
from testing.fake_ibm import Fault
from testing.result_payloads import GOOD, nested, npy, one_register, only_pub, sampled, strict, typed


def counts(**registers):
    return only_pub(sampled(**registers))["counts"]


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


UNSTORABLE = ["\ud800", "nul \x00", 2**64, -(2**63) - 1, 10**400, float("nan"), {"\udfff\x00": 2**70}]
"""What JSON can hold, and what is on the way to Airflow's database cannot."""


@pytest.mark.parametrize("odd", UNSTORABLE, ids=ascii)
@pytest.mark.parametrize("detail", ["counts", "memory", "raw"])
def test_a_paid_result_with_what_no_database_takes_is_delivered(odd, detail):
    """In metadata, in a field, in the name of a register; of each format, decodable or not."""
    name = odd if isinstance(odd, str) else "c"
    plain = sampled(**{name: {"samples": ["0x1"], "num_bits": 1}}, d=odd)
    plain["metadata"] = {"of": odd}
    plain["results"] += [{"data": {"c": {"samples": [odd]}}}, {"data": {"evs": odd}}]
    qiskit = one_register(npy(bytes([1, 2])))
    qiskit["__value__"]["metadata"] = {"a": [odd], "b": {"__type__": "x", "__value__": odd, "c": odd}}
    executor = {"schema_version": "v0.1", "data": [{"results": {name: odd}, "metadata": odd}]}
    for raw in (plain, qiskit, executor, {"new": odd}, [odd], odd):
        strict(decode_results(raw, detail=detail).to_json())


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
    if made != value:
        assert re.search(r"NaN|Infinity|\\u0000|\d{19}", json.dumps(value))
    strict(decode_results(value).to_json())
