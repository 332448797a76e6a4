# SPDX-License-Identifier: Apache-2.0
"""
The command: an IBM Quantum on this machine, with simulated circuits.

``python -m airflow_provider_ibm_sessions.emulator``, or ``ibm-quantum-sessions emulator``.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import to_seconds

from .emulator import DEFAULT_PORT, Emulator, connection_line
from .service import snapshots
from .service.settings import CALIBRATIONS, Device, Settings, default_devices

if TYPE_CHECKING:
    from collections.abc import Sequence

_STATES: Final = ("online", "paused", "offline")
_EXAMPLES: Final = """\
Examples:
  # Serve IBM Quantum on port 8717; jobs run at once and take the seconds they would take on a QPU.
  %(prog)s

  # Make it the connection ibm_quantum_default of the Airflow that you start in this shell.
  eval "$(%(prog)s --print-connection)"

  # Ten times as fast as IBM, a queue of 20 emulated seconds, one of two QPUs down.
  %(prog)s --speed 10 --queue 20s --backends ibm_fez,ibm_torino:offline
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the emulator's options to a command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="on 127.0.0.1 (default: %(default)s)")
    parser.add_argument(
        "--backends",
        metavar="NAME[:STATE],...",
        help=f"QPUs, each {', '.join(_STATES)} (default: {', '.join(default_devices())}, all online)",
    )
    parser.add_argument(
        "--queue", default="0", metavar="TIME", help="wait for the QPU, such as 20s (default: 0)"
    )
    parser.add_argument(
        "--speed",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="emulated seconds per second: TTLs, queues, running times, bills (default: 1)",
    )
    parser.add_argument("--plan", choices=("open", "payg", "flex", "premium"), default="premium")
    parser.add_argument("--seed", type=int, help="seed of the simulations (default: other results each time)")
    parser.add_argument("--workers", type=int, default=1, help="processes that simulate (default: 1)")
    parser.add_argument(
        "--settings",
        type=json.loads,
        default={},
        metavar="JSON",
        help='further settings, such as \'{"usage_limit_seconds": 60, "failures": [0, 9999]}\'',
    )
    parser.add_argument(
        "--print-connection",
        action="store_true",
        help="print the shell command that makes it an Airflow connection, and end",
    )


def run(options: argparse.Namespace) -> None:
    """
    Serve until SIGINT or SIGTERM.

    :raises ConfigurationError: Naming the option that is wrong.
    :raises OSError: If the port is taken.
    """
    if options.print_connection:
        print(connection_line(options.port))
        return
    missing = [name for name in ("qiskit_ibm_runtime", "qiskit_aer") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} not installed: pip install 'airflow-provider-ibm-sessions[local]'"
        )
    emulator = Emulator(
        port=options.port,
        settings=_settings(options),
        speed=_at_least(options.speed, 0.001, "--speed"),
        seed=options.seed,
        workers=int(_at_least(options.workers, 1, "--workers")),
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with emulator:
        print(
            f"IBM Quantum emulator at http://127.0.0.1:{emulator.port} (Ctrl-C ends it)\n"
            f"Backends: {', '.join(emulator.settings.backends)}\n"
            f"To make it an Airflow connection, run in the shell that starts Airflow:\n\n"
            f"{connection_line(emulator.port)}\n",
            flush=True,
        )
        stop.wait()


def _settings(options: argparse.Namespace) -> Settings:
    given: dict[str, Any] = dict(options.settings) if isinstance(options.settings, dict) else {"?": None}
    if unknown := sorted(set(given) - set(Settings.__dataclass_fields__)):
        known = ", ".join(Settings.__dataclass_fields__)
        raise ConfigurationError(f"--settings has no {unknown[0]!r}; it takes a JSON object of: {known}")
    given.setdefault("plan", options.plan)
    given.setdefault("queue_seconds", 0 if options.queue == "0" else to_seconds(options.queue, "--queue"))
    if options.backends:
        given["backends"] = dict(_device(each.strip()) for each in options.backends.split(","))
    try:
        return TypeAdapter(Settings).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"--settings: {field}: {first['msg']}") from None


def _device(text: str) -> tuple[str, Device]:
    """
    Read ``ibm_fez`` or ``ibm_fez:paused``.

    :raises ConfigurationError: For a name without a snapshot, or an unknown state.
    """
    name, _, state = text.partition(":")
    described = snapshots.configuration(name)
    if described is None:
        known = ", ".join(snapshots.snapshot_names()) or "none, as qiskit-ibm-runtime is not installed"
        raise ConfigurationError(f"--backends: Qiskit has no snapshot of {name!r}, only of: {known}")
    if state and state not in _STATES:
        raise ConfigurationError(f"--backends: {text!r} has no state such as {', '.join(_STATES)}")
    return name, Device(
        int(described["n_qubits"]),
        status=state or "online",  # type: ignore[arg-type]
        calibrations=list(CALIBRATIONS),
    )


def _at_least(value: float, low: float, name: str) -> float:
    if value < low:
        raise ConfigurationError(f"{name} must be at least {low:g}, not {value:g}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="ibm-quantum-sessions emulator", description=__doc__)
    add_arguments(parser)
    try:
        run(parser.parse_args(arguments))
    except (ConfigurationError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
