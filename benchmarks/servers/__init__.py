# SPDX-License-Identifier: Apache-2.0
"""
Two hundred clients at once, through REST and through MCP, with an IBM that takes 50 ms for each response.

Each client has a connection of its own and sends the next request as soon as it has its response. "Bare" are
the same clients of the same IBM, without a service between. Service, IBM and clients are a process each.
With so many clients the limit is the service's one CPU; what it adds for one client shows in "alone".
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from testing.subprocesses import Server, answer_of, serving
from testing.tables import table, target

CALLERS = 200
LATENCY = 0.05
_ALONE = 60
_SECONDS = 300
_CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:01234567-89ab::"
_MAX_GROWTH = 100.0
_HEAD = (
    f"{CALLERS} callers",
    "answers",
    "errors",
    "answers/s",
    "median, ms",
    "p99, ms",
    "to bare",
    "alone, ms",
    "alone, to bare",
    "tokens",
    "RSS before, MB",
    "peak, MB",
    "CPU/answer, ms",
)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    print((__doc__ or "").strip().partition("\n\n")[2] + "\n")
    bare = _bare(options.calls)
    services = {kind: _measure_service(kind, options.calls) for kind in ("rest", "mcp")}
    rows = [_row(name, seen, bare) for name, seen in {"bare, to IBM": bare, **services}.items()]
    table(_HEAD, rows)
    print()
    for name, seen in services.items():
        target(f"no errors ({name})", str(seen["errors"]), met=not seen["errors"])
        target(f"one token exchange ({name})", str(seen["tokens"]), met=seen["tokens"] == 1)
        growth = seen["peak"] - seen["rss"]
        what = f"at most {_MAX_GROWTH:g} MB for {CALLERS} callers ({name})"
        target(what, f"{growth:.1f} MB", met=growth <= _MAX_GROWTH)
    print()
    _slow()


def _bare(calls: int) -> dict[str, Any]:
    with serving("benchmarks.stub_server", str(LATENCY)) as ibm:
        return _crowd("rest", ibm.about["url"], calls)


def _measure_service(kind: str, calls: int) -> dict[str, Any]:
    with serving("benchmarks.stub_server", str(LATENCY)) as ibm:
        with _served(kind, ibm) as service:
            seen = _crowd(kind, service.about["url"], calls)
            seen |= service.stop()
        return {**seen, **ibm.stop()}


def _crowd(kind: str, url: str, calls: int) -> dict[str, Any]:
    alone = _asked(kind, url, _ALONE, callers=1)["median"]
    return {**_asked(kind, url, calls), "alone": alone}


def _slow() -> None:
    """Others close while readers and writers wait for an IBM that does not answer them."""
    rows = []
    for stuck in (0, 60, 150):
        with serving("benchmarks.stub_server", str(LATENCY)) as ibm, _served("rest", ibm) as service:
            seen = _asked("close", service.about["url"], 10, callers=20, stuck=stuck)
        rows.append((stuck, seen["answers"], seen["errors"], seen["median"], seen["p99"]))
    table(("readers and writers that wait for IBM", "closed", "errors", "median, ms", "p99, ms"), rows)


def _served(kind: str, ibm: Server) -> Any:
    credentials = {"api_key": "benchmark", "crn": _CRN, "url": ibm.about["url"], "iam_url": ibm.about["url"]}
    return serving("benchmarks.servers.service", kind, json.dumps(credentials))


def _asked(kind: str, url: str, calls: int, callers: int = CALLERS, stuck: int = 0) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.servers.callers",
        kind,
        url,
        str(callers),
        str(calls),
        str(stuck),
    ]
    return answer_of(command, _SECONDS)


def _row(name: str, seen: dict[str, Any], bare: dict[str, Any]) -> tuple[object, ...]:
    return (
        name,
        seen["answers"],
        seen["errors"],
        seen["rate"],
        seen["median"],
        seen["p99"],
        f"{seen['median'] / bare['median']:.2f}",
        seen["alone"],
        f"{seen['alone'] / bare['alone']:.2f}",
        seen.get("tokens", "-"),
        seen.get("rss", "-"),
        seen.get("peak", "-"),
        f"{seen['cpu'] / (seen['answers'] + _ALONE) * 1000:.2f}" if "cpu" in seen else "-",
    )
