# SPDX-License-Identifier: Apache-2.0
"""Runs all benchmarks, or those that are named."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import traceback
from importlib.metadata import version

from benchmarks import (
    hand_over,
    idle,
    import_cost,
    request_overhead,
    results,
    servers,
    submission,
    sweep,
    triggerer_load,
)

_ALL = {
    "import": import_cost,
    "waits": triggerer_load,
    "hand-over": hand_over,
    "get": request_overhead,
    "servers": servers,
    "idle": idle,
    "results": results,
    "sweep": sweep,
    "submit": submission,
}


def main() -> int:
    """Run the benchmarks; return 1 if one broke, whatever the figures."""
    options = arguments()
    print(
        f"Python {platform.python_version()}, Airflow {version('apache-airflow')}, httpx {version('httpx')}, "
        f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}"
    )
    broken = [name for name in options.names or _ALL if not ran(name, options)]
    if broken:
        print(f"\nbroken: {', '.join(broken)}")
    return bool(broken)


def ran(name: str, options: argparse.Namespace) -> bool:
    """Run one benchmark; a mistake in it does not keep the others from running."""
    module = _ALL[name]
    print(f"\n## {name}: {(module.__doc__ or '').strip().splitlines()[0]}\n", flush=True)
    try:
        module.run(options)
    except Exception:  # noqa: BLE001
        traceback.print_exc(file=sys.stdout)
        return False
    return True


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="|".join(_ALL), help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="import: processes per candidate")
    parser.add_argument(
        "--triggers", type=int, nargs="+", default=[1000, 10_000], help="waits: how many wait at once"
    )
    parser.add_argument("--interval", type=float, default=10, help="waits: seconds between polls")
    parser.add_argument("--seconds", type=float, default=80, help="waits: how long they wait")
    parser.add_argument(
        "--latency", type=float, nargs="+", default=[0, 0.3], help="waits: seconds the service takes"
    )
    parser.add_argument("--taken-over", type=int, default=500, help="hand-over: how many start together")
    parser.add_argument("--gets", type=int, default=2000, help="get: requests per candidate")
    parser.add_argument("--calls", type=int, default=20, help="servers: calls of each caller")
    parser.add_argument("--queue", type=float, default=idle.QUEUE_SECONDS, help="idle: seconds in the queue")
    options = parser.parse_args()
    if unknown := set(options.names) - set(_ALL):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if options.seconds <= 2 * options.interval:
        parser.error("--seconds must be more than twice --interval, which is the start-up")
    return options


if __name__ == "__main__":
    sys.exit(main())
