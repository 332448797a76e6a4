# SPDX-License-Identifier: Apache-2.0
"""Choose a QPU: what it must have, which of several is the best, and why the others are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.enums import BackendOrder
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, NoBackendError
from airflow_provider_ibm_sessions.client.validation import (
    number_in,
    to_seconds,
    validate_backends,
    validate_choice,
    validate_int,
    validate_number,
    validate_string,
)

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.models.instance import Backend

_MOCK_PREFIX = "mock_"
"""IBM lists devices for dry runs under such names."""


@dataclass(frozen=True, slots=True)
class BackendSelection:
    """
    A chosen QPU, and what it was chosen by.

    :param backend: The QPU, as IBM described it.
    :param order_by: The figure that decided.
    :param is_fallback: True if IBM tells no wait times, and the queue length decided in their place.
    :param candidates: All QPUs that meet the requirements, the best first.
    :param reasons: By the name of each other QPU, why it does not.
    """

    backend: Backend
    order_by: str
    is_fallback: bool
    candidates: tuple[str, ...]
    reasons: Mapping[str, str]

    def __str__(self) -> str:
        figure = getattr(self.backend, self.order_by)
        why = ", since IBM tells no wait times on this plan" if self.is_fallback else ""
        others = f". Also met by {', '.join(self.candidates[1:])}" if self.candidates[1:] else ""
        return f"QPU {self.backend.name} is chosen by {self.order_by} {_shown(figure)}{why}{others}"

    def to_json(self) -> dict[str, Any]:
        """Return what the QPU was chosen by, as plain JSON."""
        return {
            **self.backend.summary(),
            "order_by": self.order_by,
            "is_fallback": self.is_fallback,
            "candidates": list(self.candidates),
            "reasons": dict(self.reasons),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRequirements:
    """
    Requirements on a QPU, and the order of those that meet them. A QPU must be online in any case.

    A figure that IBM does not tell for a QPU meets no bound. Build it by :meth:`validate`.

    :param min_qubits: The least number of qubits.
    :param among: Names of QPUs: only these.
    :param exclude: Names of QPUs: none of these.
    :param processor_family: Such as ``Heron``, in any case.
    :param max_queue_length: The most jobs in its queue.
    :param max_wait: The longest wait time, in seconds.
    :param max_two_q_error: The highest median error rate of its two-qubit gates.
    :param max_readout_error: The highest median error rate of its readout.
    :param order_by: The figure that decides: the lowest is the best.
    """

    min_qubits: int | None = None
    among: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    processor_family: str | None = None
    max_queue_length: int | None = None
    max_wait: int | None = None
    max_two_q_error: float | None = None
    max_readout_error: float | None = None
    order_by: str = BackendOrder.WAIT_TIME

    @classmethod
    def validate(cls, **values: Any) -> BackendRequirements:
        """
        Return the requirements from what people and templates write. What is None requires nothing.

        :param values: The fields; ``max_wait`` may be seconds, a timedelta or a string such as ``"30m"``.
        :raises ConfigurationError: Naming the field that is wrong, and what is allowed.
        """
        readers: dict[str, Callable[[Any, str], Any]] = {
            "min_qubits": lambda value, field: validate_int(number_in(value), field, at_least=1),
            "among": validate_backends,
            "exclude": lambda value, field: validate_backends(value, field, allow_empty=True),
            "processor_family": validate_string,
            "max_queue_length": lambda value, field: validate_int(number_in(value), field),
            "max_wait": to_seconds,
            "max_two_q_error": _validate_rate,
            "max_readout_error": _validate_rate,
            "order_by": lambda value, field: validate_choice(value, BackendOrder, field),
        }
        if unknown := values.keys() - readers.keys():
            raise ConfigurationError(
                f"{min(unknown)} is no requirement of a QPU: there are {', '.join(readers)}",
                field=min(unknown),
            )
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**{name: readers[name](value, name) for name, value in given.items()})

    def to_json(self) -> dict[str, Any]:
        """Return the requirements as plain JSON, for :meth:`validate`."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value is not None
        }

    def select(self, backends: Iterable[Backend]) -> BackendSelection:
        """
        Return the best of the QPUs.

        Where IBM tells no wait times, as on the Open plan, the shortest queue is the best.

        :raises NoBackendError: If none meets the requirements; it names each, and why not.
        """
        found = {backend.name: backend for backend in backends}
        tells_wait = any(backend.wait_time is not None for backend in found.values())
        fitting: list[Backend] = []
        reasons: dict[str, str] = {}
        may_fit_later = False
        for name in self.among or found:
            if name not in found:
                reasons[name] = "not a QPU of this instance: retired, or misspelled"
                continue
            lasting = list(self._lasting_reasons(found[name]))
            passing = list(self._passing_reasons(found[name], tells_wait))
            if not lasting and not passing:
                fitting.append(found[name])
                continue
            reasons[name] = ", ".join([*lasting, *passing])
            futile = self.max_wait is not None and not tells_wait
            may_fit_later = may_fit_later or not (lasting or futile)
        if not fitting:
            each = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            has = f". The instance has {', '.join(found) or 'none'}" if reasons.keys() - found.keys() else ""
            raise NoBackendError(
                f"No QPU meets the requirements: {each or 'the instance has none'}{has}",
                retryable=may_fit_later,
                reasons=reasons,
            )
        is_fallback = self.order_by == BackendOrder.WAIT_TIME and all(
            backend.wait_time is None for backend in fitting
        )
        order_by = BackendOrder.QUEUE_LENGTH if is_fallback else BackendOrder(self.order_by)
        fitting.sort(key=lambda backend: _rank(backend, order_by))
        return BackendSelection(
            fitting[0], order_by.value, is_fallback, tuple(backend.name for backend in fitting), reasons
        )

    def _lasting_reasons(self, backend: Backend) -> Iterator[str]:
        """Say why the QPU will not do later, either."""
        if backend.name.startswith(_MOCK_PREFIX):
            yield "a device for dry runs, which runs nothing"
        if backend.is_simulator:
            yield "a simulator"
        if backend.name in (self.exclude or ()):
            yield "excluded"
        if self.min_qubits is not None and (backend.qubits or 0) < self.min_qubits:
            yield f"{_shown(backend.qubits)} qubits, min_qubits is {self.min_qubits:g}"
        family = backend.processor_family
        if self.processor_family and self.processor_family.casefold() != (family or "").casefold():
            yield f"processor family {_shown(family)}, not {self.processor_family}"

    def _passing_reasons(self, backend: Backend, tells_wait: bool) -> Iterator[str]:
        """Say why the QPU will not do now."""
        if backend.state != "online":
            reason = getattr(backend.status, "reason", None)
            yield f"{backend.state or 'its state is unknown'}{f' ({reason})' if reason else ''}"
        if self.max_wait is not None and not tells_wait:
            yield "IBM tells no wait times on this plan: use max_queue_length in place of max_wait"
        elif _exceeds(backend.wait_time, self.max_wait):
            yield f"wait time {_shown(backend.wait_time)} s, max_wait is {self.max_wait:g} s"
        bounds = {
            "max_queue_length": ("queue length", backend.queue_length),
            "max_two_q_error": ("two-qubit error", backend.two_q_error),
            "max_readout_error": ("readout error", backend.readout_error),
        }
        for field, (what, value) in bounds.items():
            bound = getattr(self, field)
            if _exceeds(value, bound):
                yield f"{what} {_shown(value)}, {field} is {bound:g}"


REQUIREMENTS = tuple(field.name for field in fields(BackendRequirements))
"""Names of the requirements."""


def _validate_rate(value: object, field: str) -> float:
    return validate_number(value, field, at_most=1)


def _exceeds(value: float | None, bound: float | None) -> bool:
    return bound is not None and (value is None or value > bound)


def _shown(value: object) -> str:
    return "unknown" if value is None else str(value)


def _rank(backend: Backend, order_by: str) -> list[Any]:
    """Return what sorts the best QPU first: an unknown figure is last, and the next one decides on a tie."""
    figures = [getattr(backend, order_by), backend.queue_length, backend.two_q_error]
    return [(figure is None, figure or 0) for figure in figures] + [backend.name]
