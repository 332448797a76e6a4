# SPDX-License-Identifier: Apache-2.0
"""
What sessions and jobs have used, and what it costs.

Seconds are those that IBM reports. Sums are decimals, which add up exactly; what is unknown is None, never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, Final, Self

from airflow_provider_ibm_sessions.client.enums import SessionMode

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.models.sessions import Session

USAGE_COMPLETE: Final = "complete"
"""IBM's ``usage.status`` of a job whose usage changes no more."""

_CENT: Final = Decimal("0.01")
_MICRO: Final = Decimal("0.000001")
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60))


@dataclass(frozen=True, slots=True)
class UsageReport:
    """
    Usage of a session or of jobs, in seconds.

    :param qpu_seconds: The jobs' time on the QPU.
    :param billed_seconds: What IBM bills: a dedicated session's active time, else the jobs' QPU time.
    :param billed_is_final: True if ``billed_seconds`` changes no more.
    :param settled: True if neither of the two changes any more.
    """

    qpu_seconds: Decimal | None = None
    billed_seconds: Decimal | None = None
    billed_is_final: bool = False
    settled: bool = False

    @classmethod
    def of_jobs(cls, jobs: Sequence[Job]) -> Self:
        """Return the usage of jobs that are billed one by one: in a batch, or without a session."""
        used = [_qpu_seconds(job) for job in jobs]
        total = None if None in used else sum((each for each in used if each is not None), Decimal(0))
        is_final = total is not None and all(
            job.is_final and job.usage and job.usage.status == USAGE_COMPLETE for job in jobs
        )
        return cls(total, total, is_final, is_final)

    @classmethod
    def of_session(cls, session: Session, jobs: Sequence[Job] | None) -> Self:
        """
        Return the usage of a session or a batch.

        :param jobs: All its jobs; None if they could not be listed.
        """
        of_jobs = cls() if jobs is None else cls.of_jobs(jobs)
        if session.mode == SessionMode.BATCH:
            is_final = of_jobs.billed_is_final and session.is_closed
            return cls(of_jobs.qpu_seconds, of_jobs.qpu_seconds, is_final, is_final)
        billed = None if session.elapsed_time is None else _decimal(session.elapsed_time)
        if billed is None and session.is_closed and jobs == [] and session.started_at is None:
            # IBM need not say it: a session is billed from its first job on.
            billed = Decimal(0)
        # A job that runs on in a closed session is billed.
        has_ended = session.is_closed and jobs is not None and all(job.is_final for job in jobs)
        is_final = has_ended and billed is not None
        return cls(of_jobs.qpu_seconds, billed, is_final, is_final and of_jobs.settled)

    @classmethod
    def total(cls, usages: Sequence[UsageReport]) -> Self:
        """Return what several sessions have used together. Unless each is known, the sum is not."""

        def add(used: list[Decimal | None]) -> Decimal | None:
            known = [each for each in used if each is not None]
            return sum(known, Decimal(0)) if len(known) == len(used) else None

        return cls(
            add([each.qpu_seconds for each in usages]),
            add([each.billed_seconds for each in usages]),
            all(each.billed_is_final for each in usages),
            all(each.settled for each in usages),
        )

    def cost(self, price_per_second: Decimal | None) -> Decimal | None:
        """Return what is billed, in money, without any rounding."""
        return cost_of(self.billed_seconds, price_per_second)

    def to_json(self, price_per_second: Decimal | None, currency: str) -> dict[str, Any]:
        """Return it for XCom. ``cost`` is rounded to six decimals, not to the cent."""
        cost = self.cost(price_per_second)
        return {
            "qpu_seconds": as_number(self.qpu_seconds),
            "billed_seconds": as_number(self.billed_seconds),
            "cost": None if cost is None else float(cost.quantize(_MICRO, ROUND_HALF_UP)),
            "currency": currency,
            "settled": self.settled,
        }

    def describe(self, price_per_second: Decimal | None, currency: str) -> str:
        """Return a clause for a log line, such as ``12.5 s billed, 20.00 USD``."""
        if self.billed_seconds is None:
            return "IBM does not say yet what is billed"
        cost = self.cost(price_per_second)
        price = "" if cost is None else f", {format_money(cost, currency)}"
        rest = "" if self.billed_is_final else ", not final yet"
        return f"{format_seconds(self.billed_seconds)} s billed{price}{rest}"


def cost_of(seconds: Decimal | None, price_per_second: Decimal | None) -> Decimal | None:
    """Return the price of some seconds, or None if either is unknown."""
    return None if seconds is None or price_per_second is None else seconds * price_per_second


def format_seconds(seconds: Decimal | float) -> str:
    """Return a number of seconds for people, with at most two decimals: ``7.36`` for 7.35931."""
    return f"{seconds:.2f}".rstrip("0").rstrip(".")


def format_duration(seconds: float) -> str:
    """Return a duration with its units, for people: ``1h 30m`` for 5400."""
    parts, rest = [], round(seconds, 2)
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        parts += [f"{count:.0f}{unit}"] if count else []
    shown = format_seconds(rest)
    return " ".join([*parts, f"{shown}s"] if shown != "0" or not parts else parts)


def format_money(amount: Decimal, currency: str) -> str:
    """Return an amount for people, rounded to the cent: ``1,724.48 USD``."""
    return f"{amount.quantize(_CENT, ROUND_HALF_UP):,} {currency}"


def count_states(jobs: Iterable[Job]) -> dict[str, int]:
    """Return how many jobs are in each of IBM's states."""
    return dict(sorted(Counter(job.final_status or "unknown" for job in jobs).items()))


def as_number(value: Decimal | None) -> float | None:
    """Return a decimal as a number for JSON."""
    return None if value is None else float(value)


def _qpu_seconds(job: Job) -> Decimal | None:
    used = job.usage.qpu_charge_time_seconds if job.usage else None
    return None if used is None else _decimal(used)


def _decimal(number: float) -> Decimal:
    """Return a number as its shortest decimal, which is how IBM has sent it."""
    return Decimal(repr(float(number)))
