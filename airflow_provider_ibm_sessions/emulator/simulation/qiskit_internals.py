# SPDX-License-Identifier: Apache-2.0
"""
The parts of qiskit-ibm-runtime that are used although they are not in its documentation.

They are what IBM's client itself applies before it submits: the check that circuits fit the backend, and the
decoders of executor programs.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any


def _load(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        found = version("qiskit-ibm-runtime")
        raise ImportError(
            f"qiskit-ibm-runtime {found} has no {module}.{name}: the emulator needs another version of it"
        ) from None


validate_isa_circuits = _load("qiskit_ibm_runtime.utils.validations", "validate_isa_circuits")
validate_rzz_pubs = _load("qiskit_ibm_runtime.utils.validations", "validate_rzz_pubs")
EXECUTOR_DECODERS = _load(
    "qiskit_ibm_runtime.quantum_program.params_converters", "QUANTUM_PROGRAM_PARAMS_CONVERTERS"
)
