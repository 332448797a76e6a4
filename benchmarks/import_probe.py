# SPDX-License-Identifier: Apache-2.0
"""Run by a fresh interpreter: prints what one import costs on top of a bare ``airflow.sdk``, as JSON."""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
from collections.abc import Callable

from benchmarks.memory import resident_mb


def base() -> None:
    """What every Dag file has loaded already, with the parts that ``airflow.sdk`` loads when touched."""
    import airflow.sdk

    for name in ("BaseOperator", "BaseSensorOperator", "DAG"):
        getattr(airflow.sdk, name)


def cost_of(action: Callable[[], object]) -> dict[str, float]:
    """Wall clock and CPU in ms, growth of resident memory in MB, modules loaded."""
    gc.collect()
    modules, resident = len(sys.modules), resident_mb()
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    gc.collect()
    return {
        "ms": wall * 1000,
        "cpu": cpu * 1000,
        "mb": resident_mb() - resident,
        "modules": len(sys.modules) - modules,
    }


def main(module: str) -> None:
    """Measure the base, then the module, if one is named."""
    bare = cost_of(base)
    print(json.dumps(cost_of(lambda: importlib.import_module(module)) if module else bare))


if __name__ == "__main__":
    main(sys.argv[1])
