# SPDX-License-Identifier: Apache-2.0
"""Results as IBM sends them, in each of its formats, and what Qiskit makes of them."""

from __future__ import annotations

import base64
import json
import re
import zlib

import msgspec

from airflow_provider_ibm_sessions.client.results import decode_results, raw_to_primitive_result

NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
GOOD = {"data": {"c": {"samples": ["0x1"], "num_bits": 1}}, "metadata": {}}


def sampled(**registers):
    """The results of one sampler pub."""
    return {"results": [{"data": registers, "metadata": {}}], "metadata": {"version": 2}}


def only_pub(raw, **options):
    decoded = decode_results(raw, **options)
    (pub,) = decoded.results
    return pub


def strict(value):
    """The value after a journey to Airflow's database: as MessagePack to its API server, then as JSON."""
    text = json.dumps(msgspec.msgpack.decode(msgspec.msgpack.encode(value)), allow_nan=False)
    assert not NUL.search(text), "PostgreSQL refuses NUL"
    return json.loads(text)


def nested(levels, inner=1):
    for _ in range(levels):
        inner = [inner]
    return inner


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


def pairs(values):
    """Complex numbers as strict JSON."""
    if isinstance(values, list):
        return [pairs(value) for value in values]
    return [values.real, values.imag]


def npy(body, kind="|u1", shape="(4, 1)", magic=b"\x93NUMPY\x01\x00", fortran=False):
    head = f"{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    file = magic + len(head).to_bytes(2, "little") + head + body
    return base64.b64encode(zlib.compress(file)).decode()


def typed(name, value):
    return {"__type__": name, "__value__": value}


def one_register(array, num_bits=3):
    bits = typed("BitArray", {"array": typed("ndarray", array), "num_bits": num_bits})
    data = typed("DataBin", {"field_names": ["c"], "shape": [], "fields": {"c": bits}})
    pub = typed("SamplerPubResult", {"data": data, "metadata": {}})
    return typed("PrimitiveResult", {"pub_results": [pub], "metadata": {}})


def by_qiskit(raw):
    """What Qiskit's own decoders make of the executor's results."""
    from qiskit_ibm_runtime.decoders.defaults import DEFAULT_DECODERS

    result = json.dumps(raw)
    decoders = DEFAULT_DECODERS["executor"]
    if not isinstance(decoders, list | tuple):  # qiskit-ibm-runtime 0.50
        return decoders.decode(result)
    for decoder in decoders:
        if decoder.is_applicable(result):
            result = decoder.decode(result)
    return result


def encoded(*pubs, **metadata):
    """What IBM sends for a job whose circuits Qiskit has encoded."""
    from qiskit.primitives import PrimitiveResult
    from qiskit_ibm_runtime import RuntimeEncoder

    return json.loads(json.dumps(PrimitiveResult(list(pubs), metadata=metadata), cls=RuntimeEncoder))


EXECUTOR_VERSIONS = ("v0.1", "v0.2", "v1.0", "v1.1", "v2.0")
"""The schemas of the executor that Qiskit's table of decoders has."""


def executed(items, passthrough=None, role=None, version="v2.0"):
    """What IBM sends for a ``QuantumProgramResult``; the versions differ in how tensors are packed."""
    from importlib import import_module

    from ibm_quantum_schemas.common import CompressedTensorModel, TensorModel

    models = import_module(f"ibm_quantum_schemas.executor.version_{version[1:].replace('.', '_')}.models")
    tensor = CompressedTensorModel if version == "v2.0" else TensorModel
    # The first versions have neither, and those that came after them no metadata of an item.
    optional = {"passthrough_data": passthrough, "semantic_role": role}
    result = models.QuantumProgramResultModel(
        data=[
            {
                "results": {name: tensor.from_numpy(array) for name, array in item.items()},
                "metadata": None if version == "v0.1" else {},
            }
            for item in items
        ],
        metadata={"chunk_timing": []},
        **{name: value for name, value in optional.items() if value is not None},
    )
    return json.loads(result.model_dump_json())
