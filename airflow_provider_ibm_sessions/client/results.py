# SPDX-License-Identifier: Apache-2.0
"""
Decode the results of jobs into strict JSON: counts for a sampler, expectation values for an estimator.

IBM sends plain JSON (``results`` with one item for each pub), Qiskit's own encoding (for jobs that were
submitted with ``support_qiskit``), and tensors (the executor, the noise learner). All are read without
Qiskit, but for primitives that run on the executor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_ibm_sessions.client._results.arrays import (
    Array,
    MemoryBudget,
    check_expansion,
    read_shape,
)
from airflow_provider_ibm_sessions.client._results.encoding import member, to_plain, type_of, value_of
from airflow_provider_ibm_sessions.client._results.primitives import (
    build_primitive_result,
    decode_executor,
    decode_primitive_result,
    is_post_processed,
    is_primitive_result,
    plain_noise,
    plain_object,
    plain_program,
    read_array,
    read_bits,
    read_fields,
    result_type,
)
from airflow_provider_ibm_sessions.client._results.registers import Register, joint_counts
from airflow_provider_ibm_sessions.client.enums import ResultDetail
from airflow_provider_ibm_sessions.client.errors import BadResponseError, IBMQuantumError
from airflow_provider_ibm_sessions.client.models.base import single_line
from airflow_provider_ibm_sessions.client.storable import to_storable
from airflow_provider_ibm_sessions.client.validation import validate_choice

if TYPE_CHECKING:
    from qiskit.primitives import PrimitiveResult

Format = Literal["sampler", "estimator", "executor", "noise-learner", "calibrator", "raw"]

_MAX_DEPTH: Final = 100
"""Levels of nesting. IBM's results have less than 20; XCom fails somewhere between 300 and 1,000."""

