# SPDX-License-Identifier: Apache-2.0
"""Run by a fresh interpreter: prints what an import costs over a bare ``airflow.sdk``, as JSON."""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

from benchmarks.memory import MB, resident_mb


def base() -> None:
    """Load what every Dag file has loaded already, with the parts that ``airflow.sdk`` loads when touched."""
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


def traced_by(action: Callable[[], object]) -> dict[str, float]:
    """Growth, in MB, of what Python's own allocator has handed out. Too slow to be timed along."""
    tracemalloc.start()
    action()
    gc.collect()
    return {"traced": tracemalloc.get_traced_memory()[0] / MB}


def main(module: str, *, traced: bool) -> None:
    """Measure the module, or the base if none is named."""
    measure = traced_by if traced else cost_of
    if module:
        base()
    print(json.dumps(measure(partial(importlib.import_module, module) if module else base)))


if __name__ == "__main__":
    main(sys.argv[1], traced=sys.argv[2:] == ["traced"])
