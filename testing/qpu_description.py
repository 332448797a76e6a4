# SPDX-License-Identifier: Apache-2.0
"""A QPU's full configuration and properties on the fake IBM, from the copy in Qiskit's package."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from testing.fake_ibm import FakeIBM
from testing.fake_ibm.replies import Reply, ok
from testing.fake_ibm.requests import Request


def describe_qpu(ibm: FakeIBM) -> None:
    """Let the fake answer what Qiskit asks about a QPU before it submits a circuit."""
    for name, file in (("configuration", "conf_fez.json"), ("properties", "props_fez.json")):
        path = ["v1", "backends", "{id}", name]
        ibm.service._routes.insert(0, ("GET", path, f"get_backend_{name}", _answer_with(file)))


def _answer_with(file: str) -> Callable[[Request], Reply]:
    spec = find_spec("qiskit_ibm_runtime")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "fake_provider" / "backends" / "fez" / file
    content = json.loads(path.read_text(encoding="utf-8"))

    def answer(_: Request) -> Reply:
        return ok(content)

    return answer
