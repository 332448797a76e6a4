# SPDX-License-Identifier: Apache-2.0
"""
Close a session, and confirm it by reading the session.

A lost or refused request to close leaves a session that is billed, so it is repeated until IBM says that the
session is closed.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from airflow_provider_ibm_sessions.client.enums import PENDING_CLOSED
from airflow_provider_ibm_sessions.client.errors import (
    USER_ACTION_REQUIRED,
    BadResponseError,
    IBMQuantumError,
    NotFoundError,
    ServerError,
)

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.client import IBMQuantumClient
    from airflow_provider_ibm_sessions.client.models.sessions import Session

log = logging.getLogger(__name__)

_ATTEMPTS = 5
_DELAY = 2.0
"""Seconds between two attempts."""


def close_and_confirm(client: IBMQuantumClient, session_id: str) -> Session | None:
    """
    Close a session until it reads as closed.

    :returns: The session as it is now, or None if IBM does not know it.
    :raises IBMQuantumError: If it is not closed after several attempts, or a person has to act first.
    """
    last: IBMQuantumError | None = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_DELAY)
        try:
            client.close_session(session_id)
        except USER_ACTION_REQUIRED:
            raise
        except IBMQuantumError as error:
            log.warning("%s", error)
            last = error
        try:
            session = client.get_session(session_id)
        except NotFoundError:
            return None
        except BadResponseError as error:
            last = error
            continue
        # The state decides, not the response to closing. That it accepts no jobs proves nothing: a draining
        # session does not either, and its queue may run for hours.
        if session.is_closed or session.state == PENDING_CLOSED:
            return session
    reason = f". {last}" if last else ""
    raise ServerError(
        f"Close a session: {session_id} is still not closed after {_ATTEMPTS} attempts{reason}"
    ) from last


def drain_and_read(client: IBMQuantumClient, session_id: str) -> Session | None:
    """Drain a session that could not be closed, and return it as it is now; None if that failed too."""
    try:
        client.update_session(session_id, accepting_jobs=False)
        return client.get_session(session_id)
    except IBMQuantumError as error:
        log.warning("%s", error)
        return None
