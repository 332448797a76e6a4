# SPDX-License-Identifier: Apache-2.0
"""
Decoding the results of a sampler, beside Qiskit's own decoder and ``get_counts()``.

Qiskit's encoding is decoded from the response's body, as ``job.result()`` does. For IBM's plain JSON Qiskit
has no decoder: there ``BitArray.from_samples`` counts as one, and both start with the parsed body.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
import tracemalloc
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.results import decode_results
from testing.tables import table, target

if TYPE_CHECKING:
    from qiskit.primitives import BitArray

MAX_RATIO = 1.2
_ROUNDS = 3
_BITS = 127
_CASES = {
    "1,000,000 shots of 127 bits": ((), 1_000_000),
    "100 x 100 points of 100 shots of 127 bits": ((100, 100), 100),
}
"""Shape of the sweep, and shots at each point."""

Decoder = Callable[[Any], Any]


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    print((__doc__ or "").strip().partition("\n\n")[2])
    print(f"Seconds of processor time: median of {_ROUNDS}, in turn. MB: peak by tracemalloc, in one more.\n")
    rows, ratios = [], []
    for case, (shape, shots) in _CASES.items():
        bits = random_bits(shape, shots)
        for encoding, measure in (("Qiskit's encoding", encoded), ("plain JSON", plain)):
            body, qiskit, ours = measure(bits)
            seconds = [median(column) for column in zip(*timed(body, qiskit, ours), strict=True)]
            memory = [peak_mb(body, qiskit), peak_mb(body, ours)]
            ratio = seconds[1] / seconds[0], memory[1] / memory[0]
            ratios.append((f"{case}, {encoding}", ratio))
            figures = [f"{figure:.2f}" for figure in (*seconds, ratio[0])]
            rows.append((ratios[-1][0], *figures, *(f"{mb:.0f}" for mb in memory), f"{ratio[1]:.2f}"))
    table(("", "Qiskit, s", "ours, s", "ratio", "Qiskit, MB", "ours, MB", "ratio"), rows)
    print()
    for name, (seconds_ratio, mb_ratio) in ratios:
        met = seconds_ratio <= MAX_RATIO and mb_ratio <= MAX_RATIO
        target(
            f"at most {MAX_RATIO} times Qiskit ({name})", f"{seconds_ratio:.2f} and {mb_ratio:.2f}", met=met
        )


def random_bits(shape: tuple[int, ...], shots: int) -> BitArray:
    """Nearly each shot is an outcome of its own, which is the most work there can be."""
    import numpy
    from qiskit.primitives import BitArray

    dice = numpy.random.default_rng(1)
    rows = dice.integers(0, 256, (*shape, shots, math.ceil(_BITS / 8)), numpy.uint8)
    rows[..., 0] &= (1 << _BITS % 8) - 1
    return BitArray(rows, _BITS)


def encoded(bits: BitArray) -> tuple[str, Decoder, Decoder]:
    """A body in Qiskit's encoding, and what decodes it."""
    from qiskit.primitives import DataBin, PrimitiveResult, SamplerPubResult
    from qiskit_ibm_runtime import RuntimeDecoder, RuntimeEncoder

    result = PrimitiveResult([SamplerPubResult(DataBin(c=bits, shape=bits.shape))])
    return (
        json.dumps(result, cls=RuntimeEncoder),
        lambda body: _counts(json.loads(body, cls=RuntimeDecoder)[0].data.c),
        lambda body: decode_results(json.loads(body)),
    )


def plain(bits: BitArray) -> tuple[dict[str, Any], Decoder, Decoder]:
    """A body in plain JSON, and what decodes it."""
    flat = [hex(int(string, 2)) for string in bits.get_bitstrings()]
    samples: list[Any] = flat
    for size in reversed((*bits.shape[1:], bits.num_shots) if bits.shape else ()):
        samples = [samples[start : start + size] for start in range(0, len(samples), size)]
    data = {"c": {"samples": samples, "num_bits": bits.num_bits}}
    return {"results": [{"data": data, "metadata": {}}]}, lambda body: _counts(_held(body)), decode_results


def _held(body: dict[str, Any]) -> BitArray:
    from qiskit.primitives import BitArray

    register = body["results"][0]["data"]["c"]
    samples, shape = register["samples"], []
    while isinstance(samples[0], list):
        shape = [*shape, len(samples) // math.prod(shape)]
        samples = [sample for point in samples for sample in point]
    held = BitArray.from_samples(samples, register["num_bits"])
    return held.reshape(*shape, len(samples) // math.prod(shape)) if shape else held


def _counts(bits: BitArray) -> list[dict[str, int]]:
    import numpy

    return [bits.get_counts(index) for index in numpy.ndindex(bits.shape)]


def timed(body: Any, *decoders: Decoder) -> list[list[float]]:
    """Seconds of processor time of each decoder, in each round."""

    def seconds(decode: Decoder) -> float:
        gc.collect()
        started = time.process_time()
        decode(body)
        return time.process_time() - started

    return [[seconds(decode) for decode in decoders] for _ in range(_ROUNDS)]


def peak_mb(body: Any, decode: Decoder) -> float:
    """The most memory that a decoder takes beside the body, in MB."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = decode(body)
        return tracemalloc.get_traced_memory()[1] / 1e6 if kept else 0.0
    finally:
        tracemalloc.stop()