_PUB_TYPES: Final = ("SamplerPubResult", "EstimatorPubResult", "PubResult")
_MAX_ERRORS: Final = 3
_MAX_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class DecodedResults:
    """
    The results of a job as strict JSON.

    :param format: Which of these ``results`` is:

        ``sampler``
            a list with ``counts`` (per register), ``joint_counts`` (over all registers, the first one's bits
            on the right, as ``join_data`` gives them), ``num_shots`` and ``metadata`` for each pub; with
            ``detail="memory"`` also ``memory``, the bits of each shot by register. Fields that are no bits,
            such as kerneled measurements, stand in ``data``;
        ``estimator``
            a list with ``evs``, ``stds``, what else IBM sends, and ``metadata`` for each pub;
        ``executor``, ``noise-learner``, ``calibrator``
            the document of IBM's schema, its tensors as nested lists;
        ``raw``
            IBM's body. ``error`` says why, unless it was asked for.

        A pub over an array of parameters has nested lists in the array's shape. Complex numbers are
        ``[re, im]``, infinite ones strings. A pub that cannot be decoded is ``{"error": ..., "raw": ...}``.
    :param metadata: What IBM says about the job as a whole; None for formats that are a document.
    :param error: What could not be decoded, and why.
    """

    format: Format
    results: Any
    metadata: Any = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all of it as one JSON object, without what is None."""
        fields = {"format": self.format, "results": self.results}
        optional = {"metadata": self.metadata, "error": self.error}
        return fields | {name: value for name, value in optional.items() if value is not None}


def decode_results(raw: Any, *, detail: str = "counts") -> DecodedResults:
    """
    Decode what ``job_results`` returns, whatever it is; ``error`` says what of it is unreadable.

    :param detail: One of :class:`ResultDetail`.
    :raises ConfigurationError: If ``detail`` is none of them.
    """
    if validate_choice(detail, ResultDetail, "detail") == ResultDetail.RAW:
        return _raw(raw)
    if _is_deeper(raw, _MAX_DEPTH):
        return _raw(raw)
    budget = MemoryBudget()
    try:
        if isinstance(raw, Mapping):
            if isinstance(raw.get("results"), list):
                fields = [_rest_fields(pub) for pub in raw["results"]]
                return _decode_pubs(raw["results"], fields, _read_rest, raw.get("metadata"), detail, budget)
            if type_of(raw) == "PrimitiveResult":
                value = value_of(raw, "PrimitiveResult")
                pubs = member(value, "pub_results", list)
                fields = [_encoded_fields(pub) for pub in pubs]
                metadata = to_plain(member(value, "metadata", Mapping), budget)
                return _decode_pubs(pubs, fields, _read_encoded, metadata, detail, budget)
            if is_post_processed(raw):
                return _decode_executor(raw, detail, budget)
            if document := _format_of_document(raw):
                return DecodedResults(document, to_plain(raw.get("__value__", raw), budget))
    except IBMQuantumError as error:
        return _raw(raw, str(error))
    return _raw(raw, "these results are of no format that is known here")


def raw_to_primitive_result(raw: Any) -> PrimitiveResult:
    """
    Return the results of a sampler or an estimator as Qiskit's own object.

    :param raw: What ``job_results`` returns, in any of IBM's formats.
    :raises ConfigurationError: If Qiskit is not installed.
    :raises BadResponseError: If they are the results of another program, or cannot be decoded.
    """
    if _is_deeper(raw, _MAX_DEPTH):
        raise BadResponseError(f"these results are nested more than {_MAX_DEPTH} levels deep")
    if isinstance(raw, Mapping) and isinstance(raw.get("results"), list):
        pubs = [_read_rest(pub, MemoryBudget()) for pub in raw["results"]]
        return build_primitive_result(
            [(pub.registers, pub.values, pub.metadata) for pub in pubs], raw.get("metadata") or {}
        )
    if isinstance(raw, Mapping) and is_post_processed(raw):
        result = decode_executor(raw)
        if is_primitive_result(result):
            return result
        raise BadResponseError(f"these results are no PrimitiveResult, but {type(result).__name__}")
    return decode_primitive_result(raw)


def check_for_qiskit(body: bytes) -> None:
    """
    Refuse a response whose compressed parts are larger than Qiskit, which decodes them all, should be given.

    :param body: The response; Qiskit has errors of its own for what is no JSON.
    :raises BadResponseError: If they are, or it is nested too deep to be read.
    """
    try:
        raw = json.loads(body)
    except ValueError:
        return
    except RecursionError as error:
        raise BadResponseError("the response is nested too deep to be read") from error
    check_expansion(raw, allow_circuits=True)


def to_plain_result(value: Any) -> Any:
    """
    Return one of Qiskit's results in the form of :func:`decode_results`; other values as they are.

    A ``PrimitiveResult`` becomes a mapping of ``format``, ``results`` and ``metadata``, the result of an
    executor or of a noise learner (the third) one of ``format`` and ``results``; a ``PubResult`` the mapping
    of one pub; a ``DataBin`` the same without ``metadata``; a ``BitArray`` its counts; an array of NumPy's
    nested lists; a number of NumPy's, or a complex one, plain numbers.

    :raises ConfigurationError: If Qiskit is not installed.
    :raises BadResponseError: If an array holds what is neither number nor string, or too much.
    """
    budget = MemoryBudget()
    if isinstance(value, complex):
        return plain_object(complex(value), budget)
    kind = result_type(value)
    if kind == "PrimitiveResult":
        return _plain_primitive_result(value, "counts", budget).to_json()
    if kind == "QuantumProgramResult":
        return DecodedResults("executor", plain_program(value, budget)).to_json()
    if kind == "NoiseLearnerV3Results":
        return DecodedResults("noise-learner", plain_noise(value, budget)).to_json()
    if kind in ("PubResult", "DataBin"):
        data, metadata = (value.data, value.metadata) if kind == "PubResult" else (value, {})
        pub = _plain_pub(data, metadata, budget)
        report = pub.report("estimator" if "evs" in pub.values else "sampler", "counts", budget)
        return report if kind == "PubResult" else {k: v for k, v in report.items() if k != "metadata"}
    if kind == "BitArray":
        return read_bits(value, budget).counts(budget)
    return read_array(value, budget).to_json(budget) if kind == "array" else value


def to_strict_json(value: Any) -> Any:
    """
    Return the value as strict JSON that XCom and databases take; see :mod:`.storable`.

    Works at any depth of nesting, where a recursive function would fail.
    """
    top = [value]
    pending: list[Any] = [top]
    while pending:
        container = pending.pop()
        items: Iterable[tuple[Any, Any]]
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, item in items:
            if isinstance(item, Mapping):
                container[key] = {to_storable(name): value for name, value in item.items()}
                pending.append(container[key])
            elif isinstance(item, list):
                container[key] = item.copy()
                pending.append(container[key])
            else:
                container[key] = to_storable(item)
    return top[0]


@dataclass(frozen=True, slots=True)
class _Pub:
    """
    One pub in either encoding.

    :param values: All fields that are no registers, as strict JSON.
    """

    registers: dict[str, Register]
    values: dict[str, Any]
    metadata: Any
    num_shots: int | None = None

    def report(self, kind: Format, detail: str, budget: MemoryBudget) -> dict[str, Any]:
        """Return it as strict JSON."""
        if kind == "estimator":
            return {**self.values, "metadata": self.metadata}
        report: dict[str, Any] = {}
        if self.registers:
            report["counts"] = {name: each.counts(budget) for name, each in self.registers.items()}
            # The same object where there is one register only: a million counts take 200 MB.
            alone = next(iter(report["counts"].values())) if len(self.registers) == 1 else None
            report["joint_counts"] = alone or joint_counts(list(self.registers.values()), budget)
            if detail == "memory":
                report["memory"] = {name: each.memory(budget) for name, each in self.registers.items()}
        if self.values:
            report["data"] = self.values
        return {**report, "num_shots": self.num_shots, "metadata": self.metadata}


def _decode_pubs(
    pubs: list[Any],
    fields: list[Mapping[str, Any]],
    read: Callable[[Any, MemoryBudget], _Pub],
    metadata: Any,
    detail: str,
    budget: MemoryBudget,
) -> DecodedResults:
    """Decode pub by pub, so that an unreadable one takes no other with it."""
    kind = _kind_of(fields)
    reports: list[dict[str, Any]] = []
    errors: list[str] = []
    for index, pub in enumerate(pubs):
        try:
            reports.append(read(pub, budget).report(kind, detail, budget))
        except BadResponseError as error:
            errors.append(f"pub {index}: {error}")
            reports.append({"error": str(error), "raw": to_strict_json(pub)})
    more = len(errors) - _MAX_ERRORS
    problem = "; ".join(errors[:_MAX_ERRORS]) + (f"; and {more} more" if more > 0 else "")
    return DecodedResults(kind, reports, to_strict_json(metadata), problem or None)


def _kind_of(fields: list[Mapping[str, Any]]) -> Format:
    """Return whether these are the fields of an estimator's pubs or of a sampler's."""
    if any("evs" in each for each in fields):
        return "estimator"
    values = [value for each in fields for value in each.values()]
    if not fields or any(
        isinstance(value, list) or type_of(value) or (isinstance(value, Mapping) and "samples" in value)
        for value in values
    ):
        return "sampler"
    raise BadResponseError("no pub of these results holds samples or expectation values")


def _rest_fields(pub: Any) -> Mapping[str, Any]:
    data = pub.get("data") if isinstance(pub, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def _encoded_fields(pub: Any) -> Mapping[str, Any]:
    try:
        data = value_of(member(value_of(pub, *_PUB_TYPES), "data", Mapping), "DataBin")
        return dict(member(data, "fields", Mapping))
    except BadResponseError:
        return {}


def _read_rest(pub: Any, budget: MemoryBudget) -> _Pub:
    registers: dict[str, Register] = {}
    values: dict[str, Any] = {}
    for name, field in _members(member(pub, "data", Mapping)):
        if isinstance(field, Mapping) and isinstance(field.get("samples"), list):
            with _naming(name):
                registers[name] = Register.from_samples(field["samples"], field.get("num_bits"), budget)
        else:
            values[name] = to_strict_json(field)
    num_shots = next((register.num_shots for register in registers.values()), None)
    return _Pub(registers, values, to_strict_json(pub.get("metadata") or {}), num_shots)


def _read_encoded(pub: Any, budget: MemoryBudget) -> _Pub:
    value = value_of(pub, *_PUB_TYPES)
    data = value_of(member(value, "data", Mapping), "DataBin")
    registers: dict[str, Register] = {}
    arrays: dict[str, Array] = {}
    values: dict[str, Any] = {}
    for name, field in _members(member(data, "fields", Mapping)):
        if type_of(field) == "BitArray":
            with _naming(name):
                bits = value_of(field, "BitArray")
                array = Array.from_npy(value_of(member(bits, "array", Mapping), "ndarray"), budget)
                registers[name] = Register.from_bit_array(array, bits.get("num_bits"))
        elif type_of(field) == "ndarray" and isinstance(value_of(field, "ndarray"), str):
            arrays[name] = Array.from_npy(value_of(field, "ndarray"), budget)
        else:
            values[name] = to_plain(field, budget)
    values |= {name: array.to_json(budget) for name, array in arrays.items()}
    metadata = to_plain(value.get("metadata") or {}, budget)
    dimensions = len(read_shape(data.get("shape") or ()))
    return _Pub(registers, values, metadata, _shots(registers, arrays, dimensions))


def _members(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((to_storable(name), field) for name, field in fields.items())


@contextmanager
def _naming(register: str) -> Iterator[None]:
    """Put the name of a register before what is wrong with it."""
    try:
        yield
    except BadResponseError as error:
        raise BadResponseError(f"register {single_line(register)[:_MAX_NAME]}: {error}") from error


def _shots(registers: Mapping[str, Register], arrays: Mapping[str, Array], dimensions: int) -> int | None:
    """Return the number of shots; None where they have been averaged."""
    for register in registers.values():
        return register.num_shots
    for array in arrays.values():
        if len(array.shape) == dimensions + 2:  # the sweep's, the shots, the bits
            return array.shape[dimensions]
    return None


def _decode_executor(raw: Mapping[str, Any], detail: str, budget: MemoryBudget) -> DecodedResults:
    """Decode tensors of the executor that stand for the results of another primitive."""
    result = decode_executor(raw)
    if hasattr(result, "to_pauli_lindblad_maps"):
        return DecodedResults("noise-learner", plain_noise(result, budget))
    if not is_primitive_result(result):  # of a role that this Qiskit does not know
        return DecodedResults("executor", to_plain(raw, budget))
    return _plain_primitive_result(result, detail, budget)


def _plain_primitive_result(result: Any, detail: str, budget: MemoryBudget) -> DecodedResults:
    """Return Qiskit's ``PrimitiveResult`` as strict JSON."""
    pubs = [_plain_pub(pub.data, pub.metadata, budget) for pub in result]
    kind: Format = "estimator" if any("evs" in pub.values for pub in pubs) else "sampler"
    reports = [pub.report(kind, detail, budget) for pub in pubs]
    return DecodedResults(kind, reports, plain_object(result.metadata, budget))


