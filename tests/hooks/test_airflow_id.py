# SPDX-License-Identifier: Apache-2.0
"""The id by which this Airflow's jobs differ from those of another."""

from __future__ import annotations

import pytest
from airflow.sdk import Variable

from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks import airflow_id as module
from airflow_provider_ibm_sessions.hooks.airflow_id import VARIABLE, airflow_id

pytestmark = pytest.mark.usefixtures("airflow_db")


@pytest.fixture
def variables(monkeypatch):
    """Airflow's variables; outside of a task, they can only be read."""
    stored = {}
    monkeypatch.setattr(module, "_SETTLE_DELAY", 0.0)
    monkeypatch.setattr(Variable, "get", lambda key, default=None: stored.get(key, default))
    monkeypatch.setattr(Variable, "set", lambda key, value, description=None: stored.update({key: value}))
    return stored


def test_it_stays_the_same(variables):
    assert airflow_id() == airflow_id() == variables[VARIABLE]


def test_each_team_has_one_of_its_own(variables):
    assert len({airflow_id(), airflow_id("physics"), airflow_id("chemistry")}) == 3
    assert sorted(variables) == [VARIABLE, f"{VARIABLE}_chemistry", f"{VARIABLE}_physics"]


def test_of_two_tasks_that_are_the_first_both_use_the_last_written(variables, monkeypatch):
    def write_after_another(key, value, description=None):
        variables[key] = "written by another task meanwhile"

    monkeypatch.setattr(Variable, "set", write_after_another)
    assert airflow_id() == "written by another task meanwhile"


@pytest.mark.parametrize("method", ["get", "set"])
def test_an_airflow_that_does_not_answer_is_a_reason_to_retry(variables, monkeypatch, method):
    def fail(*_, **__):
        raise RuntimeError("Airflow's API: 503")

    monkeypatch.setattr(Variable, method, fail)
    with pytest.raises(AirflowApiUnavailableError, match=VARIABLE) as raised:
        airflow_id()
    assert raised.value.retryable
