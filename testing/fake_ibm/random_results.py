# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.emulator.service.records import JobRecord

DEFAULT_SHOTS = 4096
_REGISTER = re.compile(r"\bbit\s*\[\s*(\d+)\s*\]\s*(\w+)\s*;")


def random_results(job: JobRecord) -> Any:
    """Return a body of GET /v1/jobs/{id}/results: the same parameters always give the same numbers."""
    dice = random.Random(hashlib.sha256(json.dumps(job.params, sort_keys=True).encode()).digest())
    if job.program_id == "sampler":
        encoded = bool(job.params.get("support_qiskit"))
        return _sampled_for_qiskit(job.params, dice) if encoded else _sampled(job.params, dice)
    if job.program_id == "estimator":
        return {"results": [_estimate(pub, dice) for pub in job.params["pubs"]], "metadata": {"version": 2}}
    return {"schema_version": "v0.1", "data": [{"value": dice.random()}]}


def _sampled(params: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    def one(pub: Any) -> dict[str, Any]:
        shots = _shots(pub, params)
        data = {
            name: {"samples": [hex(dice.getrandbits(bits)) for _ in range(shots)], "num_bits": bits}
            for name, bits in _registers(pub)
        }
        return {"data": data, "metadata": {"circuit_metadata": {}}}

    return {"results": [one(pub) for pub in params["pubs"]], "metadata": {"version": 2}}


def _shots(pub: Any, params: dict[str, Any]) -> int:
    """Return the pub's own shots, else the job's, else the options' default."""
    own = pub[2] if isinstance(pub, list) and len(pub) > 2 else None
    default = params.get("options", {}).get("default_shots") or DEFAULT_SHOTS
    return int(own or params.get("shots") or default)


def _registers(pub: Any) -> list[tuple[str, int]]:
    """Return name and width of the classical registers of an OpenQASM 3 text; else one of 2 bits."""
    circuit = pub[0] if isinstance(pub, list) and pub else pub
    found = _REGISTER.findall(circuit) if isinstance(circuit, str) else []
    return [(name, int(bits)) for bits, name in found] or [("meas", 2)]


def _estimate(pub: Any, dice: random.Random) -> dict[str, Any]:
    observables = pub[1] if isinstance(pub, list) and len(pub) > 1 else "Z"
    many = len(observables) if isinstance(observables, list) else 0
    numbers = [dice.uniform(-1, 1) for _ in range(many or 1)]
    errors = [0.01] * len(numbers)
    data = {"evs": numbers, "stds": errors, "ensemble_standard_error": errors}
    if not many:
        data = {name: values[:1] for name, values in data.items()}
    return {"data": data, "metadata": {"shots": DEFAULT_SHOTS, "target_precision": 0.015625}}


def _sampled_for_qiskit(params: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """Return what support_qiskit gives: the object graph of qiskit-ibm-runtime's encoder."""
    pubs = [_pub_for_qiskit(pub, params, dice) for pub in params["pubs"]]
    return _typed("PrimitiveResult", {"pub_results": pubs, "metadata": {"version": 2}})


def _pub_for_qiskit(pub: Any, params: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    shots, registers = _shots(pub, params), _registers(pub)
    fields = {name: _bit_array(bits, shots, dice) for name, bits in registers}
    kinds = ["<class 'qiskit.primitives.containers.bit_array.BitArray'>"] * len(fields)
    names = list(fields)
    data = {"field_names": names, "field_types": kinds, "shape": [], "fields": fields}
    return _typed("SamplerPubResult", {"data": _typed("DataBin", data), "metadata": {"circuit_metadata": {}}})


def _bit_array(bits: int, shots: int, dice: random.Random) -> dict[str, Any]:
    width = (bits + 7) // 8
    raw = b"".join(dice.getrandbits(bits).to_bytes(width, "big") for _ in range(shots))
    return _typed("BitArray", {"array": _typed("ndarray", _npy(raw, shots, width)), "num_bits": bits})


def _npy(raw: bytes, rows: int, columns: int) -> str:
    """Return bytes as a compressed NumPy file (format 1.0, uint8), in base64."""
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    file = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + raw
    return base64.standard_b64encode(zlib.compress(file)).decode()


def _typed(name: str, value: Any) -> dict[str, Any]:
    return {"__type__": name, "__value__": value}