def _plain_pub(data: Any, metadata: Any, budget: MemoryBudget) -> _Pub:
    """Read Qiskit's ``DataBin``."""
    registers, arrays = read_fields(data, budget)
    values = {name: array.to_json(budget) for name, array in arrays.items()}
    shots = _shots(registers, arrays, len(data.shape))
    return _Pub(registers, values, plain_object(metadata, budget), shots)


def _format_of_document(raw: Mapping[str, Any]) -> Format | None:
    """Return the format of results that are no pubs, by the members that IBM's schemas require."""
    if type_of(raw) == "NoiseLearnerResult":
        return "noise-learner"
    if isinstance(raw.get("schema_version"), str) and raw.keys() >= {"start", "stop"}:
        return "calibrator"
    items = raw.get("data")
    if not isinstance(items, list):
        return None
    if "schema_version" not in raw:
        # Layers of the first noise learner, as objects or, before 2025, as pairs.
        learned = bool(items) and all(type_of(item) == "_json" or isinstance(item, list) for item in items)
        return "noise-learner" if learned and "metadata" in raw else None
    if items and all(isinstance(item, Mapping) and "generators_sparse" in item for item in items):
        return "noise-learner"
    if all(isinstance(item, Mapping) and isinstance(item.get("results"), Mapping) for item in items):
        return "executor"
    return None


def _raw(raw: Any, error: str | None = None) -> DecodedResults:
    """Return IBM's body; as a JSON string if it is nested too deep for most that reads it."""
    strict = to_strict_json(raw)
    if not _is_deeper(raw, _MAX_DEPTH):
        return DecodedResults("raw", strict, error=error)
    problem = f"these results are nested more than {_MAX_DEPTH} levels deep: given as a JSON string"
    try:
        return DecodedResults("raw", json.dumps(strict), error=problem)
    except RecursionError:
        return DecodedResults("raw", None, error="these results are nested too deep to be written as JSON")


def _is_deeper(value: Any, most: int) -> bool:
    """Return True if a value is nested in more levels than these."""
    level = [value]
    for _ in range(most + 1):
        if not level:
            return False
        level = [
            item
            for container in level
            if isinstance(container, Mapping | list)
            for item in (container.values() if isinstance(container, Mapping) else container)
            if isinstance(item, Mapping | list)
        ]
    return bool(level)
