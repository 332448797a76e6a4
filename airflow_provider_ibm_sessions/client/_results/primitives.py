# SPDX-License-Identifier: Apache-2.0
"""
Results as Qiskit's own objects. Everything here needs ``qiskit-ibm-runtime``, and imports it when called.

Jobs of ``executor_sampler.Sampler`` and ``executor_estimator.Estimator`` run as the program ``executor``;
how its tensors become counts and expectation values is known to Qiskit alone, and changes with its releases.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_ibm_sessions.client._results.arrays import Array, MemoryBudget, check_expansion
from airflow_provider_ibm_sessions.client._results.encoding import to_plain
from airflow_provider_ibm_sessions.client._results.registers import Register
from airflow_provider_ibm_sessions.client.errors import BadResponseError, ConfigurationError
from airflow_provider_ibm_sessions.client.models.base import single_line
from airflow_provider_ibm_sessions.client.storable import to_storable

if TYPE_CHECKING:
    from qiskit.primitives import PrimitiveResult

_EXECUTOR: Final = "executor"


def is_post_processed(raw: Mapping[str, Any]) -> bool:
    """Return True for tensors of the executor that stand for the results of another primitive."""
    return isinstance(raw.get("semantic_role"), str) and isinstance(raw.get("data"), list)


def decode_executor(raw: Any) -> Any:
    """
    Return what Qiskit makes of the executor's results: a ``PrimitiveResult``, or the learned noise.

    :raises ConfigurationError: If Qiskit, or a library that it needs for this, is not installed.
    :raises BadResponseError: If Qiskit cannot decode them.
    """
    check_expansion(raw)
    try:
        from qiskit_ibm_runtime.decoders.defaults import DEFAULT_DECODERS
    except ImportError as error:
        raise _missing(error) from error
    result: Any = json.dumps(raw)
    decoders: Any = DEFAULT_DECODERS[_EXECUTOR]
    try:
        if not isinstance(decoders, list | tuple):  # qiskit-ibm-runtime 0.50 has one that does all
            return decoders.decode(result)
        for decoder in decoders:
            if decoder.is_applicable(result):
                result = decoder.decode(result)
    except ImportError as error:
        raise _missing(error) from error
    except Exception as error:  # Qiskit documents none
        raise BadResponseError(f"Qiskit cannot decode these results: {_short(error)}") from error
    return result


def is_primitive_result(result: Any) -> bool:
    """Return True for Qiskit's ``PrimitiveResult``."""
    from qiskit.primitives import PrimitiveResult

    return isinstance(result, PrimitiveResult)


def decode_primitive_result(raw: Any) -> PrimitiveResult:
    """
    Return what Qiskit makes of results in its own encoding.

    :raises ConfigurationError: If Qiskit is not installed.
    :raises BadResponseError: If they are no ``PrimitiveResult``, or Qiskit cannot decode them.
    """
    check_expansion(raw)
    try:
        from qiskit.primitives import PrimitiveResult
        from qiskit_ibm_runtime import RuntimeDecoder
    except ImportError as error:
        raise _missing(error) from error
    try:
        result = json.loads(json.dumps(raw), cls=RuntimeDecoder)
    except Exception as error:  # Qiskit documents none
        raise BadResponseError(f"Qiskit cannot decode these results: {_short(error)}") from error
    if isinstance(result, PrimitiveResult):
        return result
    raise BadResponseError(f"these results are no PrimitiveResult, but of type {type(result).__name__}")


