# SPDX-License-Identifier: Apache-2.0
"""
Run a cluster of Airflow, kill and cut off its parts, and print what became of the sessions and the jobs.

Run it with ``python -m tests.integration.cluster``. The exit code is 0 only if every scenario was
clean, within the limits of time and memory.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from testing.airflow_standalone import handle_signals_alike
from testing.connections import connection_to
from testing.time_limit import at_most
from tests.integration.cluster.cluster import Cluster, running_cluster
from tests.integration.cluster.console import Console
from tests.integration.cluster.installed import find_programs
from tests.integration.cluster.scenarios import ALL, NoConnection, Scenario

GIGABYTE, MAX_GIGABYTES = 1e9, 4.0


def main() -> int:
    """Run the scenarios that the command line names; return the exit code."""
    options = _parser().parse_args()
    handle_signals_alike()
    console = Console()
    home = Path(tempfile.mkdtemp(prefix="cluster-"))
    home.chmod(0o755)  # PostgreSQL runs as another user
    keep = True
    try:
        with at_most(options.limit):
            problems = run_scenarios([each(console) for each in options.only], home, console)
        if console.seconds > options.limit:
            problems.append(f"took more than {options.limit} s")
        keep = bool(problems) or options.keep
        return int(bool(problems))
    except KeyboardInterrupt:
        keep = options.keep
        console.say("stopped by SIGINT or SIGTERM")
        return 130
    finally:
        if keep:
            print(f"Logs of the cluster, and the requests that IBM has seen: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


def run_scenarios(scenarios: Sequence[Scenario], home: Path, console: Console) -> list[str]:
    """Run scenarios one after the other in one cluster; return what was wrong."""
    console.watch(lambda: "installing what .venv-cluster lacks, starting PostgreSQL, Redis and Airflow")
    programs = find_programs()
    problems = []
    everywhere: dict[str, str] = {}
    with ExitStack() as stack:
        for scenario in scenarios:
            stack.enter_context(scenario.ibm)
            everywhere |= scenario.prepare(home)
        on_workers = {
            f"AIRFLOW_CONN_{each.conn_id.upper()}": connection_to(each.ibm)
            for each in scenarios
            if isinstance(each, NoConnection)
        }
        cluster = stack.enter_context(
            running_cluster(programs, home, everywhere=everywhere, on_workers=on_workers)
        )
        stack.callback(signal.alarm, 0)  # the end of the cluster is not interrupted
        console.say(f"the cluster is up; {cluster.supervisor.memory() / GIGABYTE:.1f} GB")
        for scenario in scenarios:
            _run_one(scenario, cluster, console)
            problems += [f"({scenario.letter}) {problem}" for problem in scenario.problems]
            (home / f"{scenario.letter}.log").write_text(scenario.notes(), encoding="utf-8")
        restarts = ", ".join(f"{name} {count}" for name, count in sorted(cluster.supervisor.restarts.items()))
        peak = cluster.supervisor.peak_memory / GIGABYTE
    if peak > MAX_GIGABYTES:
        problems.append(f"{peak:.1f} GB of memory were used, more than {MAX_GIGABYTES}")
    console.say(f"restarts: {restarts or 'none'}; {peak:.1f} GB at most; {console.seconds:.0f} s in all")
    for problem in problems:
        console.say(f"NOT CLEAN: {problem}")
    return problems


def _run_one(scenario: Scenario, cluster: Cluster, console: Console) -> None:
    console.say(f"({scenario.letter}) {scenario.title}")
    if not isinstance(scenario, NoConnection):
        cluster.connect(scenario.conn_id, scenario.ibm)
    cluster.airflow.wait_for_dags(set(scenario.dag_ids))
    console.watch(scenario.status)
    scenario.run(cluster)
    so_far = f"{cluster.supervisor.peak_memory / GIGABYTE:.2f} GB at most so far"
    console.say(f"{scenario.status()}; {so_far}: {'NOT CLEAN' if scenario.problems else 'clean'}")


def _scenarios(letters: str) -> list[type[Scenario]]:
    by_letter = {each.letter: each for each in ALL}
    if unknown := set(letters) - set(by_letter):
        raise argparse.ArgumentTypeError(f"the scenarios are {', '.join(by_letter)}, not {unknown}")
    return [by_letter[letter] for letter in letters]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.cluster", description=__doc__)
    parser.add_argument(
        "--only",
        type=_scenarios,
        metavar="LETTERS",
        default="".join(each.letter for each in ALL),
        help="letters of scenarios, in their order (default: %(default)s)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs, whatever happens")
    parser.add_argument(
        "--limit",
        type=int,
        default=1500,
        metavar="SECONDS",
        help="give up after them (default: %(default)s; 600 are usual on two idle cores)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
