# SPDX-License-Identifier: Apache-2.0
"""The private way to Airflow's supervisor: what is used of it, and what happens when it changes."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import comms, task_runner

from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks import airflow_lookup
from airflow_provider_ibm_sessions.hooks.airflow_lookup import (
    ensure_connection_absent,
    ensure_variable_absent,
    has_secrets_backend,
)

CHECKS = {"connection": ensure_connection_absent, "variable": ensure_variable_absent}


@pytest.fixture
def supervisor(monkeypatch):
    """A supervisor that gives one response, or raises it."""

    def answer(response):
        def send(request):
            asked.append(request)
            if isinstance(response, Exception):
                raise response
            return response

        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(send=send), raising=False)
        return asked

    asked: list = []
    return answer


def test_the_private_parts_that_are_used_are_there():
    """If this fails, a new Airflow has moved what ``hooks/airflow_lookup.py`` relies on."""
    assert airflow_lookup.COMMS in task_runner.__annotations__
    assert comms.GetConnection(conn_id="c").conn_id == "c"
    assert comms.GetVariable(key="k").key == "k"
    assert comms.ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND).error is ErrorType.CONNECTION_NOT_FOUND
    assert comms.ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND).error is ErrorType.VARIABLE_NOT_FOUND
    assert comms.VariableResult(key="k", value="v").value == "v"


@pytest.mark.parametrize("kind", CHECKS)
def test_a_definite_no_is_accepted(supervisor, kind):
    asked = supervisor(comms.ErrorResponse(error=ErrorType[f"{kind.upper()}_NOT_FOUND"]))
    assert CHECKS[kind]("x") is None
    assert len(asked) == 1


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize(
    "response",
    [
        comms.ErrorResponse(error=ErrorType.GENERIC_ERROR),
        comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR),
        ConnectionError("gone"),
        None,
        comms.OKResponse(ok=True),
    ],
    ids=repr,
)
def test_silence_is_not_taken_for_a_no(supervisor, kind, response):
    supervisor(response)
    with pytest.raises(AirflowApiUnavailableError, match=f"did not say if it has the {kind} 'x'") as caught:
        CHECKS[kind]("x")
    assert caught.value.retryable


def test_a_variable_that_was_written_meanwhile_is_returned(supervisor):
    supervisor(comms.VariableResult(key="x", value="v"))
    assert ensure_variable_absent("x") == "v"


@pytest.mark.parametrize("kind", CHECKS)
def test_outside_of_a_task_nobody_is_asked(monkeypatch, kind):
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)
    assert CHECKS[kind]("x") is None
    monkeypatch.delitem(sys.modules, airflow_lookup.TASK_RUNNER)
    assert CHECKS[kind]("x") is None
    assert has_secrets_backend() is False


@pytest.mark.parametrize("kind", CHECKS)
def test_an_airflow_without_them_is_named(supervisor, monkeypatch, kind):
    supervisor(None)
    monkeypatch.delattr(comms, f"Get{kind.title()}")
    with pytest.raises(
        RuntimeError, match=rf"^Airflow \d.* has no comms.Get{kind.title()}.*Upgrade the provider"
    ):
        CHECKS[kind]("x")
    bare = ModuleType("task_runner")
    bare.__annotations__ = {}
    monkeypatch.setitem(sys.modules, airflow_lookup.TASK_RUNNER, bare)
    with pytest.raises(RuntimeError, match=r"has no .*SUPERVISOR_COMMS"):
        CHECKS[kind]("x")
