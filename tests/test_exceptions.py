# SPDX-License-Identifier: Apache-2.0
"""Messages that a user can act on: the remedy comes first, since Airflow's log view cuts long lines."""

from __future__ import annotations

import logging
import traceback

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ibm_sessions.client.error_hints import ERROR_HINTS
from airflow_provider_ibm_sessions.client.errors import PlanError, ServerError
from airflow_provider_ibm_sessions.exceptions import IBMQuantumTaskError, job_error, raise_as_airflow_errors
from airflow_provider_ibm_sessions.links import console_url

JOB = {"id": "d85981d3kjvc73d4l3kg", "state": "Failed", "reason_code": 1517, "reason": "Error code 1517"}
URL = console_url(str(JOB["id"]))


def test_a_failed_job_says_what_its_code_means_and_where_it_is():
    error = job_error(JOB, URL)
    assert error.code == "1517"
    assert str(error).startswith(f"Job {JOB['id']}: Failed. Transpile the circuits for this backend")
    assert "one uses an instruction that the QPU does not have" in error.message
    assert error.message.endswith(f"See {URL}")


def test_an_unknown_code_has_the_solution_that_ibm_names():
    error = job_error({**JOB, "reason_code": 4242, "reason_solution": "Use fewer shots."}, URL)
    assert str(error).startswith(f"Job {JOB['id']}: Failed. Use fewer shots. Error code 1517")


def test_a_reason_without_end_does_not_push_the_remedy_out():
    error = job_error({**JOB, "reason": "x" * 100_000}, URL)
    assert "Transpile the circuits for this backend" in error.message[:100]
    assert len(error.message) < 1200


@pytest.mark.parametrize("code", ERROR_HINTS)
def test_every_hint_says_in_its_first_hundred_characters_what_to_do(code):
    beginning = ERROR_HINTS[code][:100]
    verbs = ("Raise", "Try again", "Copy", "check", "Use mode", "Transpile", "Switch", "Split", "decides")
    assert any(verb in beginning for verb in verbs), beginning


def test_the_log_has_one_traceback(caplog):
    """Airflow logs the task's error with all causes: the client's own says no more, and is for DEBUG."""
    caplog.set_level(logging.DEBUG, "airflow_provider_ibm_sessions.exceptions")
    error = PlanError("Use mode='batch': the Open plan has no dedicated sessions", status=400, code="1352")
    with pytest.raises(AirflowFailException) as caught, raise_as_airflow_errors():
        raise error
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Use mode='batch'") == 1
    assert shown.count("Traceback") == 1
    [record] = caplog.records
    assert (record.levelname, record.exc_info[1]) == ("DEBUG", error)


def test_what_a_retry_may_get_past_is_retried():
    with pytest.raises(IBMQuantumTaskError), raise_as_airflow_errors():
        raise ServerError("IBM failed", status=503)
