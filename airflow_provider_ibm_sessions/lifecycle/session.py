# SPDX-License-Identifier: Apache-2.0
"""Opens a session for a task that will own it, and never loses it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_ibm_sessions.client.enums import SessionMode
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, NotFoundError, OutcomeUnknownError
from airflow_provider_ibm_sessions.client.validation import (
    DEFAULT_MAX_TTL,
    to_seconds,
    validate_backend,
    validate_choice,
)
from airflow_provider_ibm_sessions.exceptions import IBMQuantumTaskError, TaskSupersededError
from airflow_provider_ibm_sessions.hooks.session_registry import (
    belongs_to_other_task,
    claim,
    has_another,
    raise_if_other_connection,
    strike,
)
from airflow_provider_ibm_sessions.lifecycle.task_state import Attempt
from airflow_provider_ibm_sessions.links import CONSOLE_URL, console_url

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ibm_sessions.client import IBMQuantumClient
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.client.recovery import Opening
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

log = logging.getLogger(__name__)

SESSION = "session_id"
"""Under this name an attempt keeps the session it has opened."""

_ASKED = "opening"


def validate_session_args(
    context: Context, *, backend: object, mode: object, max_ttl: object
) -> dict[str, Any]:
    """
    Return what a session is opened with.

    :param max_ttl: None: the Dag's ``dagrun_timeout``, at most and else IBM's default of 8 hours.
    :raises ConfigurationError: Naming the one that is wrong.
    """
    return {
        "backend": validate_backend(backend),
        "mode": validate_choice(mode, SessionMode, "mode"),
        "max_ttl": _seconds(max_ttl, context),
    }


def open_session(
    hook: IBMQuantumHook,
    context: Context,
    attempt: Attempt,
    wanted: dict[str, Any],
    keep: Callable[[Session], None],
) -> Session:
    """
    Open a session, or take up the one that an earlier attempt was opening when it died.

    What is asked for is noted before it is sent, and the id before anything else can fail.

    :param wanted: What :func:`validate_session_args` returns.
    :param keep: Called with the session. If it fails, the session is closed again.
    """
    opened = _opened(hook, context, attempt, wanted)
    session = opened.session
    try:
        _remember(attempt, session)
    except BaseException as error:
        if _is_left_to_successor(context, session):
            raise TaskSupersededError(
                f"Another attempt goes on: session {session.id} is left to it"
            ) from error
        if not opened.was_found:  # else another attempt may have found it as well
            close_quietly(hook, session.id)
        raise
    try:
        hook.log.info("Opened %s session %s: %s", wanted["mode"], session.id, console_url(session.id))
        _warn_of_less(hook, session, opened.max_ttl)
        keep(session)
    except TaskSupersededError:
        raise
    except BaseException:  # a timeout or a kill as well: raised again below
        close_quietly(hook, session.id)
        raise
    return session


def end_forsaken(hook: IBMQuantumHook, context: Context, attempt: Attempt) -> None:
    """End the sessions of earlier attempts that had other input, also one whose opening had no answer."""
    for key in attempt.forsaken:
        before = attempt.recall(SESSION, key)
        if not before and (opening := _noted_opening(hook, context, attempt, key)):
            before = _found_forsaken(hook, opening)
        if before:
            hook.log.warning("Earlier attempts had other input: ending what they have begun")
            end_before_anew(hook, before)
        attempt.ended_forsaken(key)


def _found_forsaken(hook: IBMQuantumHook, opening: Opening) -> str | None:
    unknown = OutcomeUnknownError("Create a session: an earlier attempt with other input may have opened one")
    try:
        found = opening.find_settled(hook.get_conn(), unknown)
    except OutcomeUnknownError as error:
        if error.retryable:
            raise
        hook.log.error("%s", error)  # noqa: TRY400
        return None
    return found.id if found else None


def get_if_accepting_jobs(hook: IBMQuantumHook, session_id: str) -> Session | None:
    """
    The session, if it takes jobs.

    :raises ConfigurationError: If it was opened at another connection, where it may be open still.
    """
    try:
        session = hook.get_session(session_id)
    except NotFoundError:
        raise_if_other_connection(session_id, hook.ibm_quantum_conn_id)
        return None
    return session if session.accepts_jobs else None


def _remember(attempt: Attempt, session: Session) -> None:
    """An attempt that was given up while it opened a session is not to hide that of its successor."""
    if (other := attempt.recall(SESSION)) and other != session.id:
        raise IBMQuantumTaskError(
            f"Another attempt has opened session {other} meanwhile: closing {session.id}"
        )
    attempt.remember(SESSION, session.id)


def _is_left_to_successor(context: Context, session: Session) -> bool:
    """Whether a later attempt, which looks for what this has asked for, may take the session up."""
    try:
        return Attempt(context).is_superseded and not has_another(context, session.id)
    except Exception:
        log.warning("Cannot tell whether another attempt goes on", exc_info=True)
        return False


@dataclass(frozen=True, slots=True)
class _Opened:
    """
    A session that is open now.

    :param max_ttl: What was asked for.
    :param was_found: Whether an earlier attempt has opened it.
    """

    session: Session
    max_ttl: int
    was_found: bool = False


def _opened(hook: IBMQuantumHook, context: Context, attempt: Attempt, wanted: dict[str, Any]) -> _Opened:
    earlier = _earlier_opening(hook, context, attempt, wanted)
    opening = earlier or _opening(hook, context, wanted)
    try:
        if earlier:
            hook.log.info("An earlier attempt died while it was opening a session: looking for that")
            unknown = OutcomeUnknownError("Create a session: an earlier attempt may have opened one")
            if found := earlier.find_settled(hook.get_conn(), unknown):
                return _Opened(found, earlier.max_ttl, was_found=True)
            opening = _opening(hook, context, wanted)
        _note(attempt, opening)
        return _Opened(opening.send(hook.get_conn()), opening.max_ttl)
    except AirflowTaskTimeout:
        _close_unanswered(hook, context, opening)
        raise
    except IBMQuantumError as error:
        if isinstance(error, OutcomeUnknownError):
            error.message += f". See in IBM's console whether {opening.backend} has it: {CONSOLE_URL}"
        elif not earlier:  # surely nothing was opened
            _forget(hook, attempt)
        raise


def _opening(hook: IBMQuantumHook, context: Context, wanted: dict[str, Any]) -> Opening:
    """What is to be asked for."""
    from airflow_provider_ibm_sessions.client.recovery import Opening, are_distinct, marked

    max_ttl = wanted["max_ttl"]
    place, places = _place(context)
    is_marked = are_distinct(max_ttl, places)
    return Opening(
        backend=wanted["backend"],
        mode=wanted["mode"],
        max_ttl=marked(max_ttl, _start(context) + place) if is_marked else max_ttl,
        since=datetime.now(UTC),
        is_marked=is_marked,
        **_in_ledger(hook, context),
    )


def _earlier_opening(
    hook: IBMQuantumHook, context: Context, attempt: Attempt, wanted: dict[str, Any]
) -> Opening | None:
    """What an attempt before this has asked for, if it had no answer."""
    if not attempt.can_remember:
        opening = _opening(hook, context, wanted)
        began = context["dag_run"].start_date or opening.since
        return None if attempt.is_first else replace(opening, since=began)
    return None if attempt.recall(SESSION) else _noted_opening(hook, context, attempt)


def _noted_opening(
    hook: IBMQuantumHook, context: Context, attempt: Attempt, key: str | None = None
) -> Opening | None:
    from airflow_provider_ibm_sessions.client.recovery import Opening

    noted = attempt.recall(_ASKED, key)
    if not noted:
        return None
    since = datetime.fromisoformat(noted["since"])
    return Opening(**{**noted, "since": since}, **_in_ledger(hook, context))


def _in_ledger(hook: IBMQuantumHook, context: Context) -> dict[str, Any]:
    """How an opening tells what is another's, and makes what it takes up its own."""
    return {
        "belongs_to_other_task": partial(belongs_to_other_task, context),
        "claim": partial(claim, context, conn_id=hook.ibm_quantum_conn_id),
    }


