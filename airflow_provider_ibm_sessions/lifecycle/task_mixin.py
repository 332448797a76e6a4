# SPDX-License-Identifier: Apache-2.0
"""Give operators and sensors their hook, the links to IBM's console, and a cleanup when they are killed."""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_ibm_sessions.client.validation import is_template
from airflow_provider_ibm_sessions.lifecycle.kill import Kill
from airflow_provider_ibm_sessions.lifecycle.task_state import is_last_try
from airflow_provider_ibm_sessions.links import IBMQuantumPageLink, IBMQuantumSessionLink

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

DEFAULT_RETRIES: int = max(3, conf.getint("core", "default_task_retries", fallback=0))
"""Retries of an operator whose task or ``default_args`` set none: each resumes, none runs anything twice."""

# Airflow 3.1 knows it as a switch, and doubles the delays.
DEFAULT_RETRY_BACKOFF: bool | float = True if isinstance(BaseOperator.retry_exponential_backoff, bool) else 2
"""Factor by which the delay grows from one retry to the next."""

_TRIGGER_FAILED = "__fail__"
"""The method at which Airflow resumes a task whose trigger has broken; it exists in no task."""

DEFAULT_DEFERRABLE: bool = conf.getboolean("operators", "default_deferrable", fallback=False)


class IBMQuantumTaskMixin:
    """Base of all tasks on an IBM Quantum connection. They name their session ``session_id``."""

    ibm_quantum_conn_id: str
    deferrable: bool = False

    operator_extra_links: Collection[BaseOperatorLink] = (IBMQuantumSessionLink(), IBMQuantumPageLink())
    ui_color = "#d0e2ff"

    usage: dict[str, Any] | None = None
    """The XCom ``usage``, once the task has pushed it."""

    _was_deferred: bool = False
    """True if this very try may have left work before a deferral, see :meth:`TaskState.load`."""
    _kill: Kill | None = None
    _context: Context | None = None

    @cached_property
    def hook(self) -> IBMQuantumHook:
        """Return the hook on the task's connection."""
        # Imported here: Dag files are parsed again and again, and parsing them needs no HTTP client.
        from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

        return IBMQuantumHook(self.ibm_quantum_conn_id)

    def check_literals(self, **checks: Callable[[Any], object]) -> None:
        """
        Check templated arguments when the Dag is parsed, where they are no templates.

        :param checks: By the argument's name: the function that raises an error if its value is wrong.
        """
        for name, check in checks.items():
            value = getattr(self, name)
            if value is not None and not is_template(value):
                check(value)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render a template. Of a string enum it is the value: Jinja would take its name, ``Backend.FEZ``."""
        if isinstance(content, Enum) and isinstance(content, str):
            content = content.value
        return super().render_template(content, *args, **kwargs)  # type: ignore[misc]

    def pre_execute(self, context: Any) -> None:
        """Keep the context for :meth:`on_kill`. Called by Airflow before ``execute()``."""
        self._context = context

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Resume after a deferral. Called by Airflow.

        A trigger that has broken, or that a triggerer could not load, is no verdict on what was awaited. A
        retry takes that up, and defers again. Where none follows, the task starts again in this worker, takes
        up what it has started, and waits here.
        """
        if next_method == _TRIGGER_FAILED and self.can_start_again(context):
            is_skipped = getattr(self, "soft_fail", False) or getattr(self, "never_fail", False)
            if is_last_try(context["ti"]) or is_skipped:
                self.log.warning(  # type: ignore[attr-defined]
                    "The trigger has broken, and no retry follows: waiting in this worker. Repair the "
                    "triggerer, whose log has this error:\n%s",
                    "".join((next_kwargs or {}).get("traceback") or ["not known"]),
                )
                self.deferrable, self._was_deferred = False, True
                return self.execute(context)  # type: ignore[attr-defined]
        return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]

    def can_start_again(self, context: Context) -> bool:
        """Return True if this try, started again, takes up what it has started."""
        return True

    def on_kill(self) -> None:
        """Clean up, unless another try is active. Called by Airflow on SIGTERM and ``execution_timeout``."""
        self._kill = Kill(self._context, self.cleanup_on_kill, self.leave_to_retry)
        self._kill.run()

    def cleanup_on_kill(self, *, fast: bool) -> None:
        """
        End what the task has started.

        :param fast: True in the few seconds after SIGTERM; at ``execution_timeout``, Airflow waits.
        """

    def leave_to_retry(self) -> None:
        """Do what is right after SIGTERM if a retry follows and Airflow does not answer."""
        self.cleanup_on_kill(fast=True)

    def show_session(self, context: Context, session_id: str) -> None:
        """Show the button to a session before the task ends or is deferred."""
        IBMQuantumSessionLink.persist(context, self.hook.console_url(session_id))

    def workload(self) -> dict[str, Any]:
        """
        Return what the task knows of its session and jobs by now, for its lineage.

        :returns: ``backend``, ``mode``, ``session_id``, ``job_ids``, and ``folders`` that it has written to.
        """
        job_id = getattr(self, "job_id", None)
        return {
            "backend": getattr(self, "backend", None),
            "session_id": getattr(self, "session_id", None),
            "job_ids": [job_id] if job_id else [],
            "folders": [],
        }

    def get_openlineage_facets_on_start(self) -> OperatorLineage:
        """Return the task's lineage before it runs. Called by Airflow's provider for OpenLineage."""
        # That provider calls this only where it is installed, and nothing else imports the module.
        from airflow_provider_ibm_sessions.lifecycle.lineage import lineage_of

        return lineage_of(self)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage:
        """Return the task's lineage at its end, with what it has used. Called as the above."""
        return self.get_openlineage_facets_on_start()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage:
        """Return the same when a try has failed; the caller adds the error."""
        return self.get_openlineage_facets_on_start()

    def raise_if_killed(self) -> None:
        """
        Stop a task that was killed before it starts something new: Airflow lets it run on for a while.

        :raises IBMQuantumTaskError: If it was killed; see :meth:`Kill.raise_from`.
        """
        if self._kill:
            self._kill.raise_from()
