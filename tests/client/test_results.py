# SPDX-License-Identifier: Apache-2.0
"""Results in plain Python, whichever of IBM's formats they come in."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ibm_sessions.client import decode_results
from airflow_provider_ibm_sessions.client.results import to_strict_json
from testing.fake_ibm import Fault


def sampled(**registers):
    """The results of one sampler pub."""
    return {"results": [{"data": registers, "metadata": {}}], "metadata": {"version": 2}}


def counts(**registers):
    (pub,) = decode_results(sampled(**registers))
    return pub["counts"]


def strict(value):
    """The value after a journey as strict JSON."""
    return json.loads(json.dumps(value, allow_nan=False))


# -- samplers ------------------------------------------------------------------------------------------------


def test_samples_are_counted():
    assert counts(c={"samples": ["0x3", "0x0", "0x3"], "num_bits": 2}) == {"c": {"00": 1, "11": 2}}


def test_each_register_is_counted_by_itself():
    found = counts(
        alpha={"samples": ["0x1", "0x1"], "num_bits": 1}, beta={"samples": ["0x5", "0x2"], "num_bits": 3}
    )
    assert found == {"alpha": {"1": 2}, "beta": {"101": 1, "010": 1}}


def test_each_pub_is_decoded_by_itself():
    one, other = sampled(c={"samples": ["0x1"]}), sampled(d={"samples": ["0x0"]})
    both = {"results": one["results"] + other["results"]}
    assert decode_results(both) == [{"counts": {"c": {"1": 1}}}, {"counts": {"d": {"0": 1}}}]
    assert decode_results({"results": []}) == []


def test_leading_zeros_are_kept():
    assert counts(c={"samples": ["0x1"], "num_bits": 5}) == {"c": {"00001": 1}}


@pytest.mark.parametrize("told", [{}, {"num_bits": None}, {"num_bits": 0}, {"num_bits": "3"}], ids=str)
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
    samples = [[["0x0"], ["0x1", "0x1"]], [["0x2"], []]]
    expected = [[{"00": 1}, {"01": 2}], [{"10": 1}, {}]]
    assert counts(c={"samples": samples, **told}) == {"c": expected}


def test_what_stands_beside_the_registers_stays():
    (pub,) = decode_results(sampled(c={"samples": ["0x1"]}, shots=1, odd={"a": 1}))
    assert pub == {"counts": {"c": {"1": 1}}, "shots": 1, "odd": {"a": 1}}


VALUES = st.integers(1, 200).flatmap(
    lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1), max_size=60))
)


@given(VALUES, st.booleans())
def test_counts_add_up_to_the_shots(values, told):
    bits, numbers = values
    register = {"samples": [hex(number) for number in numbers]} | ({"num_bits": bits} if told else {})
    width = bits if told else max([number.bit_length() for number in numbers] + [1])
    found = counts(c=register)["c"]
    assert sum(found.values()) == len(numbers)
    assert found == Counter(bin(number)[2:].rjust(width, "0") for number in numbers)


@given(st.lists(st.lists(st.integers(0, 2**70), max_size=10), min_size=1, max_size=5))
def test_nested_counts_add_up_too(rows):
    found = counts(c={"samples": [[hex(number) for number in row] for row in rows], "num_bits": 71})["c"]
    assert [{int(bits, 2): n for bits, n in each.items()} for each in found] == [Counter(row) for row in rows]
    assert {len(bits) for each in found for bits in each} <= {71}


@pytest.mark.parametrize("samples", [["0x3", "0x03"], ["0xA", "0xa"], ["0x3", "3"]], ids=str)
def test_two_spellings_of_a_sample_are_one(samples):
    assert sum(counts(c={"samples": samples, "num_bits": 4})["c"].values()) == 2


# -- estimators and others -----------------------------------------------------------------------------------


def test_expectation_values_stay_as_they_are():
    data = {"evs": [[0.5, -1], [0, 1]], "stds": [[0.1, 0.2], [0, 0]], "ensemble_standard_error": 0.1}
    assert decode_results({"results": [{"data": data, "metadata": {}}]}) == [data]
    assert decode_results({"results": [{"data": {"evs": 0.5, "stds": 0.1}}]}) == [{"evs": 0.5, "stds": 0.1}]


@pytest.mark.parametrize(
    "results",
    [
        {"schema_version": "v0.1", "data": [{"value": 0.5}]},
        {"results": [{"data": [1, 2]}]},
        {"results": [{"data": {}}, 7]},
        {"results": {"c": 1}},
        {"results": None},
        {"__type__": "Unheard", "__value__": {"a": 1}},
        {},
        [{"data": {}}],
        "text",
        7,
        None,
    ],
    ids=str,
)
def test_other_results_stay_as_they_came(results):
    before = json.dumps(results)
    assert decode_results(results) == results
    assert json.dumps(results) == before


def test_decoding_changes_nothing_in_its_input():
    results = sampled(c={"samples": ["0x3", "0x0"], "num_bits": 2})
    before = json.dumps(results)
    decode_results(results)
    assert json.dumps(results) == before


# -- over HTTP -----------------------------------------------------------------------------------------------


def finished(ibm, api, program_id, pubs, **params):
    params = {"pubs": pubs, **params}
    name = api.submit_job(program_id, backend="ibm_fez", params=params).id
    ibm.clock.advance(10)
    return decode_results(api.job_results(name))


CIRCUIT = "OPENQASM 3.0; bit[127] wide; bit[3] c;"


def test_a_sampler_over_http(ibm, api):
    first, second = finished(ibm, api, "sampler", [[CIRCUIT, None, 50], CIRCUIT], shots=20)
    for pub, shots in ((first, 50), (second, 20)):
        for register, bits in (("wide", 127), ("c", 3)):
            assert sum(pub["counts"][register].values()) == shots
            assert {len(key) for key in pub["counts"][register]} == {bits}


def test_a_sampler_in_the_encoding_of_qiskit_over_http(ibm, api):
    pytest.importorskip("qiskit_ibm_runtime")
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
    (pub,) = decode_results(api.job_results("x"))
    assert pub["evs"] == [math.inf, -math.inf, 1.5]
    assert math.isnan(pub["stds"][0])
    safe = strict(to_strict_json(pub))
    assert safe == {"evs": ["Infinity", "-Infinity", 1.5], "stds": ["NaN", 0, 1]}
    assert [float(value) for value in safe["evs"]] == pub["evs"]


def test_many_shots_over_http(ibm, api):
    samples = ["0x3", "0x0"] * 100_000
    ibm.script(Fault("GET", "/v1/jobs/*/results", json=sampled(c={"samples": samples, "num_bits": 2})))
    assert decode_results(api.job_results("x")) == [{"counts": {"c": {"00": 100_000, "11": 100_000}}}]


# -- plain ---------------------------------------------------------------------------------------------------


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


# -- as Qiskit encodes them ----------------------------------------------------------------------------------


@pytest.fixture
def encoded():
    """What IBM sends for a job whose circuits Qiskit has encoded."""
    primitives = pytest.importorskip("qiskit.primitives")
    runtime = pytest.importorskip("qiskit_ibm_runtime")

    def encode(*pubs):
        return json.loads(json.dumps(primitives.PrimitiveResult(list(pubs)), cls=runtime.RuntimeEncoder))

    return encode


def test_a_sampler_of_qiskit(encoded):
    from qiskit.primitives import BitArray, DataBin, SamplerPubResult

    data = DataBin(
        meas=BitArray.from_samples(["011", "100", "011"], num_bits=3), flag=BitArray.from_samples(["0"] * 3)
    )
    found = decode_results(encoded(SamplerPubResult(data), SamplerPubResult(data)))
    assert found == [{"counts": {"meas": {"011": 2, "100": 1}, "flag": {"0": 3}}}] * 2
    assert strict(found) == found


@pytest.mark.parametrize("bits", [65, 127])
def test_a_wide_sampler_of_qiskit(encoded, bits):
    from qiskit.primitives import BitArray, DataBin, SamplerPubResult

    samples = ["1" + "0" * (bits - 1), "0" * (bits - 1) + "1"]
    result = encoded(SamplerPubResult(DataBin(c=BitArray.from_samples(samples, num_bits=bits))))
    assert decode_results(result) == [{"counts": {"c": dict.fromkeys(samples, 1)}}]


def test_a_sampler_of_qiskit_over_an_array_of_parameters(encoded):
    import numpy
    from qiskit.primitives import BitArray, DataBin, SamplerPubResult

    values = [[[0, 0], [1, 2], [3, 3]], [[3, 0], [1, 1], [2, 3]]]
    bits = BitArray(numpy.array(values, dtype=numpy.uint8)[..., numpy.newaxis], num_bits=2)
    found = decode_results(encoded(SamplerPubResult(DataBin(meas=bits, shape=bits.shape))))
    expected = [[dict(Counter(f"{value:02b}" for value in cell)) for cell in row] for row in values]
    assert found == [{"counts": {"meas": expected}}]
    assert strict(found) == found


def test_an_estimator_of_qiskit(encoded):
    import numpy
    from qiskit.primitives import DataBin, PubResult

    one = PubResult(DataBin(evs=numpy.float64(0.5), stds=numpy.float64(0.1)))
    grid = numpy.array([[1.0, 2.0], [3.0, -4.0]])
    many = PubResult(DataBin(evs=grid, stds=grid / 10, shape=(2, 2)))
    found = decode_results(encoded(one, many))
    assert found[0] == {"evs": 0.5, "stds": 0.1}
    assert found[1]["evs"] == [[1.0, 2.0], [3.0, -4.0]]
    assert strict(found) == found


def test_both_formats_decode_to_the_same(encoded):
    from qiskit.primitives import BitArray, DataBin, SamplerPubResult

    numbers = [0, 5, 5, 2, 7]
    bits = BitArray.from_samples([f"{number:03b}" for number in numbers], num_bits=3)
    rest = sampled(c={"samples": [hex(number) for number in numbers], "num_bits": 3})
    assert decode_results(encoded(SamplerPubResult(DataBin(c=bits)))) == decode_results(rest)


def test_without_qiskit_its_encoding_stays_as_it_is(encoded, monkeypatch):
    from qiskit.primitives import BitArray, DataBin, SamplerPubResult

    result = encoded(SamplerPubResult(DataBin(c=BitArray.from_samples(["0", "1"]))))
    monkeypatch.setitem(sys.modules, "qiskit_ibm_runtime", None)
    assert decode_results(result) == result
