# SPDX-License-Identifier: Apache-2.0
"""
What importing our operators costs over a bare ``import airflow.sdk``, beside other published providers.

Dag files are parsed every few seconds, each time in a fresh process: this is paid over and over.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import environment
from benchmarks.children import answer_of
from benchmarks.tables import table, target

MAX_MS, MAX_MB = 60.0, 2.0
OURS = "airflow_provider_ibm_sessions.operators.session"
OTHERS = {
    "airflow.providers.airbyte.operators.airbyte": "apache-airflow-providers-airbyte",
    "airflow.providers.dbt.cloud.operators.dbt": "apache-airflow-providers-dbt-cloud",
    "airflow.providers.http.operators.http": "apache-airflow-providers-http",
}
FOR_INFORMATION = (
    "airflow_provider_ibm_sessions.sensors.session",
    "airflow_provider_ibm_sessions.triggers.session",
    "airflow_provider_ibm_sessions.hooks.ibm_quantum",
    # What Airflow loads of a provider that is installed, in each of its processes.
    "airflow_provider_ibm_sessions.hooks.form",
)
_PROBE_SECONDS = 120
_FIGURES = ("ms", "cpu", "mb", "modules")

Costs = Mapping[str, Mapping[str, float]]


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    costs = measure(environment.python(), options.rounds)
    print(
        f"Each figure: median of {options.rounds} fresh processes, candidates in turn. CPU ms: the part\n"
        "spent computing. MB: growth of resident memory, after a garbage collection; unlike\n"
        "tracemalloc it sees what C libraries take, and does not slow down what is timed.\n"
        "Shared modules count in every row.\n"
    )
    table(
        ("import, over a bare airflow.sdk", "ms", "CPU ms", "MB", "modules"),
        [(_label(name), *(_figure(cost, figure) for figure in _FIGURES)) for name, cost in costs.items()],
    )
    print()
    verdicts(costs)


def measure(python: Path, rounds: int) -> Costs:
    """The median cost of each import. The first round fills caches and is not counted."""
    names = ["", OURS, *OTHERS, *FOR_INFORMATION]
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    command = [str(python), "-m", "benchmarks.import_probe"]
    for number in range(rounds + 1):
        for name in names:
            cost = answer_of([*command, name], _PROBE_SECONDS)
            if number:
                samples[name].append(cost)
    return {
        name: {figure: median(cost[figure] for cost in costs) for figure in _FIGURES}
        for name, costs in samples.items()
    }


def verdicts(costs: Costs) -> None:
    """Print the targets."""
    ours = costs[OURS]
    target(f"at most {MAX_MS:.0f} ms", f"{ours['ms']:.1f} ms", met=ours["ms"] <= MAX_MS)
    target(f"at most {MAX_MB:.0f} MB", f"{ours['mb']:.1f} MB", met=ours["mb"] <= MAX_MB)
    for figure, unit in (("ms", "ms"), ("mb", "MB"), ("modules", "modules")):
        least = min(costs[name][figure] for name in OTHERS)
        target(
            f"fewer {unit} than each of the three",
            f"{_figure(ours, figure)} against {_figure({figure: least}, figure)} or more",
            met=ours[figure] < least,
        )


def _label(name: str) -> str:
    if not name:
        return "(bare airflow.sdk itself)"
    return f"{name} {environment.version_of(OTHERS[name])}" if name in OTHERS else name


def _figure(cost: Mapping[str, float], figure: str) -> str:
    return f"{cost[figure]:.0f}" if figure == "modules" else f"{cost[figure]:.1f}"
