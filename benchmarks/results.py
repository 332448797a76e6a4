# SPDX-License-Identifier: Apache-2.0
"""
Decoding the results of a sampler, beside Qiskit's own decoder and ``get_counts()``.

Qiskit's encoding is decoded from the response's body, as ``job.result()`` does. For IBM's plain JSON Qiskit
has no decoder: there ``BitArray.from_samples`` counts as one, and both start with the parsed body.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

from testing.subprocesses import answer_of
from testing.tables import table, target

MAX_RATIO = 1.2
_SECONDS = 300
_ROUNDS = 3
_CASES = {"shots": "1,000,000 shots of 127 bits", "sweep": "100 x 100 points of 100 shots of 127 bits"}
_ENCODINGS = {"qiskit": "Qiskit's encoding", "plain": "plain JSON"}

Cost = tuple[float, float]


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    print((__doc__ or "").strip().partition("\n\n")[2])
    print(
        f"Seconds of processor time: median of {_ROUNDS} fresh processes, in turn. "
        "MB: peak by tracemalloc, in one more.\n"
    )
    rows, ratios = [], []
    for case, what in _CASES.items():
        for encoding, name in _ENCODINGS.items():
            (qiskit, ours) = measure(case, encoding)
            ratio = ours[0] / qiskit[0], ours[1] / qiskit[1]
            ratios.append((f"{what}, {name}", ratio))
            figures = [f"{figure:.2f}" for figure in (qiskit[0], ours[0], ratio[0])]
            memory = [f"{qiskit[1]:.0f}", f"{ours[1]:.0f}", f"{ratio[1]:.2f}"]
            rows.append((f"{what}, {name}", *figures, *memory))
    table(("", "Qiskit, s", "ours, s", "ratio", "Qiskit, MB", "ours, MB", "ratio"), rows)
    print()
    for name, (seconds, mb) in ratios:
        met = seconds <= MAX_RATIO and mb <= MAX_RATIO
        target(f"at most {MAX_RATIO} times Qiskit ({name})", f"{seconds:.2f} and {mb:.2f}", met=met)


def measure(case: str, encoding: str) -> tuple[Cost, Cost]:
    """Return seconds and MB of Qiskit and of ours."""

    def cost(way: str, traced: str = "") -> dict[str, float]:
        command = [sys.executable, "-m", "benchmarks.results_probe", case, encoding, way, traced]
        return answer_of(command, _SECONDS)

    samples = [(cost("qiskit")["seconds"], cost("ours")["seconds"]) for _ in range(_ROUNDS)]
    qiskit, ours = (median(column) for column in zip(*samples, strict=True))
    return (qiskit, cost("qiskit", "traced")["mb"]), (ours, cost("ours", "traced")["mb"])
