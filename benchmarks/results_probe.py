# SPDX-License-Identifier: Apache-2.0
"""Decodes one kind of results in one way, and prints what that cost; a process of its own for each."""

from __future__ import annotations

import gc
import json
import math
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult
from qiskit_ibm_runtime import RuntimeDecoder, RuntimeEncoder

from airflow_provider_ibm_sessions.client.results import decode_results

CASES = {"shots": ((), 1_000_000, 127), "sweep": ((100, 100), 100, 127)}
"""Shape of the sweep, shots at each point, and bits."""


def main() -> None:
    """Print the figures as JSON: seconds of processor time, peak of traced memory in MB."""
    case, encoding, way, traced = sys.argv[1:5]
    shape, shots, bits = CASES[case]
    body: Any = json.dumps(_body(BitArray.from_bool_array(_shots(shape, shots, bits)), encoding))
    decode = _decoders()[way, encoding]
    if encoding == "plain":
        body = json.loads(body)
    gc.collect()
    if traced == "traced":
        tracemalloc.start()
    started = time.process_time()
    kept = decode(body)
    seconds = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1] / 1e6 if traced == "traced" else 0.0
    print(json.dumps({"seconds": seconds, "mb": peak, "kept": bool(kept)}))


def _decoders() -> dict[tuple[str, str], Callable[[Any], Any]]:
    return {
        ("ours", "qiskit"): lambda body: decode_results(json.loads(body)),
        ("ours", "plain"): decode_results,
        # As job.result() decodes.
        ("qiskit", "qiskit"): lambda body: _counts(json.loads(body, cls=RuntimeDecoder)[0].data.c),
        # Qiskit has no decoder for this encoding, but a class that holds its samples.
        ("qiskit", "plain"): lambda raw: _counts(_from_samples(raw)),
    }


def _shots(shape: tuple[int, ...], shots: int, bits: int) -> Any:
    """Random bits: nearly each shot is an outcome of its own, which is the most work there can be."""
    return numpy.random.default_rng(1).integers(0, 2, (*shape, shots, bits), numpy.uint8).view(bool)


def _body(array: BitArray, encoding: str) -> Any:
    if encoding == "qiskit":
        result = PrimitiveResult([SamplerPubResult(DataBin(c=array, shape=array.shape))])
        return json.loads(json.dumps(result, cls=RuntimeEncoder))

    def samples(place: BitArray) -> list[Any]:
        if place.shape:
            return [samples(place[index]) for index in range(place.shape[0])]
        return [hex(int(bits, 2)) for bits in place.get_bitstrings()]

    data = {"c": {"samples": samples(array), "num_bits": array.num_bits}}
    return {"results": [{"data": data, "metadata": {}}], "metadata": {}}


def _from_samples(raw: Any) -> BitArray:
    register = raw["results"][0]["data"]["c"]
    samples, sizes = register["samples"], []
    while isinstance(samples[0], list):
        sizes.append(len(samples[0]))
        samples = [sample for point in samples for sample in point]
    bits = BitArray.from_samples(samples, register["num_bits"])
    return bits.reshape(len(samples) // math.prod(sizes), *sizes) if sizes else bits


def _counts(bits: BitArray) -> Any:
    return [bits.get_counts(index) for index in numpy.ndindex(bits.shape)]


if __name__ == "__main__":
    main()
