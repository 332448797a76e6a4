# SPDX-License-Identifier: Apache-2.0
"""
IBM's programs ``sampler``, ``estimator`` and ``executor``, computed with Aer.

Aer's matrix product states are exact here, and cheap for circuits as wide as a QPU of which few qubits are
entangled.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import lru_cache
from typing import Any, Final

import numpy as np
from ibm_quantum_schemas.common import CompressedTensorModel
from qiskit import QuantumCircuit, qasm3, qpy
from qiskit.circuit import Parameter
from qiskit.circuit.library import RXGate, RZZGate
from qiskit.primitives.containers import BitArray, DataBin, PrimitiveResult, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.transpiler import Target
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import EstimatorV2, SamplerV2
from qiskit_ibm_runtime import Executor, RuntimeDecoder, RuntimeEncoder, fake_provider
from qiskit_ibm_runtime.exceptions import IBMInputValueError

from airflow_provider_ibm_sessions.emulator.service import snapshots
from airflow_provider_ibm_sessions.emulator.service.reason_codes import (
    INPUT_INVALID,
    INTERNAL_ERROR,
    NOT_ISA,
    TWIRLED_FRACTIONAL,
    reason_of,
)
from airflow_provider_ibm_sessions.emulator.service.records import Outcome

from .qiskit_internals import EXECUTOR_DECODERS, validate_isa_circuits, validate_rzz_pubs

DEFAULT_SHOTS: Final = 4096
DEFAULT_PRECISION: Final = 0.015625
FAILED_SECONDS: Final = 2.0
"""QPU seconds that IBM was seen to charge for a job that fails on its input after queueing."""
_AER: Final = {
    "method": "matrix_product_state",
    # Two to five times as fast as Aer's default, measured on Bell pairs, GHZ states and 156 measured qubits.
    "mps_sample_measure_algorithm": "mps_probabilities",
}


_FRACTIONAL_GATES: Final = {"rx": RXGate(Parameter("theta")), "rzz": RZZGate(Parameter("theta"))}


class InputError(Exception):
    """A job's parameters that cannot be run; ``code`` is IBM's reason code."""

    def __init__(self, message: str, code: int = INPUT_INVALID) -> None:
        super().__init__(message)
        self.code = code


def run(program_id: str, backend: str, params: dict[str, Any], seed: int | None) -> Outcome:
    """
    Compute a job; whatever is wrong with it becomes a failed outcome.

    :param seed: Seed of the simulation, unless the job's options bring one.
    """
    try:
        program = _PROGRAMS.get(program_id)
        if program is None:
            raise InputError(
                f"The emulator runs {', '.join(_PROGRAMS)}, not {program_id!r}: without noise there is "
                "nothing to learn, and nothing to calibrate"
            )
        results, executions = program(params, backend, seed)
    except InputError as error:
        return Outcome.failed(error.code, str(error), FAILED_SECONDS)
    except IBMInputValueError as error:
        # IBM's client goes on about a deadline of 2024 and where the documentation is.
        reason = error.message.partition(" Circuits that do not match")[0]
        return Outcome.failed(NOT_ISA, reason, FAILED_SECONDS)
    except Exception as error:  # noqa: BLE001  # a job must end, whatever a library raises
        return Outcome.failed(INTERNAL_ERROR, f"Simulation failed: {type(error).__name__}: {error}")
    return Outcome(results=results, seconds=qpu_seconds(executions))


def qpu_seconds(executions: float) -> float:
    """Return the usage that IBM's documentation estimates for so many executions of circuits."""
    return 2 + 0.00035 * executions


def warm_up() -> None:
    """Run a tiny circuit, so that the first job does not wait for Aer to load."""
    text = "OPENQASM 3.0; bit[1] c; qubit[1] q; c[0] = measure q[0];"
    SamplerV2(options={"backend_options": _AER}).run([qasm3.loads(text)], shots=1).result()


