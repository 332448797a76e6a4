# SPDX-License-Identifier: Apache-2.0
"""
The record of a session that has ended: what it was for, and what was billed.

IBM tells nothing of Airflow's runs, and the session registry forgets a session when it is closed. So the task
that sees the end keeps a record of it in its task state store, under ``ibm_quantum_record_<session id>``: the
task itself, the one that closes it, or the sweep. Records of failed tries are kept like all others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.sdk import conf

from airflow_provider_ibm_sessions.client.usage import UsageReport, as_number, cost_of, count_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_ibm_sessions.client.credentials import Credentials
    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner

log = logging.getLogger(__name__)

RECORD_PREFIX = "ibm_quantum_record_"
JOB_RECORD_PREFIX = "ibm_quantum_job_record_"
"""Prefix of the records of jobs without a session, which have the same fields."""

VERSION = 1
DEFAULT_RETENTION_DAYS = 400
_MAX_SPANS = 100


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """
    A session, a batch or a job without either, at its end. Times are seconds since the epoch.

    :param session_id: Its id; of a record with the mode ``job``, the job's.
    :param mode: ``dedicated``, ``batch`` or ``job``.
    :param owner: The task that it was opened for: ``dag_id``, ``run_id``, ``task_id`` and ``map_index``.
    :param try_number: The try that has opened it, or resumed it last; 0 if that is not known.
    :param spans: Each state that it has entered, and when.
    :param billed: Seconds that IBM bills; None if IBM does not say.
    :param billed_is_final: True if that changes no more.
    :param jobs: How many jobs it had in each of IBM's states; None if they could not be listed.
    :param qpu_seconds: Its jobs' time on the QPU.
    :param price_per_second: That of the connection at the end, if it has one.
    :param reason: IBM's reason for the end.
    :param closed_by: The task that saw the end, or the command.
    """

    session_id: str
    conn_id: str
    backend: str | None = None
    mode: str | None = None
    owner: dict[str, Any] | None = None
    try_number: int = 0
    opened: float | None = None
    spans: list[list[Any]] = field(default_factory=list)
    max_ttl: float | None = None
    billed: float | None = None
    billed_is_final: bool = False
    jobs: dict[str, int] | None = None
    qpu_seconds: float | None = None
    price_per_second: float | None = None
    currency: str | None = None
    reason: str | None = None
    closed_by: str | None = None
    v: int = VERSION

    @classmethod
    def of_session(
        cls,
        session_id: str,
        owner: SessionOwner,
        credentials: Credentials,
        session: Session | None,
        jobs: Sequence[Job] | None,
    ) -> Self:
        """
        Return the record of a session.

        :param session: As it was last read; None if IBM does not know it.
        :param jobs: All its jobs; None if they could not be listed.
        """
        record = cls(
            session_id=session_id,
            conn_id=owner.conn_id,
            owner=_task_of(owner),
            try_number=owner.try_number,
            opened=owner.opened or None,
            price_per_second=as_number(credentials.price_per_second),
            currency=credentials.currency,
        )
        if session is None:
            return replace(record, reason="IBM does not know it")
        spans: list[list[Any]] = [
            [change.status, change.timestamp.timestamp()]
            for change in session.timestamps or []
            if change.timestamp
        ]
        return replace(
            record,
            backend=session.backend_name,
            mode=session.mode,
            opened=spans[0][1] if spans else record.opened,
            spans=spans[-_MAX_SPANS:],
            max_ttl=session.max_ttl,
            reason=session.state_reason,
        ).with_usage(UsageReport.of_session(session, jobs), jobs)

    @classmethod
    def of_job(cls, job: Job, owner: SessionOwner, credentials: Credentials) -> Self:
        """Return the record of a job that has run outside of a session."""
        record = cls(
            session_id=job.id,
            conn_id=owner.conn_id,
            backend=job.backend,
            mode="job",
            owner=_task_of(owner),
            try_number=owner.try_number,
            opened=job.created.timestamp() if job.created else owner.opened,
            price_per_second=as_number(credentials.price_per_second),
            currency=credentials.currency,
            reason=job.detail.reason,
            closed_by=str(owner),
        )
        return record.with_usage(UsageReport.of_jobs([job]), [job])

    @classmethod
    def parse(cls, value: object) -> Self:
        """
        Parse a record, as a mapping or as JSON; fields of newer versions are ignored.

        :raises ValueError: If it is none.
        """
        try:
            stored: Any = json.loads(value) if isinstance(value, str) else value
            known = {each.name for each in fields(cls)}
            record = cls(**{name: stored[name] for name in known if name in stored})
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError("not the record of a session") from error
        numbers = (record.billed, record.qpu_seconds, record.price_per_second, record.opened)
        are_numbers = all(each is None or type(each) in (int, float) for each in numbers)
        has_owner = isinstance(record.owner, Mapping | None)
        if not (are_numbers and has_owner and isinstance(record.session_id, str)):
            raise ValueError("not the record of a session")
        return record

    @property
    def key(self) -> str:
        """Return the key under which the record is kept."""
        return (JOB_RECORD_PREFIX if self.mode == "job" else RECORD_PREFIX) + self.session_id

    @property
    def cost(self) -> Decimal | None:
        """Return what is billed, in money, without any rounding."""
        price = self.price_per_second
        return cost_of(
            None if self.billed is None else Decimal(repr(float(self.billed))),
            None if price is None else Decimal(repr(float(price))),
        )

    def with_usage(self, usage: UsageReport, jobs: Sequence[Job] | None) -> Self:
        """Return the record with a usage that was read later."""
        return replace(
            self,
            billed=as_number(usage.billed_seconds),
            billed_is_final=usage.billed_is_final,
            qpu_seconds=as_number(usage.qpu_seconds),
            jobs=None if jobs is None else count_states(jobs),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def retention() -> timedelta | None:
    """Return how long records are kept; None: as long as the Dag run. Airflow's configuration says it."""
    days = conf.getint("ibm_quantum", "record_retention_days", fallback=DEFAULT_RETENTION_DAYS)
    return timedelta(days=days) if days > 0 else None


def write_to_task_state(store: Any, record: SessionRecord) -> None:
    """
    Write a record into the running task's state store.

    :raises Exception: If Airflow does not store it.
    """
    from airflow.sdk.execution_time.context import NEVER_EXPIRE

    store.set(record.key, record.to_json(), retention=retention() or NEVER_EXPIRE)


def _task_of(owner: SessionOwner) -> dict[str, Any]:
    return {name: getattr(owner, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
