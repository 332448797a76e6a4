# SPDX-License-Identifier: Apache-2.0
"""The candidates, and the Airflow connections that each of them needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.idle.experiment import API_VERSION


@dataclass(frozen=True)
class Candidate:
    """A Dag, and the task whose process waits; None: the triggerer waits."""

    dag_id: str
    label: str
    waits: str | None = None


OURS = Candidate("run_jobs", "run-jobs operator")
DECORATOR = Candidate("jobs_decorator", "@task.ibm_quantum_jobs")
PYTHON = Candidate("qiskit_session", "Qiskit's Session in a PythonOperator", waits="experiment")
ALL = (
    OURS,
    DECORATOR,
    Candidate("four_operators", "create, submit x 10, drain, sensor, close"),
    PYTHON,
    Candidate("http_provider", "HttpOperators and an HttpSensor", waits="wait"),
)


def connections(candidate: Candidate, about: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that hold a candidate's connections to its own service."""
    if candidate.dag_id == "http_provider":
        headers = {"Service-CRN": about["crn"], "IBM-API-Version": API_VERSION, "Accept": "application/json"}
        iam = {"conn_type": "http", "host": about["iam_url"], "password": about["password"]}
        api = {"conn_type": "http", "host": about["host"], "extra": headers}
        return {**_named("http_provider_iam", iam), **_named("http_provider", api)}
    extra = {"crn": about["crn"], "iam_url": about["iam_url"]}
    fields = {"conn_type": "ibm_quantum", "host": about["host"], "password": about["password"]}
    return _named(candidate.dag_id, {**fields, "extra": extra})


def _named(conn_id: str, fields: Mapping[str, Any]) -> dict[str, str]:
    return {f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(fields)}