def _note(attempt: Attempt, opening: Opening) -> None:
    """Note what is asked for: the Dag, and so the mark, may be another when a retry looks for it."""
    if not attempt.can_remember:
        return
    if attempt.recall(SESSION):  # it is closed, and its id says nothing of the one that is opened now
        attempt.remember(SESSION, "")
    attempt.remember(
        _ASKED,
        {
            "backend": opening.backend,
            "mode": opening.mode,
            "max_ttl": opening.max_ttl,
            "since": opening.since.isoformat(),
            "is_marked": opening.is_marked,
        },
    )


def _forget(hook: IBMQuantumHook, attempt: Attempt) -> None:
    try:
        if attempt.can_remember:
            attempt.remember(_ASKED, "")
    except Exception:  # what IBM said is to be told
        hook.log.warning("The next attempt will look for a session that was not opened", exc_info=True)


def _start(context: Context) -> int:
    """Where the run's marks begin. With its start, since another Airflow may have the same Dag and run."""
    ti = context["ti"]
    run = f"{ti.dag_id} {ti.run_id} {context['dag_run'].start_date}"
    return int.from_bytes(hashlib.sha256(run.encode()).digest()[:4], "big")


def _place(context: Context) -> tuple[int, int]:
    """The task's place, which no other has, among those of its run that open sessions; and their number."""
    ti = context["ti"]
    openers = sorted(
        task.task_id
        for task in context["dag"].tasks
        if "max_ttl" in task.template_fields or task.task_id == ti.task_id
    )
    count = ti.get_ti_count(dag_id=ti.dag_id, run_ids=[ti.run_id], task_ids=openers)
    most_mapped = max(1, count - len(openers) + 1)
    place = openers.index(ti.task_id) + max(ti.map_index or 0, 0) * len(openers)
    return place, most_mapped * len(openers)


