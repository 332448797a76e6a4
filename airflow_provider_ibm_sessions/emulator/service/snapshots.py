# SPDX-License-Identifier: Apache-2.0
"""
Descriptions of real QPUs: the snapshots that Qiskit's fake provider brings.

Read as files, so that nothing of Qiskit need be imported for them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

_TWO_QUBIT_GATES = ("cz", "ecr", "cx")
_FRACTIONAL_GATES = {
    "rx": "gate rx(theta) q0 { h q0; rz(theta) q0; h q0; }",
    "rzz": "gate rzz(theta) q0, q1 { cx q0, q1; rz(theta) q1; cx q0, q1; }",
}
"""Gates with a continuous angle, by their definitions in OpenQASM."""


def snapshot_names() -> list[str]:
    """Return the names of all backends of which there is a snapshot; none without qiskit-ibm-runtime."""
    root = _root()
    if root is None:
        return []
    return sorted(f"ibm_{each.parent.name}" for each in root.glob("*/conf_*.json"))


@lru_cache(maxsize=64)
def configuration(name: str) -> dict[str, Any] | None:
    """
    Return a backend's configuration as IBM's API sends it.

    IBM sends the fractional gates as well, and Qiskit leaves them out unless it is asked for them. So it did
    when it took the snapshots. Here they are put back, for the qubits of which there is calibration data.
    """
    found = _read(name, "conf")
    if found is None:
        return None
    found = {**found, "backend_name": name}
    for gate, definition in _FRACTIONAL_GATES.items():
        calibrated = [each["qubits"] for each in (properties(name) or {})["gates"] if each["gate"] == gate]
        if calibrated and gate not in found["basis_gates"]:
            described = {
                "name": gate,
                "parameters": ["theta"],
                "qasm_def": definition,
                "coupling_map": calibrated,
            }
            found["gates"] = [*found["gates"], described]
            found["basis_gates"] = [*found["basis_gates"], gate]
            found["supported_instructions"] = [*found["supported_instructions"], gate]
    return found


@lru_cache(maxsize=64)
def properties(name: str) -> dict[str, Any] | None:
    """Return a backend's calibration data as IBM's API sends it."""
    found = _read(name, "props")
    return None if found is None else {**found, "backend_name": name}


@lru_cache(maxsize=64)
def performance_metrics(name: str) -> dict[str, dict[str, float | None]]:
    """Return the error rates of GET /backends, computed from the calibration data."""
    data = properties(name) or {"gates": [], "qubits": []}
    two_qubit = _errors(
        parameter
        for gate in data["gates"]
        if gate["gate"] in _TWO_QUBIT_GATES
        for parameter in gate["parameters"]
        if parameter["name"] == "gate_error"
    )
    readout = _errors(
        parameter for qubit in data["qubits"] for parameter in qubit if parameter["name"] == "readout_error"
    )
    middle = median(two_qubit) if two_qubit else None
    return {
        "two_q_error_best": {"value": min(two_qubit, default=None)},
        "two_q_error_layered": {"value": middle},
        "two_q_error_median": {"value": middle},
        "readout_error_median": {"value": median(readout) if readout else None},
    }


def _errors(parameters: Any) -> list[float]:
    """Return the values below 1: calibration writes 1 for what is not usable."""
    return [parameter["value"] for parameter in parameters if 0 < parameter["value"] < 1]


def _root() -> Path | None:
    spec = find_spec("qiskit_ibm_runtime")
    return Path(spec.origin).parent / "fake_provider" / "backends" if spec and spec.origin else None


def _read(name: str, kind: str) -> dict[str, Any] | None:
    root, short = _root(), name.removeprefix("ibm_")
    if root is None or not short.isidentifier():
        return None
    file = root / short / f"{kind}_{short}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
