# SPDX-License-Identifier: Apache-2.0
"""
Job results in plain Python: counts for a sampler, expectation values for an estimator, else as they came.

IBM sends three formats: its REST form (``results`` with one item for each pub), Qiskit's own encoding (for
jobs whose circuits Qiskit has encoded), and whatever other programs return.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

_QISKIT_TYPE = "__type__"


def decode_results(results: Any) -> Any:
    """
    Decode what ``job_results`` returns.

    :returns: For a sampler one ``{"counts": {register: {bits: count}}}`` for each pub, for an estimator one
        ``{"evs": ..., "stds": ...}`` (and what else came); for anything else the results themselves. A pub
        over an array of parameters gives nested lists in the array's shape.
    """
    if isinstance(results, Mapping) and _QISKIT_TYPE in results:
        return _decode_with_qiskit(results)
    pubs = results.get("results") if isinstance(results, Mapping) else None
    if not isinstance(pubs, list) or not all(_has_data(pub) for pub in pubs):
        return results
    try:
        return [_decode_pub(pub["data"]) for pub in pubs]
    except (TypeError, ValueError):  # samples of a kind never seen: better raw than lost
        return results


def to_strict_json(value: Any) -> Any:
    """The value as strict JSON: ``Infinity`` and ``NaN`` become the texts that ``float()`` reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return {key: to_strict_json(item) for key, item in value.items()}
    return [to_strict_json(item) for item in value] if isinstance(value, list) else value


def _has_data(pub: Any) -> bool:
    return isinstance(pub, Mapping) and isinstance(pub.get("data"), Mapping)


def _decode_pub(data: Mapping[str, Any]) -> dict[str, Any]:
    """One pub: its registers are counted, all other fields (``evs``, ``stds``, ...) stay as they are."""
    decoded: dict[str, Any] = {}
    for name, field in data.items():
        if isinstance(field, Mapping) and isinstance(field.get("samples"), list):
            decoded.setdefault("counts", {})[name] = _count(field["samples"], _width(field))
        else:
            decoded[name] = field
    return decoded


def _width(register: Mapping[str, Any]) -> int:
    """The register's number of bits: told, or else that of the largest sample."""
    told = register.get("num_bits")
    if isinstance(told, int) and told > 0:
        return told
    return max((_largest(register["samples"])).bit_length(), 1)


def _largest(samples: Any) -> int:
    if isinstance(samples, list):
        return max((_largest(sample) for sample in samples), default=0)
    return int(samples, 16)


def _count(samples: list[Any], bits: int) -> Any:
    """Counts of bit strings, most significant bit first; nested as the samples are."""
    if any(isinstance(sample, list) for sample in samples):
        return [_count(sample, bits) for sample in samples]
    counts = Counter(int(sample, 16) for sample in samples)
    return {f"{sample:0{bits}b}": count for sample, count in sorted(counts.items())}


def _decode_with_qiskit(results: Mapping[str, Any]) -> Any:
    """Qiskit's encoding is Qiskit's to read: who sends circuits in it has Qiskit. Else it stays as it is."""
    try:
        from qiskit_ibm_runtime import RuntimeDecoder
    except ImportError:
        return results
    try:
        decoded = json.loads(json.dumps(results), cls=RuntimeDecoder)
        return [_decode_pub_of_qiskit(pub.data) for pub in decoded]
    except Exception:  # noqa: BLE001  # of what kind ever: better raw than lost
        return results


def _decode_pub_of_qiskit(data: Any) -> dict[str, Any]:
    plain_data: dict[str, Any] = {}
    for name, field in data.items():
        if hasattr(field, "get_counts"):
            plain_data.setdefault("counts", {})[name] = _counts_of(field)
        else:
            plain_data[name] = field.tolist() if hasattr(field, "tolist") else field
    return plain_data


def _counts_of(bits: Any) -> Any:
    """A register of Qiskit's, over an array of parameters or not."""
    if not bits.shape:
        return dict(sorted(bits.get_counts().items()))
    return [_counts_of(bits[index]) for index in range(bits.shape[0])]