def _close_unanswered(hook: IBMQuantumHook, context: Context, opening: Opening) -> None:
    """``execution_timeout`` has struck while the outcome was open: leave no session behind."""
    try:
        found = opening.find_settled(hook.get_conn(), OutcomeUnknownError("Create a session"))
        if found and not _is_left_to_successor(context, found):
            close(hook, found.id)
    except IBMQuantumError:
        hook.log.exception("A session on %s may be open: look at IBM's console", opening.backend)


def _warn_of_less(hook: IBMQuantumHook, session: Session, asked: int) -> None:
    if session.max_ttl is not None and session.max_ttl < asked:
        hook.log.warning(
            "IBM granted max_ttl %d s, not the %d s asked for: the plan's limit", session.max_ttl, asked
        )


def _seconds(max_ttl: object, context: Context) -> int:
    if max_ttl is not None:
        return to_seconds(max_ttl, "max_ttl")
    limit = context["dag"].dagrun_timeout
    return min(to_seconds(limit, "dagrun_timeout"), DEFAULT_MAX_TTL) if limit else DEFAULT_MAX_TTL


def close(hook: IBMQuantumHook, session_id: str) -> Session | None:
    """
    Close a session for certain; see :meth:`IBMQuantumHook.close_session`.

    :returns: The session as it is now, or None if IBM does not know it.
    :raises ConfigurationError: If it was opened at another connection.
    """
    session = hook.close_session(session_id)
    if session is None:  # its entry stays: IBM may show it late
        raise_if_other_connection(session_id, hook.ibm_quantum_conn_id)
    else:
        strike(session_id)
    return session


def close_quietly(hook: IBMQuantumHook, session_id: str) -> None:
    """Leave nothing open that nobody knows of; the first error is the one to be told."""
    try:
        close(hook, session_id)
    except IBMQuantumError:
        hook.log.exception("Session %s is left open. Close it at %s", session_id, console_url(session_id))


def end_all(
    hook: IBMQuantumHook, session_id: str | None, job_ids: Iterable[str] = (), *, single_attempt: bool = False
) -> None:
    """
    Close a session and cancel jobs, as far as that can be done.

    :param single_attempt: In the last seconds of a task that is being killed: one short attempt at each.
    """
    from airflow_provider_ibm_sessions.client import flows

    hook.log.info("Ending %s", f"session {session_id} and its jobs" if session_id else ", ".join(job_ids))
    with hook.short_lived_client(single_attempt=single_attempt) as client:
        trouble = client.run_flow(flows.end_all(session_id, job_ids))
    for text in trouble:
        hook.log.error("%s", text)


def end_before_anew(hook: IBMQuantumHook, session_id: str) -> None:
    """
    End what earlier attempts have begun, for certain, before it is forgotten.

    :raises IBMQuantumError: If the session is not closed; names it and its page in IBM's console.
    """
    end_all(hook, session_id)
    close(hook, session_id)


def drain(hook: IBMQuantumHook, session_id: str, *, single_attempt: bool) -> None:
    """
    Leave no session that takes more jobs, where those of a task that ends too early are to run on.

    :param single_attempt: In the last seconds of a task that is being killed: one short attempt.
    """
    from airflow_provider_ibm_sessions.client import flows

    with hook.short_lived_client(single_attempt=single_attempt) as client:
        for text in client.run_flow(flows.drain(session_id)):
            hook.log.error("%s", text)


def cancel_job_by_tag(hook: IBMQuantumHook, tag: str, *, single_attempt: bool = False) -> None:
    """
    Cancel the job with this tag, if it was submitted, when the task ends too early.

    :param single_attempt: In the last seconds of a task that is being killed: one short attempt each.
    """
    try:
        with hook.short_lived_client(single_attempt=single_attempt) as client:
            _cancel_tagged(client, tag)
    except IBMQuantumError as error:
        hook.log.error("%s", error)  # noqa: TRY400


def cancel_before_anew(hook: IBMQuantumHook, tag: str) -> None:
    """
    Cancel the job that an earlier attempt has submitted under this tag, if it has, before it is forgotten.

    :raises IBMQuantumError: If that cannot be done.
    """
    _cancel_tagged(hook.get_conn(), tag)


def _cancel_tagged(client: IBMQuantumClient, tag: str) -> None:
    from airflow_provider_ibm_sessions.client.submission import find_job

    job = find_job(client, tag)
    if job is not None and client.cancel_job(job.id):
        log.info("Cancelled job %s", job.id)
