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

from benchmarks import environment
from testing.subprocesses import answer_of
from testing.tables import table, target

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
    "airflow_provider_ibm_sessions.hooks.connection_form",
)
_PROBE_SECONDS = 120
_FIGURES = ("ms", "cpu", "mb", "traced", "modules")

Costs = Mapping[str, Mapping[str, float]]


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    costs = measure(environment.python(), options.rounds)
    print(
        f"Each figure: median of {options.rounds} fresh processes, candidates in turn. CPU ms: the part "
        "spent computing.\n"
        "RSS MB: growth of resident memory; what fits into memory that the base has freed does not show.\n"
        "Traced MB: by tracemalloc, in one more process; what C libraries allocate does not show.\n"
        "Modules that rows share count in each.\n"
    )
    table(
        ("import, over a bare airflow.sdk", "ms", "CPU ms", "RSS MB", "traced MB", "modules"),
        [(_label(name), *(_figure(cost, figure) for figure in _FIGURES)) for name, cost in costs.items()],
    )
    print()
    targets(costs)


def measure(python: Path, rounds: int) -> Costs:
    """The median cost of each import. The first round, which also fills caches, traces memory."""
    names = ["", OURS, *OTHERS, *FOR_INFORMATION]
    command = [str(python), "-m", "benchmarks.import_probe"]
    traced = {name: answer_of([*command, name, "traced"], _PROBE_SECONDS) for name in names}
    samples = [
        {name: answer_of([*command, name], _PROBE_SECONDS) | traced[name] for name in names}
        for _ in range(rounds)
    ]
    return {
        name: {figure: median(sample[name][figure] for sample in samples) for figure in _FIGURES}
        for name in names
    }


def targets(costs: Costs) -> None:
    """Print the targets. Memory: the larger of the two figures."""
    memory = {name: max(cost["mb"], cost["traced"]) for name, cost in costs.items()}
    ours, mb = costs[OURS], memory[OURS]
    target(f"at most {MAX_MS:.0f} ms", f"{ours['ms']:.1f} ms", met=ours["ms"] <= MAX_MS)
    target(f"at most {MAX_MB:.0f} MB", f"{mb:.2f} MB", met=mb <= MAX_MB)
    _below("ms", {name: cost["ms"] for name, cost in costs.items()})
    _below("MB", memory)
    _below("modules", {name: cost["modules"] for name, cost in costs.items()})


def _below(unit: str, figures: Mapping[str, float]) -> None:
    least = min(figures[name] for name in OTHERS)
    measured = f"{figures[OURS]:.3g} against {least:.3g} or more"
    target(f"fewer {unit} than each of the three", measured, met=figures[OURS] < least)


def _label(name: str) -> str:
    if not name:
        return "(bare airflow.sdk itself)"
    return f"{name} {environment.version_of(OTHERS[name])}" if name in OTHERS else name


def _figure(cost: Mapping[str, float], figure: str) -> str:
    return f"{cost[figure]:.0f}" if figure == "modules" else f"{cost[figure]:.1f}"
