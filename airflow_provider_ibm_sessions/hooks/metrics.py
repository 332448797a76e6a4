# SPDX-License-Identifier: Apache-2.0
"""Metrics of ended sessions and jobs, through Airflow's own ``Stats``. They fail no task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_ibm_sessions.client.enums import SessionState

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.hooks.session_record import SessionRecord

log = logging.getLogger(__name__)

_PREFIX: Final = "ibm_quantum."


def emit_usage(record: SessionRecord) -> None:
    """
    Count what an ended session, batch or single job has used. What is unknown is not counted.

    :param record: As it is kept; each is counted once.
    """
    cost = record.cost
    figures = {
        "qpu_seconds": record.qpu_seconds,
        "queue_seconds": _queue_seconds(record),
        "billed_seconds": record.billed,
        "cost": None if cost is None else float(cost),
        "jobs": None if record.jobs is None else sum(record.jobs.values()),
    }
    tags = {
        "conn_id": record.conn_id,
        "backend": record.backend,
        "mode": record.mode,
        "dag_id": (record.owner or {}).get("dag_id"),
    }
    for name, figure in figures.items():
        if figure is not None:
            count(name, figure, **tags)


def count(name: str, amount: float = 1, **tags: Any) -> None:
    """
    Add to a counter; an error is logged.

    :param name: Without its prefix ``ibm_quantum.``.
    :param tags: Those that are None are left out.
    """
    try:
        from airflow.providers.common.compat.sdk import Stats

        stats: Any = Stats  # its annotation says int; each of Airflow's backends takes a float as well
        known = {key: str(tag) for key, tag in tags.items() if tag is not None}
        stats.incr(_PREFIX + name, amount, tags=known)
    except Exception:  # whatever a backend of metrics raises
        log.warning("The metric %s%s was not sent", _PREFIX, name, exc_info=True)


def _queue_seconds(record: SessionRecord) -> float | None:
    """Return how long a session was open before it became active for the first time."""
    active = next((at for state, at in record.spans if state == SessionState.ACTIVE), None)
    return None if active is None or record.opened is None else max(0.0, active - record.opened)