def build_primitive_result(
    pubs: list[tuple[dict[str, Register], dict[str, Any], Any]], metadata: Any
) -> PrimitiveResult:
    """
    Build Qiskit's object from results in plain JSON.

    :param pubs: Of each pub its registers, its other fields, and its metadata.
    :raises ConfigurationError: If Qiskit is not installed.
    :raises BadResponseError: If Qiskit refuses a field.
    """
    try:
        import numpy
        from qiskit.primitives import BitArray, DataBin, PrimitiveResult, PubResult, SamplerPubResult
    except ImportError as error:
        raise _missing(error) from error

    def bit_array(register: Register) -> Any:
        shape = (*register.shape, register.num_shots, -(-register.num_bits // 8))
        # A copy: what numpy makes of bytes cannot be written to.
        return BitArray(numpy.frombuffer(register.data, numpy.uint8).reshape(shape).copy(), register.num_bits)

    built = []
    try:
        for registers, values, pub_metadata in pubs:
            fields = {name: bit_array(register) for name, register in registers.items()}
            fields |= {name: numpy.array(value) for name, value in values.items()}
            leading = next(iter(registers.values())).shape if registers else numpy.shape(values.get("evs", 0))
            kind = SamplerPubResult if registers else PubResult
            built.append(kind(DataBin(shape=leading, **fields), metadata=pub_metadata))
    except Exception as error:  # Qiskit documents none
        raise BadResponseError(f"Qiskit refuses these results: {_short(error)}") from error
    return PrimitiveResult(built, metadata=metadata)


def result_type(value: Any) -> str | None:
    """
    Return which of Qiskit's results a value is, ``array`` for NumPy's arrays and numbers, or None.

    :raises ConfigurationError: If Qiskit is not installed.
    """
    try:
        import numpy
        from qiskit.primitives import BitArray, DataBin, PrimitiveResult, PubResult
        from qiskit_ibm_runtime.results import NoiseLearnerV3Results, QuantumProgramResult
    except ImportError as error:
        raise _missing(error) from error
    if isinstance(value, numpy.ndarray | numpy.generic):
        return "array"
    kinds = (PrimitiveResult, PubResult, DataBin, BitArray, QuantumProgramResult, NoiseLearnerV3Results)
    return next((kind.__name__ for kind in kinds if isinstance(value, kind)), None)


def read_array(values: Any, budget: MemoryBudget) -> Array:
    """Return an array of NumPy's."""
    import numpy

    values = numpy.asarray(values)
    budget.take(values.nbytes)
    return Array(values.dtype.str, values.shape, values.tobytes())


def read_bits(bits: Any, budget: MemoryBudget) -> Register:
    """Return the shots of Qiskit's ``BitArray``."""
    return Register.from_bit_array(read_array(bits.array, budget), bits.num_bits)


def read_fields(data: Any, budget: MemoryBudget) -> tuple[dict[str, Register], dict[str, Array]]:
    """Return the registers and the arrays of Qiskit's ``DataBin``."""
    from qiskit.primitives import BitArray

    registers = {
        to_storable(name): read_bits(field, budget)
        for name, field in data.items()
        if isinstance(field, BitArray)
    }
    return registers, {
        to_storable(name): read_array(field, budget)
        for name, field in data.items()
        if not isinstance(field, BitArray)
    }


def plain_object(value: Any, budget: MemoryBudget) -> Any:
    """Return an object of Qiskit's as strict JSON, in the form of :func:`to_plain`."""
    if isinstance(value, Mapping):
        return {to_storable(str(key)): plain_object(item, budget) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_object(item, budget) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        return {name: plain_object(getattr(value, name), budget) for name in fields}
    if isinstance(value, complex):
        return to_plain([value.real, value.imag], budget)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str | int | float) or value is None:
        return to_plain(value, budget)
    from qiskit_ibm_runtime import RuntimeEncoder

    try:
        return to_plain(json.loads(json.dumps(value, cls=RuntimeEncoder)), budget)
    except (TypeError, ValueError):
        return to_storable(str(value))


def plain_program(result: Any, budget: MemoryBudget) -> dict[str, Any]:
    """Return Qiskit's ``QuantumProgramResult`` under the names of IBM's schema of the executor."""
    data = [
        {
            "results": {
                to_storable(name): read_array(values, budget).to_json(budget) for name, values in item.items()
            },
            "metadata": plain_object(item.metadata, budget),
        }
        for item in result
    ]
    outer = {name: plain_object(getattr(result, name), budget) for name in ("metadata", "passthrough_data")}
    return {"data": data, **outer}


def plain_noise(layers: Any, budget: MemoryBudget) -> dict[str, Any]:
    """Return Qiskit's ``NoiseLearnerV3Results`` under the names of IBM's schema of the noise learner."""
    data = []
    for layer in layers:
        noise = layer.to_pauli_lindblad_map()
        terms = noise.to_sparse_list()
        data.append(
            {
                "generators_sparse": [[[paulis, list(qubits)]] for paulis, qubits, _ in terms],
                "num_qubits": noise.num_qubits,
                "rates": [float(rate) for *_, rate in terms],
                "metadata": plain_object(layer.metadata, budget),
            }
        )
    return {"data": data}


def _short(error: Exception) -> str:
    return single_line(f"{type(error).__name__}: {error}")[:300]


def _missing(error: ImportError) -> ConfigurationError:
    return ConfigurationError(
        f"Qiskit is needed for these results: pip install 'airflow-provider-ibm-sessions[qiskit]' ({error})"
    )
