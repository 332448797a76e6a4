# SPDX-License-Identifier: Apache-2.0
"""The decision of a sweep on an open session: whose it is, and if it is to be closed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner


class SweepScope(StrEnum):
    """
    The sessions that a sweep may close.

    ``airflow``: those that this Airflow has opened. ``user``: all others of the API key's user as well, made
    by another tool or another Airflow. ``instance``: everybody's.
    """

    AIRFLOW = "airflow"
    USER = "user"
    INSTANCE = "instance"


class SweepDecision(StrEnum):
    """Decision of a sweep on one session."""

    ACTIVE = "belongs to an active run"
    DRAINING = "accepts no more jobs, and closes itself"
    TOO_RECENT = "too recent"
    UNOWNED = "not opened by this Airflow"
    ELSEWHERE = "opened with another connection"
    UNKNOWN = "its owner cannot be found out"
    ORPHANED = "orphaned"


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """
    An open session, and the sweep's decision on it.

    :param state: As the session was read; where it was not, its status in IBM's list of workloads.
    :param age: Seconds since it was opened.
    :param owner: The task that this Airflow has opened it for, if it has.
    :param is_listed: True if IBM lists it among the open sessions.
    :param is_copy: True if an earlier sweep has read who owns it.
    """

    session_id: str
    backend: str | None
    mode: str | None
    state: str | None
    age: int
    owner: SessionOwner | None
    decision: SweepDecision
    is_listed: bool = True
    is_copy: bool = False
    closed: bool = False

    def __str__(self) -> str:
        owner = f", opened for {self.owner}" if self.owner else ""
        kind = f"({self.mode}) on {self.backend}, {self.state}" if self.mode else "(not read)"
        return f"Session {self.session_id} {kind}, {self.age} s old{owner}: {self.decision}"

    @property
    def needs_attention(self) -> bool:
        """Return True if it is closed or to be closed, or a person has to look at it."""
        return self.decision in (SweepDecision.ORPHANED, SweepDecision.UNKNOWN)

    def to_json(self) -> dict[str, Any]:
        """Return it for XCom, and for programs."""
        return {
            "session_id": self.session_id,
            "backend": self.backend,
            "mode": self.mode,
            "state": self.state,
            "age": self.age,
            "owner": str(self.owner) if self.owner else None,
            "decision": str(self.decision),
            "closed": self.closed,
        }


def decide(
    accepts_jobs: bool,
    owner: SessionOwner | None,
    age: float,
    *,
    scope: SweepScope,
    min_age: float,
    is_active: bool | None,
) -> SweepDecision:
    """
    Return what a sweep makes of an open session.

    :param age: Seconds since it was opened.
    :param is_active: True if the owner may still use it, None if that cannot be found out.
    """
    if not accepts_jobs:
        return SweepDecision.DRAINING
    if owner is None and scope == SweepScope.AIRFLOW:
        return SweepDecision.UNOWNED
    if owner is not None and is_active is None:
        return SweepDecision.UNKNOWN
    if owner is not None and is_active:
        return SweepDecision.ACTIVE
    return SweepDecision.TOO_RECENT if age < min_age else SweepDecision.ORPHANED
