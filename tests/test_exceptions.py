# SPDX-License-Identifier: Apache-2.0
"""Messages that a user can act on: the remedy comes first, since Airflow's log view cuts long lines."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ibm_sessions.client.error_hints import ERROR_HINTS
from airflow_provider_ibm_sessions.client.errors import PlanError, ServerError
from airflow_provider_ibm_sessions.exceptions import IBMQuantumTaskError, job_error, raise_as_airflow_errors
from airflow_provider_ibm_sessions.links import console_url

JOB = {"id": "d85981d3kjvc73d4l3kg", "state": "Failed", "reason_code": 1517, "reason": "Error code 1517"}


def test_a_failed_job_says_what_its_code_means_and_where_it_is():
    error = job_error(JOB)
    assert error.code == "1517"
    assert str(error).startswith(f"Job {JOB['id']}: Failed. A circuit uses an instruction")
    assert "Transpile it for this backend" in error.message
    assert error.message.endswith(f"See {console_url(JOB['id'])}")


def test_an_unknown_code_has_the_solution_that_ibm_names():
    error = job_error({**JOB, "reason_code": 4242, "reason_solution": "Use fewer shots."})
    assert str(error).startswith(f"Job {JOB['id']}: Failed. Use fewer shots. Error code 1517")


def test_a_reason_without_end_does_not_push_the_remedy_out():
    error = job_error({**JOB, "reason": "x" * 100_000})
    assert "Transpile it for this backend" in error.message[:200]
    assert len(error.message) < 1200


@pytest.mark.parametrize("code", ERROR_HINTS)
def test_every_hint_says_in_its_first_hundred_characters_what_to_do(code):
    beginning = ERROR_HINTS[code][:100]
    verbs = ("Raise", "Try again", "Copy", "check", "use mode", "Transpile", "Switch", "Split", "decides")
    assert any(verb in beginning for verb in verbs), beginning


def test_the_cause_is_told_once():
    """Airflow's log view shows the message, and the traceback with all causes below it."""
    error = PlanError("The Open plan has no dedicated sessions: use mode='batch'", status=400, code="1352")
    with pytest.raises(AirflowFailException) as caught, raise_as_airflow_errors():
        raise error
    assert (caught.value.__cause__, error.__cause__, error.__context__) == (error, None, None)
    assert "use mode='batch'" in str(caught.value)[:100]


def test_what_a_retry_may_get_past_is_retried():
    with pytest.raises(IBMQuantumTaskError), raise_as_airflow_errors():
        raise ServerError("IBM failed", status=503)
