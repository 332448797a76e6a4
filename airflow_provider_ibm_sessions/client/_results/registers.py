# SPDX-License-Identifier: Apache-2.0
"""Shots of classical registers, and their counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from typing import Any, Final

from airflow_provider_ibm_sessions.client._results.arrays import Array, MemoryBudget, nest
from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.validation import short_repr

MAX_BITS: Final = 65_536
"""Bits of one register. No QPU has a tenth of it; a count takes as many characters."""

_ROW_BYTES: Final = 16
_PART_BYTES: Final = 2**26
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
    def from_samples(cls, samples: list[Any], num_bits: object, budget: MemoryBudget) -> Register:
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
        width: Any = _longest(cells) if num_bits is None else num_bits
        row_bytes = _row_bytes(width)
        budget.take(len(cells) * num_shots * row_bytes)
        try:
            data = b"".join([int(sample, 16).to_bytes(row_bytes, "big") for cell in cells for sample in cell])
        except (TypeError, ValueError, OverflowError) as error:
            raise BadResponseError(_unreadable(cells, width)) from error
        register = cls(width, tuple(shape), num_shots, data)
        if register.has_stray_bits():
            raise BadResponseError(_unreadable(cells, width))
        return register

    @classmethod
    def from_bit_array(cls, array: Array, num_bits: Any) -> Register:
        """
        Read the array of Qiskit's ``BitArray``.

        :raises BadResponseError: If its shape does not fit the number of bits.
        """
        row_bytes = _row_bytes(num_bits)
        if array.kind[1:] != "u1" or len(array.shape) < 2 or array.shape[-1] != row_bytes:
            raise BadResponseError(f"its array has not {row_bytes} bytes for each shot of {num_bits} bits")
        register = cls(num_bits, array.shape[:-2], array.shape[-2], array.data)
        if register.has_stray_bits():  # Qiskit ignores them
            mask = (1 << num_bits % 8) - 1
            cleared = bytearray(array.data)
            cleared[::row_bytes] = bytes(byte & mask for byte in array.data[::row_bytes])
            register = replace(register, data=bytes(cleared))
        return register

    def has_stray_bits(self) -> bool:
        """Return True if there are bits left of the register's own, in the first byte of a shot."""
        first = self.data[:: -(-self.num_bits // 8) or 1] if self.num_bits % 8 else b""
        return max(first, default=0) >= 1 << self.num_bits % 8

    def counts(self, budget: MemoryBudget) -> Any:
        """Return counts of bit strings, most significant bit first; nested as the sweep is."""
        return joint_counts([self], budget)

    def memory(self, budget: MemoryBudget) -> Any:
        """Return the bit string of each shot, in the order of the shots; nested as the sweep is."""
        points = math.prod(self.shape)
        budget.take(points * self.num_shots * (self.num_bits + _COUNT_BYTES // 2))
        shared: dict[str, str] = {}
        cells = [[shared.setdefault(bits, bits) for bits in self.strings(point)] for point in range(points)]
        return nest(cells, self.shape, budget)

    def strings(self, point: int) -> Iterator[str]:
        """Return the bit strings of the shots at one point of the sweep, counted in C order."""
        if not self.num_bits:
            return repeat("0", self.num_shots)  # as Qiskit writes no bits
        row_bytes = -(-self.num_bits // 8)
        start = point * self.num_shots * row_bytes
        data, from_bytes, leading = self.data, int.from_bytes, 1 << self.num_bits
        # A bit more, cut off together with "0b", keeps the zeros on the left: twice as fast as a format.
        return (
            bin(from_bytes(data[place : place + row_bytes], "big") | leading)[3:]
            for place in range(start, start + self.num_shots * row_bytes, row_bytes)
        )


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
    budget.take(points * (_COUNT_BYTES + first.num_shots * _ROW_BYTES))
    written = [register for register in reversed(registers) if register.num_bits] or [first]
    cells = []
    for point in range(points):
        # Bit strings are made before they are counted: afterwards, both kinds of keys would be in memory.
        strings = written[0].strings(point)
        if len(written) > 1:
            strings = map("".join, zip(*(register.strings(point) for register in written), strict=True))
        cells.append(_counted(strings, first.num_shots, width + _COUNT_BYTES, budget))
    return nest(cells, first.shape, budget)


def _counted(strings: Iterator[str], shots: int, size: int, budget: MemoryBudget) -> dict[str, int]:
    """Count outcomes, in parts that are small beside the budget: how many differ is known afterwards only."""
    counted: Counter[str] = Counter()
    part = max(_PART_BYTES // size, 1)
    for _ in range(0, shots, part):
        known = len(counted)
        counted.update(islice(strings, part))
        budget.take((len(counted) - known) * size)
    return dict(counted)


def _row_bytes(num_bits: Any) -> int:
    """Return the bytes of one shot, or raise ``BadResponseError`` if this is no width of a register."""
    if isinstance(num_bits, int) and not isinstance(num_bits, bool) and 0 <= num_bits <= MAX_BITS:
        return -(-num_bits // 8)
    raise BadResponseError(f"its num_bits must be 0 to {MAX_BITS}, not {short_repr(num_bits)}")


def _longest(cells: list[list[Any]]) -> int:
    """Return the bits of the largest sample, and at least 1."""
    try:
        return max((int(sample, 16).bit_length() for cell in cells for sample in cell), default=0) or 1
    except (TypeError, ValueError) as error:
        raise BadResponseError(_unreadable(cells, MAX_BITS)) from error


def _unreadable(cells: list[list[Any]], num_bits: int) -> str:
    """Say which sample cannot be read."""
    for sample in chain.from_iterable(cells):
        try:
            value = int(sample, 16)
        except (TypeError, ValueError):
            value = -1
        if value < 0:
            return f"its sample {short_repr(sample)} is not a hexadecimal string such as '0x3'"
        if value.bit_length() > num_bits:
            return f"its sample {short_repr(sample)} does not fit into {num_bits} bits"
    return "its samples cannot be read"