def _sample(params: dict[str, Any], backend: str, seed: int | None) -> tuple[bytes, float]:
    decoded, options = _decode(params)
    if options.get("execution", {}).get("meas_type", "classified") != "classified":
        raise InputError(
            "The emulator measures classified bits only: set execution.meas_type to 'classified'"
        )
    shots = decoded.get("shots") or options.get("default_shots") or DEFAULT_SHOTS
    pubs = [_coerce(SamplerPub, pub, shots) for pub in decoded["pubs"]]
    _validate_circuits(pubs, backend, is_twirled=_twirling(options))
    sampler = SamplerV2(seed=_seed(options, seed), options={"backend_options": _AER})
    result = sampler.run(pubs).result()
    executions = sum(pub.shots * max(1, math.prod(pub.shape)) for pub in pubs)
    if params.get("support_qiskit"):
        return json.dumps(result, cls=RuntimeEncoder).encode(), executions
    registers = [{name: _plain_register(register) for name, register in pub.data.items()} for pub in result]
    return _plain_results(registers), executions


def _estimate(params: dict[str, Any], backend: str, seed: int | None) -> tuple[bytes, float]:
    decoded, options = _decode(params)
    shots = options.get("default_shots")
    precision = decoded.get("precision") or options.get("default_precision")
    precision = precision or (1 / math.sqrt(shots) if shots else DEFAULT_PRECISION)
    pubs = [_coerce(EstimatorPub, pub, precision) for pub in decoded["pubs"]]
    # From level 2 on, gates are twirled unless the options say otherwise.
    is_twirled = _twirling(options, default=decoded.get("resilience_level", 1) > 1)
    _validate_circuits(pubs, backend, is_twirled=is_twirled)
    own_seed = _seed(options, seed)
    seeded = {} if own_seed is None else {"run_options": {"seed_simulator": own_seed, "seed": own_seed}}
    computed = EstimatorV2(options={"backend_options": _AER, **seeded}).run(pubs).result()
    results = [
        DataBin(
            evs=pub.data.evs,
            stds=pub.data.stds,
            ensemble_standard_error=pub.data.stds,
            shape=pub.data.shape,
        )
        for pub in computed
    ]
    executions = sum(max(1, math.prod(pub.shape)) / pub.precision**2 for pub in pubs)
    if params.get("support_qiskit"):
        encoded = PrimitiveResult(
            [PubResult(data, pub.metadata) for data, pub in zip(results, computed, strict=True)],
            {"version": 2},
        )
        return json.dumps(encoded, cls=RuntimeEncoder).encode(), executions
    plain = [{name: np.asarray(value).tolist() for name, value in data.items()} for data in results]
    return _plain_results(plain), executions


def _execute(params: dict[str, Any], backend: str, seed: int | None) -> tuple[bytes, float]:
    version = params.get("schema_version")
    if version != "v2.0":
        raise InputError(f"The emulator runs executor programs of the schema v2.0, not {version!r}")
    try:
        sent = params["quantum_program"]
        decoder = EXECUTOR_DECODERS[version]
        # With a semantic role, Qiskit's local mode would post-process the result: the client's task.
        bare = {**params, "quantum_program": {**sent, "semantic_role": None, "passthrough_data": None}}
        program, _ = decoder.decoder(decoder.model.model_validate(bare))
        for item in program.items:
            if hasattr(item, "samplex"):
                item.samplex.finalize()
    except Exception as error:  # pydantic's, QPY's and samplomatic's errors have no common base
        raise InputError(f"The executor program cannot be read: {error}") from error
    validate_isa_circuits([item.circuit for item in program.items], _target(backend))
    executor = Executor(mode=AerSimulator(**_AER))
    if seed is not None:
        executor.options.simulator.seed_simulator = seed
    result = executor.run(program).result()
    items = [
        {
            "results": {
                name: CompressedTensorModel.from_numpy(value).model_dump(mode="json")
                for name, value in item.items()
            },
            "metadata": {"scheduler_timing": None, "stretch_values": None},
        }
        for item in result
    ]
    body = {
        "schema_version": version,
        "data": items,
        "metadata": {"chunk_timing": []},
        # Both come back as they were sent.
        "passthrough_data": sent.get("passthrough_data"),
        "semantic_role": sent.get("semantic_role"),
    }
    executions = sum(program.shots * max(1, math.prod(item.shape)) for item in program.items)
    return json.dumps(body).encode(), executions


_PROGRAMS: Final[dict[str, Callable[[dict[str, Any], str, int | None], tuple[bytes, float]]]] = {
    "sampler": _sample,
    "estimator": _estimate,
    "executor": _execute,
}


# -- input ---------------------------------------------------------------------------------------------------


