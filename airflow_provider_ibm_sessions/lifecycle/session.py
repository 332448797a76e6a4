# SPDX-License-Identifier: Apache-2.0
"""
Open or resume a session for a task, and end what a task or an earlier try of it has started.

Where a task ends too early, errors of the cleanup are logged: the task's own error is the one to be raised.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, NotFoundError, OutcomeUnknownError
from airflow_provider_ibm_sessions.client.validation import (
    DEFAULT_MAX_TTL,
    to_seconds,
    validate_backend,
    validate_mode,
)
from airflow_provider_ibm_sessions.exceptions import TaskSupersededError
from airflow_provider_ibm_sessions.hooks.session_registry import (
    VariableSessionRegistry,
    raise_if_other_connection,
)
from airflow_provider_ibm_sessions.lifecycle.kill import another_try_is_active

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client import IBMQuantumClient
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.client.recovery import PendingCreate
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState

log = logging.getLogger(__name__)


def validate_session_args(
    context: Context, *, backend: object, mode: object, max_ttl: object
) -> dict[str, Any]:
    """
    Return the arguments that a session is opened with.

    :param max_ttl: None: the Dag's ``dagrun_timeout``, at most and else IBM's default of 8 hours.
    :raises ConfigurationError: Naming the one that is wrong.
    """
    if max_ttl is None and (limit := context["dag"].dagrun_timeout):
        seconds = min(to_seconds(limit, "dagrun_timeout"), DEFAULT_MAX_TTL)
    else:
        seconds = DEFAULT_MAX_TTL if max_ttl is None else to_seconds(max_ttl, "max_ttl")
        if max_ttl is None:
            log.warning(
                "No max_ttl is set: the session may be billed for up to 8 hours. Set max_ttl to bound it"
            )
    return {
        "backend": validate_backend(backend),
        "mode": validate_mode(mode),
        "max_ttl": seconds,
    }


def open_session(
    hook: IBMQuantumHook,
    context: Context,
    state: TaskState,
    session_args: dict[str, Any],
    *,
    dag_run_scoped: bool,
) -> Session:
    """
    Open a session, or resume the one that an earlier try was opening when it died.

    The request is saved before it is sent, and the id before anything else can fail.

    :param session_args: What :func:`validate_session_args` returns.
    :param dag_run_scoped: See :meth:`IBMQuantumHook.create_session`.
    """
    from airflow_provider_ibm_sessions.client.recovery import fingerprints

    session, is_found = _find_or_create(hook, context, state, session_args, dag_run_scoped=dag_run_scoped)
    try:
        state.save_session(session.id)
    except BaseException as error:
        if _is_left_to_other_try(context):
            raise TaskSupersededError(f"Another try is active; session {session.id} is left to it") from error
        if not is_found:  # else another try may have found it as well
            close_quietly(hook, session.id)
        raise
    log.info("Opened %s session %s: %s", session_args["mode"], session.id, hook.console_url(session.id))
    least = session_args["max_ttl"] - fingerprints(session_args["max_ttl"])
    if session.max_ttl is not None and session.max_ttl < least:
        log.warning(
            "IBM granted session %s a max_ttl of %d s, not the %d s asked for: the plan's limit",
            session.id,
            session.max_ttl,
            session_args["max_ttl"],
        )
    return session


def unrecorded_sessions(context: Context, state: TaskState) -> list[str]:
    """
    Return the open sessions of this very task, where Airflow has not kept the record of an earlier try.

    They are read from the registry, which Airflow can list from 3.3 on.

    :raises AirflowApiUnavailableError: If Airflow does not answer.
    """
    if not (state.may_have_unrecorded_work and state.is_of_whole_task):
        return []
    return VariableSessionRegistry(context).ids_of_this_task()


def end_unrecorded_sessions(
    hook: IBMQuantumHook, context: Context, state: TaskState, kept: Collection[str | None] = ()
) -> None:
    """
    End the sessions that :func:`unrecorded_sessions` finds, with their jobs.

    :param kept: Sessions to be left alone: this try goes on with them.
    :raises IBMQuantumError: If one is not ended.
    """
    for session_id in unrecorded_sessions(context, state):
        if session_id not in kept:
            log.warning(
                "Airflow has not kept the record of an earlier try: ending its session %s", session_id
            )
            end_earlier_session(hook, session_id)


def resume_session(
    hook: IBMQuantumHook, context: Context, state: TaskState, session_args: dict[str, Any]
) -> Session | None:
    """
    Return the session of an earlier try that accepts jobs, if there is one.

    Where no record names it, it is one that was opened with the same arguments; others are ended.
    """
    if not state.may_have_unrecorded_work:
        if not state.is_resumed or state.session_id is None:
            return None
        return get_if_accepting_jobs(hook, state.session_id)
    known = [get_if_accepting_jobs(hook, session_id) for session_id in unrecorded_sessions(context, state)]
    fitting = [session for session in known if session and _has_args(session, session_args)]
    end_unrecorded_sessions(hook, context, state, [session.id for session in fitting[:1]])
    for session in fitting[:1]:
        state.save_session(session.id)
        return session
    return None


def discard_previous_run(hook: IBMQuantumHook, state: TaskState, *, dag_run_scoped: bool = False) -> None:
    """
    End what earlier tries with other input have started, before their record is overwritten.

    :raises IBMQuantumError: If something is not ended; the record stays then, for the next try.
    """
    session_id, pending = state.session_id, state.pending_create
    if session_id is None and pending:
        unknown = OutcomeUnknownError("Create a session: an earlier try with other input may have opened one")
        try:
            found = hook.find_pending_session(pending, dag_run_scoped=dag_run_scoped)
            session_id = found.id if found else None
        except OutcomeUnknownError as error:
            if error.retryable:
                raise
            log.error("%s. %s", unknown.message, error)  # noqa: TRY400
    if session_id:
        log.warning(
            "The input changed since the last try: closing its session %s and cancelling its jobs", session_id
        )
        end_earlier_session(hook, session_id)
    if tag := state.unfinished_job_tag:
        _cancel_job_by_tag(hook, tag)


def get_if_accepting_jobs(hook: IBMQuantumHook, session_id: str) -> Session | None:
    """
    Return the session, or None if it accepts no jobs.

    :raises ConfigurationError: If it was opened with another connection, where it may be open.
    """
    try:
        session = hook.get_session(session_id)
    except NotFoundError:
        raise_if_other_connection(hook.registry, session_id, hook.ibm_quantum_conn_id)
        return None
    if session.is_closed:  # by a kill, or by IBM: nobody else keeps a record of it
        hook.unregister_session(session_id, session)
    return session if session.accepts_jobs else None


def end_earlier_session(hook: IBMQuantumHook, session_id: str) -> None:
    """
    Close a session of an earlier try, and cancel its jobs; one that IBM does not know is nothing to close.

    :raises IBMQuantumError: If it is not closed.
    """
    close_and_cancel(hook, session_id)
    try:
        hook.close_session(session_id)
    except NotFoundError as error:
        log.warning("%s", error)


def close_quietly(hook: IBMQuantumHook, session_id: str) -> Session | None:
    """Close a session where another error is to be raised: an error of closing is logged."""
    try:
        return hook.close_session(session_id)
    except IBMQuantumError:
        log.exception("Session %s is still open. Close it at %s", session_id, hook.console_url(session_id))
        return None


def close_and_cancel(
    hook: IBMQuantumHook, session_id: str | None, job_ids: Iterable[str] = (), *, fast: bool = False
) -> None:
    """
    Close a session and cancel jobs, as far as that can be done; errors are logged.

    :param fast: In the last seconds of a task that is being killed: one short attempt at each request.
    """
    from airflow_provider_ibm_sessions.client import flows

    job_ids = list(job_ids)
    if session_id:
        log.info("Closing session %s and cancelling its jobs", session_id)
    else:
        log.info("Cancelling job %s", ", ".join(job_ids))
    with hook.short_lived_client(single_attempt=fast) as client:
        errors = client.run_flow(flows.close_and_cancel(session_id, job_ids))
    for error in errors:
        log.error("%s. See %s", error, hook.console_url(session_id or ""))


def drain(hook: IBMQuantumHook, session_id: str, *, fast: bool) -> None:
    """
    Let a session accept no more jobs, where those of a task that ends too early are to run on.

    :param fast: In the last seconds of a task that is being killed: one short attempt.
    """
    from airflow_provider_ibm_sessions.client import flows

    with hook.short_lived_client(single_attempt=fast) as client:
        for error in client.run_flow(flows.drain(session_id)):
            log.error("%s. Session %s may accept jobs: %s", error, session_id, hook.console_url(session_id))


def cancel_job_by_tag(hook: IBMQuantumHook, tag: str, *, fast: bool = False) -> None:
    """
    Cancel what was submitted under this tag, when the task ends too early; errors are logged.

    :param fast: In the last seconds of a task that is being killed: one short attempt at each request.
    """
    try:
        with hook.short_lived_client(single_attempt=fast) as client:
            _cancel_job_by_tag(hook, tag, client)
    except IBMQuantumError as error:
        log.error("The job with the tag %s may still run: %s. See %s", tag, error, hook.console_url())  # noqa: TRY400


def _cancel_job_by_tag(hook: IBMQuantumHook, tag: str, client: IBMQuantumClient | None = None) -> None:
    client = client or hook.get_conn()
    # All that are pending: older ones with the tag may be final.
    for job in client.list_jobs(tags=[tag], pending=True):
        if tag in (job.tags or ()) and not job.is_final and client.cancel_job(job.id):
            log.info("Cancelled job %s", job.id)


def _has_args(session: Session, session_args: dict[str, Any]) -> bool:
    """Return True if a session may have been opened with these arguments, as far as IBM tells."""
    from airflow_provider_ibm_sessions.client.recovery import fingerprints

    max_ttl = session_args["max_ttl"]
    return (
        session.backend_name in (None, session_args["backend"])
        and session.mode in (None, session_args["mode"])
        and (session.max_ttl is None or max_ttl - fingerprints(max_ttl) <= session.max_ttl <= max_ttl)
    )


def _find_or_create(
    hook: IBMQuantumHook,
    context: Context,
    state: TaskState,
    session_args: dict[str, Any],
    *,
    dag_run_scoped: bool,
) -> tuple[Session, bool]:
    """Return the session that an earlier try was opening and True, or a new one and False."""
    earlier = state.pending_create
    if state.is_resumed and not state.is_durable:
        # Nothing is stored: the earlier try has asked for the same as this one.
        earlier = hook.prepare_session(**session_args)
        earlier = replace(earlier, created_after=context["dag_run"].start_date or earlier.created_after)
    # The session of an earlier request may be listed late: it stays known until one is opened.
    pending = earlier or hook.prepare_session(**session_args)
    try:
        if earlier:
            log.info(
                "An earlier try died while it was opening a session on %s: looking for it", earlier.backend
            )
            if found := hook.find_pending_session(earlier, dag_run_scoped=dag_run_scoped):
                return found, True
        state.save_pending_create(pending)
        try:
            return hook.create_pending_session(pending, dag_run_scoped=dag_run_scoped), False
        except AirflowTaskTimeout:
            _close_unanswered(hook, context, pending)
            raise
    except OutcomeUnknownError as error:
        error.message += f". See in IBM's console whether {pending.backend} has it: {hook.console_url()}"
        raise
    except IBMQuantumError:
        if not earlier:  # surely no session was opened
            state.clear_pending_create()
        raise


def _is_left_to_other_try(context: Context) -> bool:
    """Return True if another try is active and may resume the session, since it has not opened one itself."""
    try:
        return another_try_is_active(context) and not VariableSessionRegistry(context).ids_of_this_task()
    except Exception:  # whatever failed: a session too many costs more than one that the other try reopens
        log.warning("Airflow does not answer whether another try of the task is active", exc_info=True)
        return False


def _close_unanswered(hook: IBMQuantumHook, context: Context, pending: PendingCreate) -> None:
    """Leave no session behind when ``execution_timeout`` strikes while the response is awaited."""
    try:
        found = hook.find_pending_session(pending)
        if found and not _is_left_to_other_try(context):
            hook.close_session(found.id)
    except IBMQuantumError:
        log.exception("A session on %s may be open. Look for it at %s", pending.backend, hook.console_url())
