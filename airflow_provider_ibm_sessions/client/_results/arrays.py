# SPDX-License-Identifier: Apache-2.0
"""
Arrays as IBM sends them: NumPy files in Qiskit's encoding, tensors in the executor's.

Both are compressed, so that a small response can claim a huge array: sizes are read before the data.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.storable import storable_text
from airflow_provider_ibm_sessions.client.validation import short_repr

MAX_DECODED_BYTES: Final = 2**30
"""Memory that the decoded results of one job may take."""

_MAX_DIMENSIONS: Final = 32
_NPY_HEADER: Final = re.compile(
    rb"\x93NUMPY(?:\x01\x00.{2}|[\x02\x03]\x00.{4})"
    rb"\{'descr': '([<>|])([a-zA-Z])(\d{1,5})', 'fortran_order': (True|False), "
    rb"'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)
_NPY_HEADER_BYTES: Final = 1024
_STRUCT_FORMATS: Final = {
    "b1": "?",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "c8": "f",
    "c16": "d",
}
_TENSOR_KEYS: Final = {"data", "shape", "dtype"}
_CIRCUIT_TYPES: Final = ("QuantumCircuit", "Instruction")
_BITS_OF_BYTES: Final = [tuple(bool(byte >> place & 1) for place in range(8)) for byte in range(256)]
VALUE_BYTES: Final = 40
"""What a number in a list takes in Python, about; a pair of them takes four times as much."""
_SHORTEST_PACKED: Final = 64
"""Characters of base64 in which nothing large is compressed: zlib makes a thousand bytes of one at most."""
_LIST_BYTES: Final = 64
"""What a list takes in Python beside its values."""


class MemoryBudget:
    """The memory that may still be taken while the results of one job are decoded."""

    def __init__(self, size: int = MAX_DECODED_BYTES) -> None:
        self._left = size

    def take(self, size: int) -> None:
        """
        Reserve memory before it is used.

        :param size: Bytes.
        :raises BadResponseError: If the results would take more than :data:`MAX_DECODED_BYTES` altogether.
        """
        if size > self._left:
            raise BadResponseError(
                f"too large to decode here (more than {MAX_DECODED_BYTES:,} bytes): read it as raw"
            )
        self._left -= size


@dataclass(frozen=True, slots=True)
class Array:
    """
    An array in C order.

    :param kind: The type of its values as NumPy writes it, such as ``<f8``; ``bits`` for packed booleans.
    """

    kind: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        """Refuse types of which no list can be made, such as Python objects."""
        kind = self.kind[1:]
        if self.kind != "bits" and not kind.startswith("U") and kind not in _STRUCT_FORMATS:
            raise BadResponseError(f"an array holds values of the unknown type {short_repr(kind)}")

    @classmethod
    def from_npy(cls, text: object, budget: MemoryBudget) -> Array:
        """
        Read a NumPy file that is compressed by zlib and written in base64.

        :raises BadResponseError: If it is anything else, or holds more or less than its header says.
        """
        stream = zlib.decompressobj()
        packed = _from_base64(text)
        try:
            head = stream.decompress(packed, _NPY_HEADER_BYTES)
        except zlib.error as error:
            raise BadResponseError(f"an array is not compressed by zlib: {error}") from error
        header = _NPY_HEADER.match(head)
        if header is None:
            raise BadResponseError("an array is no NumPy file of numbers or strings")
        order, letter, width = (group.decode() for group in header.groups()[:3])
        shape = read_shape([int(size) for size in header[5].split(b",") if size.strip()])
        size = math.prod(shape) * int(width) * (4 if letter == "U" else 1)
        budget.take(size)
        data = head[header.end() :] + _inflate(stream, size - len(head) + header.end())
        if header[4] == b"True" and len(shape) > 1:
            budget.take(math.prod(length or 1 for length in shape) * VALUE_BYTES)
            data = _in_c_order(data, shape, size // (math.prod(shape) or 1))
        return cls(order + letter + width, shape, data)

    @classmethod
    def from_tensor(cls, tensor: Mapping[str, Any], budget: MemoryBudget) -> Array:
        """
        Read a tensor of the executor or the noise learner; early versions do not compress it.

        :raises BadResponseError: If it holds more or less than its shape says.
        """
        shape = read_shape(tensor["shape"])
        dtype = tensor["dtype"]
        if dtype == "bool":
            kind = "bits"
            size = -(-math.prod(shape) // 8)
        else:
            kind = re.sub(r"\d+", lambda bits: str(int(bits[0]) // 8), f"<{dtype}") if _is_name(dtype) else ""
            if kind[1:] not in _STRUCT_FORMATS:
                raise BadResponseError(f"a tensor holds values of the unknown type {short_repr(dtype)}")
            size = math.prod(shape) * int(kind[2:])
        budget.take(size)
        packed = _from_base64(tensor["data"])
        try:
            return cls(kind, shape, _inflate(zlib.decompressobj(), size, packed))
        except BadResponseError:
            if len(packed) != size:
                raise
            return cls(kind, shape, packed)

    def to_json(self, budget: MemoryBudget) -> Any:
        """Return nested lists: complex numbers as ``[re, im]``, infinite ones as strings."""
        count = math.prod(self.shape)
        kind = self.kind[1:]
        pairs = kind.startswith("c")
        budget.take(count * (VALUE_BYTES * 4 if pairs else VALUE_BYTES))
        values: list[Any]
        if self.kind == "bits":
            unpacked = chain.from_iterable(map(_BITS_OF_BYTES.__getitem__, self.data))
            values = list(islice(unpacked, count))
        elif kind.startswith("U"):
            values = self._strings(int(kind[1:]) * 4)
        else:
            order = self.kind[0].replace("|", "<")
            numbers = count * 2 if pairs else count
            values = list(struct.unpack(f"{order}{numbers}{_STRUCT_FORMATS[kind]}", self.data))
            if kind[0] in "fc" and not all(map(math.isfinite, values)):
                values = [number if math.isfinite(number) else json.dumps(number) for number in values]
        if pairs:
            values = [list(pair) for pair in zip(values[::2], values[1::2], strict=True)]
        return nest(values, self.shape, budget)

    def _strings(self, width: int) -> list[Any]:
        encoding = "utf-32-be" if self.kind[0] == ">" else "utf-32-le"
        count = math.prod(self.shape)
        try:
            return [
                storable_text(self.data[place * width : (place + 1) * width].decode(encoding).rstrip("\0"))
                for place in range(count)
            ]
        except UnicodeError as error:
            raise BadResponseError(f"an array holds a broken string: {error}") from error


def is_tensor(value: Mapping[Any, Any]) -> bool:
    """Return True for a tensor of the executor or the noise learner."""
    return value.keys() == _TENSOR_KEYS and isinstance(value["data"], str)


def read_shape(value: object) -> tuple[int, ...]:
    """Return a shape, or raise ``BadResponseError`` if it is no list of sizes."""
    if (
        isinstance(value, Sequence)
        and len(value) <= _MAX_DIMENSIONS
        and all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in value)
    ):
        return tuple(value)
    raise BadResponseError(f"{short_repr(value)} is no shape of an array")


def nest(items: list[Any], shape: tuple[int, ...], budget: MemoryBudget) -> Any:
    """
    Return items as nested lists of this shape; for the shape ``()``, the only one.

    :raises BadResponseError: If the lists are too many, as of a shape with many dimensions of size 1, or one
        that is empty in its last dimension only.
    """
    lists = 1
    for size in shape[:-1]:
        budget.take(lists * _LIST_BYTES)
        lists *= size
    budget.take(lists * _LIST_BYTES)
    if not shape:
        return items[0]
    if 0 in shape:
        empty: list[Any] = []
        for size in reversed(shape[: shape.index(0)]):
            empty = [copy.deepcopy(empty) for _ in range(size)]
        return empty
    for size in reversed(shape[1:]):
        items = [items[start : start + size] for start in range(0, len(items), size)]
    return items


def check_expansion(raw: Any, most: int = MAX_DECODED_BYTES, *, allow_circuits: bool = False) -> None:
    """
    Refuse results whose compressed parts are larger than a library should be given.

    Nothing is kept of what is decompressed here.

    :param most: Bytes, of all parts together.
    :param allow_circuits: Let circuits in, of which Qiskit makes as many qubits as they claim to have: 3 GB
        of 120 bytes.
    :raises BadResponseError: If they are larger, or hold a circuit.
    """
    pending: list[Any] = [raw]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            if not allow_circuits and value.get("__type__") in _CIRCUIT_TYPES:
                raise BadResponseError(
                    "these results hold a circuit, as none of a primitive do: read them as raw"
                )
            # A boolean takes a bit in a tensor, and a byte once it is unpacked.
            weight = 8 if value.get("dtype") == "bool" else 1
            strings = [(text, weight) for text in value.values() if isinstance(text, str)]
            pending.extend(value.values())
        elif isinstance(value, list):
            strings = [(text, 1) for text in value if isinstance(text, str)]
            pending.extend(item for item in value if isinstance(item, Mapping | list))
        else:
            continue
        for text, weight in strings:
            most -= weight * _decompressed_size(text, most // weight)
            if most < 0:
                raise BadResponseError(
                    f"too large for Qiskit to decode (more than {MAX_DECODED_BYTES:,} bytes): read it as raw"
                )


def _decompressed_size(text: str, most: int) -> int:
    """Return the size of what is compressed in a string, or just over the limit; that of the text if none."""
    if len(text) < _SHORTEST_PACKED:
        return len(text)
    try:
        packed = base64.b64decode(text)  # as the libraries read it, whatever stands between the letters
        if packed.startswith(b"PK"):  # a sparse matrix
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                return sum(member.file_size for member in archive.infolist())
        if packed[:1] and packed[0] % 16 == zlib.DEFLATED:  # as each zlib stream begins
            pending, stream, size = packed, zlib.decompressobj(), 0
            while pending and not stream.eof and size <= most:
                size += len(stream.decompress(pending, 2**20))
                pending = stream.unconsumed_tail
            return size
    except (ValueError, zlib.error, zipfile.BadZipFile):
        pass
    return len(text)


def _from_base64(text: object) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise BadResponseError(f"an array is not written in base64: {error}") from error
    raise BadResponseError(f"an array is not written in base64, but as {short_repr(text)}")


def _inflate(stream: Any, size: int, packed: bytes | None = None) -> bytes:
    """Decompress exactly so many bytes more."""
    try:
        rest = stream.unconsumed_tail if packed is None else packed
        data: bytes = stream.decompress(rest, max(size, 0) + 1)  # one more: 0 would mean no limit
    except zlib.error as error:
        raise BadResponseError(f"an array is not compressed by zlib: {error}") from error
    if len(data) != size or not stream.eof:
        raise BadResponseError("an array holds more or less than its shape says")
    return data


def _in_c_order(data: bytes, shape: tuple[int, ...], width: int) -> bytes:
    """Turn Fortran's order, the first index running fastest, into C's."""
    places = [0]
    step = 1
    for size in shape:
        places = [place + index * step for place in places for index in range(size)]
        step *= size
    return b"".join(data[place * width : (place + 1) * width] for place in places)


def _is_name(dtype: object) -> bool:
    return isinstance(dtype, str) and re.fullmatch(r"[a-z]\d{1,3}", dtype) is not None