def _decode(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters and their options, with Qiskit's encoded objects restored."""
    try:
        decoded = json.loads(json.dumps(params), cls=RuntimeDecoder)
    except Exception as error:  # QPY and NumPy raise errors of many kinds
        raise InputError(f"The parameters cannot be decoded: {error}") from error
    return decoded, decoded.get("options") or {}


def _coerce(kind: Any, pub: Any, default: float) -> Any:
    """Make a pub of what was sent: a circuit, or a list that begins with one."""
    parts = list(pub) if isinstance(pub, list | tuple) else [pub]
    if not parts:
        raise InputError("A pub is empty: it needs a circuit")
    parts[0] = _circuit(parts[0])
    try:
        return kind.coerce(tuple(parts), default)
    except Exception as error:  # Qiskit raises errors of many kinds for a wrong pub
        raise InputError(f"A pub cannot be read: {error}") from error


def _circuit(value: Any) -> QuantumCircuit:
    """Return the circuit: as it is, from OpenQASM 3, or from QPY in base64, compressed or not."""
    if isinstance(value, QuantumCircuit):
        return value
    if not isinstance(value, str):
        raise InputError(f"A circuit must be OpenQASM 3 or QPY in base64, not {type(value).__name__}")
    if "OPENQASM" in value or not value.strip() or ";" in value:
        said = io.StringIO()
        try:
            with redirect_stderr(said):  # the parser prints what is wrong and where
                return qasm3.loads(value)
        except Exception as error:  # the parser's errors have no common base
            detail = said.getvalue().strip() or str(error)
            raise InputError(f"The circuit is not valid OpenQASM 3: {detail}") from error
    try:
        raw = base64.b64decode(value, validate=True)
        raw = raw if raw.startswith(b"QISKIT") else zlib.decompress(raw)
        (circuit,) = qpy.load(io.BytesIO(raw))
    except (binascii.Error, zlib.error, ValueError, qpy.QpyError) as error:
        raise InputError(f"The circuit is neither OpenQASM 3 nor QPY in base64: {error}") from error
    return circuit


def _validate_circuits(pubs: list[Any], backend: str, *, is_twirled: bool) -> None:
    """Apply the checks that the QPU's compiler would: instructions, connectivity, angles."""
    validate_isa_circuits([pub.circuit for pub in pubs], _target(backend))
    validate_rzz_pubs(pubs)
    if is_twirled and any(_FRACTIONAL_GATES.keys() & pub.circuit.count_ops() for pub in pubs):
        raise InputError(reason_of(TWIRLED_FRACTIONAL), TWIRLED_FRACTIONAL)


def _twirling(options: dict[str, Any], *, default: bool = False) -> bool:
    """Return whether the options ask for gates to be twirled."""
    return bool((options.get("twirling") or {}).get("enable_gates", default))


@lru_cache(maxsize=16)
def _target(backend: str) -> Target:
    name = f"fake_{backend.removeprefix('ibm_')}"
    for kind in vars(fake_provider).values():
        if getattr(kind, "backend_name", None) == name:
            target = kind().target
            for gate in (snapshots.configuration(backend) or {"gates": []})["gates"]:
                if gate["name"] in _FRACTIONAL_GATES and gate["name"] not in target.operation_names:
                    places = {tuple(qubits): None for qubits in gate["coupling_map"]}
                    target.add_instruction(_FRACTIONAL_GATES[gate["name"]], places)
            return target
    raise InputError(f"Qiskit's fake provider has no {name}")


def _seed(options: dict[str, Any], default: int | None) -> int | None:
    own = (options.get("simulator") or {}).get("seed_simulator")
    return default if own is None else int(own)


# -- output without support_qiskit ---------------------------------------------------------------------------


def _plain_register(register: BitArray) -> dict[str, Any]:
    """Return a register in IBM's REST form: a hexadecimal number for each shot, in the pub's shape."""
    rows = register.array.reshape(-1, register.array.shape[-1])
    numbers = np.array([hex(int.from_bytes(row.tobytes(), "big")) for row in rows], dtype=object)
    return {"samples": numbers.reshape(register.array.shape[:-1]).tolist(), "num_bits": register.num_bits}


def _plain_results(pubs: list[dict[str, Any]]) -> bytes:
    results = [{"data": data, "metadata": {"circuit_metadata": {}}} for data in pubs]
    return json.dumps({"results": results, "metadata": {"version": 2}}).encode()
