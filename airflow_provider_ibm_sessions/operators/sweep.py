# SPDX-License-Identifier: Apache-2.0
"""Close the sessions that nobody uses any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.validation import to_seconds, validate_bool, validate_choice
from airflow_provider_ibm_sessions.exceptions import raise_as_airflow_errors, to_airflow_exception
from airflow_provider_ibm_sessions.lifecycle.sweep import SessionSweeper
from airflow_provider_ibm_sessions.lifecycle.sweep_decision import SweepScope
from airflow_provider_ibm_sessions.operators.base import IBMQuantumOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context


_MAX_ERRORS = 20
"""Errors that the task's own error names; the log has all."""


class IBMQuantumSweepSessionsOperator(IBMQuantumOperator):
    """
    Look at all open sessions and batches, and close those that no active run of this Airflow owns.

    For what no other task could close: a run that ended at its ``dagrun_timeout``, for which Airflow skips
    teardowns, or a user who failed a run while Airflow was down. A session belongs to the run that has opened
    it: one handed to another run is orphaned when its own has ended. A session that accepts no more jobs
    closes itself and is left alone.

    Returns ``counts``, how many sessions there are of each ``decision``, and ``sessions``: a report on each
    that is orphaned, or whose owner cannot be found out, the oldest first, with ``session_id``, ``backend``,
    ``mode``, ``state``, ``age`` (seconds), ``owner``, ``decision`` and ``closed``. The log tells of all that
    do not simply belong to an active run.

    :param dry_run: Only report what would be closed.
    :param min_age: Leave alone what was opened less than this long ago: seconds, a timedelta or text such as
        ``"15m"``.
    :param scope: ``airflow``: close only what this Airflow has opened. ``user``: also what another tool, or
        another Airflow, has opened with a key of the same user. ``instance``: also what other users have.

    Further arguments are those of :class:`IBMQuantumOperator`.
    """

    template_fields: Sequence[str] = ("ibm_quantum_conn_id",)
    operator_extra_links: Sequence[BaseOperatorLink] = ()

    returns_dict = True

    def __init__(
        self,
        *,
        dry_run: bool = True,
        min_age: int | str | timedelta = timedelta(minutes=15),
        scope: str = SweepScope.AIRFLOW,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.min_age = to_seconds(min_age, "min_age")
        self.scope = SweepScope(validate_choice(scope, SweepScope, "scope"))
        self._is_dry = validate_bool(dry_run, "dry_run")  # Airflow's own tasks have a method of that name

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, close, and report; one that cannot be closed does not stop the others."""
        with raise_as_airflow_errors():
            sweeper = SessionSweeper(self.hook, scope=self.scope, min_age=self.min_age)
            records, errors = sweeper.run(dry_run=self._is_dry)
        # XCom keeps each sweep: of a thousand sessions in use, their number will do.
        result = {
            "counts": dict(Counter(str(record.decision) for record in records)),
            "sessions": [record.to_json() for record in records if record.needs_attention],
        }
        if errors:
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=result)
            for error in errors[_MAX_ERRORS:]:
                self.log.error("%s", error)
            more = [f"and {len(errors) - _MAX_ERRORS} more: see the log"] if errors[_MAX_ERRORS:] else []
            message = "; ".join([*map(str, errors[:_MAX_ERRORS]), *more])
            raise to_airflow_exception(message, retryable=True)
        return result
