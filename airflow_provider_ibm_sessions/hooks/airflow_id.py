# SPDX-License-Identifier: Apache-2.0
"""
The id of this Airflow.

Two Airflows, one for tests and one for production, may run the same Dag on the same instance of IBM Quantum:
there the ids of Dag, run and task are equal. A random id, kept in a variable, tells their jobs apart.
"""

from __future__ import annotations

import secrets
import time
from typing import Final

from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks.airflow_lookup import ensure_variable_absent

VARIABLE: Final = "ibm_quantum_airflow_id"

_SETTLE_DELAY = 1.0
"""Seconds after which the id is read back, in case two tasks were the first at the same time."""


def airflow_id(team_name: str | None = None) -> str:
    """
    Return the id of this Airflow; the first task that asks creates it.

    :param team_name: The task's team, where Airflow has several: no team sees the variables of another, and
        no two can have a variable of the same name.
    :raises AirflowApiUnavailableError: If Airflow does not answer, or does not store it.
    """
    from airflow.providers.common.compat.sdk import Variable

    key = f"{VARIABLE}_{team_name}" if team_name else VARIABLE
    try:
        known = Variable.get(key, default=None) or ensure_variable_absent(key)
        if known is None:
            Variable.set(key, secrets.token_hex(8), "Tells this Airflow's jobs from those of another")
            time.sleep(_SETTLE_DELAY)
            known = Variable.get(key)
    except AirflowApiUnavailableError:
        raise
    except Exception as error:  # whatever it is: without the id, a retry would not find the jobs of this try
        raise AirflowApiUnavailableError(
            f"Airflow does not read or write the variable {key}: is its API server up?"
        ) from error
    return str(known)
