# SPDX-License-Identifier: Apache-2.0
"""Errors of the Airflow side, and how the client's errors become Airflow's: retried or not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_ibm_sessions.client.error_hints import ERROR_HINTS
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, JobFailedError

log = logging.getLogger(__name__)


class AirflowApiUnavailableError(IBMQuantumError):
    """A missing answer of Airflow's. Nothing was sent to IBM; a retry may get the answer."""

    retryable = True

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class IBMQuantumTaskError(AirflowException):
    """A failure that a retry of the task may get past."""


class TaskSupersededError(IBMQuantumTaskError):
    """The end of a try while another is active: session and jobs are left to that one."""


def to_airflow_exception(message: str, *, retryable: bool) -> AirflowException:
    """Return the exception that makes Airflow retry the task, or not."""
    return IBMQuantumTaskError(message) if retryable else AirflowFailException(message)


def job_error(report: Mapping[str, Any], url: str) -> JobFailedError:
    """
    Return the error of a job that has ended, but not well.

    :param report: What ``Job.to_json`` returns.
    :param url: The job's page.
    """
    code = report.get("reason_code")
    hint = ERROR_HINTS.get(str(code)) or report.get("reason_solution")
    texts = [f"Job {report['id']}: {report.get('state')}", hint, report.get("reason")]
    message = ". ".join(str(text).rstrip(".") for text in texts if text)
    return JobFailedError(f"{message[:1000]}. See {url}", code=None if code is None else str(code))


@contextmanager
def raise_as_airflow_errors(final: tuple[type[IBMQuantumError], ...] | None = None) -> Iterator[None]:
    """
    Translate the client's errors inside of the block.

    Airflow logs one traceback, of the task: that of the client says no more, and is logged at DEBUG.

    :param final: Errors after which the task is not to be retried; by default those that are not retryable.
    :raises AirflowFailException: For errors that a retry cannot get past: the task fails without retries.
    :raises IBMQuantumTaskError: For the others.
    """
    try:
        yield
    except IBMQuantumError as error:
        retryable = error.retryable if final is None else not isinstance(error, final)
        log.debug("The client's traceback", exc_info=True)
        raise to_airflow_exception(str(error), retryable=retryable) from None
