# SPDX-License-Identifier: Apache-2.0
"""Shots of classical registers, and their counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final

from airflow_provider_ibm_sessions.client._results.arrays import Array, MemoryBudget, nest
from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.validation import short_repr

MAX_BITS: Final = 65_536
"""Bits of one register. No QPU has a tenth of it; a count takes as many characters."""

_ROW_BYTES: Final = 16
_COUNT_BYTES: Final = 120
"""What an entry of a dictionary of counts takes beside its bits, about."""


@dataclass(frozen=True, slots=True)
class Register:
    """
    The shots of one classical register, for each point of a parameter sweep.

    :param data: One row of bytes for each shot, most significant byte first, as in Qiskit's ``BitArray``.
    :param shape: The sweep's shape, ``()`` without one.
    """

    num_bits: int
    shape: tuple[int, ...]
    num_shots: int
    data: bytes

    @classmethod
    def from_samples(cls, samples: list[Any], num_bits: object) -> Register:
        """
        Read hexadecimal samples, nested as the sweep is.

        :param num_bits: As IBM sends it; None: that of the largest sample, and at least 1.
        :raises BadResponseError: If a sample is none, or does not fit.
        """
        shape: list[int] = []
        cells = [samples]
        while cells and cells[0] and isinstance(cells[0][0], list):
            size = len(cells[0])
            if not all(len(cell) == size and all(isinstance(item, list) for item in cell) for cell in cells):
                raise BadResponseError("its samples are nested unevenly")
            shape.append(size)
            cells = list(chain.from_iterable(cells))
        num_shots = len(cells[0])
        if any(len(cell) != num_shots for cell in cells):
            raise BadResponseError("its number of shots differs from point to point of the sweep")
        values = _values(chain.from_iterable(cells))
        longest = max(values.values(), default=0).bit_length()
        width = max(longest, 1) if num_bits is None else _width(num_bits)
        if longest > min(width, MAX_BITS):
            sample = short_repr(max(values, key=lambda sample: values[sample]))
            raise BadResponseError(f"its sample {sample} does not fit into {min(width, MAX_BITS)} bits")
        row_bytes = -(-width // 8)
        rows = {sample: value.to_bytes(row_bytes, "big") for sample, value in values.items()}
        data = b"".join(map(rows.__getitem__, chain.from_iterable(cells)))
        return cls(width, tuple(shape), num_shots, data)

    @classmethod
    def from_bit_array(cls, array: Array, num_bits: object) -> Register:
        """
        Read the array of Qiskit's ``BitArray``.

        :raises BadResponseError: If its shape does not fit the number of bits.
        """
        width = _width(num_bits)
        row_bytes = -(-width // 8)
        if array.kind[1:] != "u1" or len(array.shape) < 2 or array.shape[-1] != row_bytes:
            raise BadResponseError(f"its array has not {row_bytes} bytes for each shot of {width} bits")
        data = array.data
        if width % 8 and data:
            mask = (1 << width % 8) - 1
            first = data[::row_bytes]
            if max(first) > mask:  # Qiskit ignores what stands left of a register's bits
                cleared = bytearray(data)
                cleared[::row_bytes] = bytes(byte & mask for byte in first)
                data = bytes(cleared)
        return cls(width, array.shape[:-2], array.shape[-2], data)

    def counts(self, budget: MemoryBudget) -> Any:
        """Return counts of bit strings, most significant bit first; nested as the sweep is."""
        return joint_counts([self], budget)

    def memory(self, budget: MemoryBudget) -> Any:
        """Return the bit string of each shot, in the order of the shots; nested as the sweep is."""
        points = math.prod(self.shape)
        budget.take(points * self.num_shots * (self.num_bits + _COUNT_BYTES // 2))
        cells = []
        for point in range(points):
            strings = {row: self.bits(row) for row in set(self.rows(point))}
            cells.append(list(map(strings.__getitem__, self.rows(point))))
        return nest(cells, self.shape)

    def rows(self, point: int) -> Iterable[bytes]:
        """Return the shots at one point of the sweep, counted in C order."""
        row_bytes = -(-self.num_bits // 8)
        if not row_bytes:
            return repeat(b"", self.num_shots)
        start = point * self.num_shots * row_bytes
        starts = range(start, start + self.num_shots * row_bytes, row_bytes)
        # Twice as fast as a comprehension: a million rows are read without running a line of Python.
        stops = range(start + row_bytes, start + (self.num_shots + 1) * row_bytes, row_bytes)
        return map(self.data.__getitem__, map(slice, starts, stops))

    def bits(self, row: bytes) -> str:
        """Return a shot as a bit string; like Qiskit's, that of no bits is ``"0"``."""
        return f"{int.from_bytes(row, 'big'):0{self.num_bits}b}"


def joint_counts(registers: Sequence[Register], budget: MemoryBudget) -> Any:
    """
    Return counts over several registers, as Qiskit's ``join_data().get_counts()`` does.

    The first register's bits stand on the right, the last one's on the left, whatever the docstring of
    ``join_data`` says: as in the counts of a circuit that is run without primitives.

    :raises BadResponseError: If the registers differ in shots or shape.
    """
    first = registers[0]
    if any((other.shape, other.num_shots) != (first.shape, first.num_shots) for other in registers):
        raise BadResponseError("its registers differ in their number of shots or in shape")
    width = sum(register.num_bits for register in registers)
    points = math.prod(first.shape)
    budget.take(math.prod(size or 1 for size in first.shape) * _COUNT_BYTES)
    budget.take(points * first.num_shots * _ROW_BYTES)
    written = [register for register in reversed(registers) if register.num_bits] or [first]
    cells: list[dict[str, int]] = []
    for point in range(points):
        counted: Mapping[Any, int]
        if len(written) == 1:
            counted = Counter(written[0].rows(point))
            budget.take(len(counted) * (width + _COUNT_BYTES))
            bits = written[0].bits
            cells.append({bits(row): count for row, count in counted.items()})
        else:
            counted = Counter(zip(*(register.rows(point) for register in written), strict=True))
            budget.take(len(counted) * (width + _COUNT_BYTES))
            cells.append(
                {
                    "".join([register.bits(row) for register, row in zip(written, rows, strict=True)]): count
                    for rows, count in counted.items()
                }
            )
    return nest(cells, first.shape)


def _width(num_bits: object) -> int:
    if isinstance(num_bits, int) and not isinstance(num_bits, bool) and 0 <= num_bits <= MAX_BITS:
        return num_bits
    raise BadResponseError(f"its num_bits must be 0 to {MAX_BITS}, not {short_repr(num_bits)}")


def _values(samples: Iterable[Any]) -> dict[str, int]:
    """Return the number that each sample stands for."""
    sample: Any = None
    try:
        values = {}
        for sample in set(samples):
            values[sample] = value = int(sample, 16)
            if value < 0:
                break
        else:
            return values
    except (TypeError, ValueError):  # also of a list, which no set can hold
        pass
    raise BadResponseError(
        f"its sample {short_repr(sample)} is not a hexadecimal string such as '0x3'"
        if sample is not None
        else "its samples are not all hexadecimal strings such as '0x3'"
    )
