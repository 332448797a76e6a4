# SPDX-License-Identifier: Apache-2.0
"""Candidate: the HTTP provider's operator and sensor, as a careful user writes it without this package."""

from __future__ import annotations

import json

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, chain

from benchmarks.idle.experiment import (
    BACKEND,
    HTTP_POLL_SECONDS,
    JOBS,
    MAX_TTL,
    sampler_params,
)

SESSION = "{{ ti.xcom_pull('create') }}"
# The instance's CRN, the API version and Accept are headers in the connection's extra.
HEADERS = {"Authorization": "Bearer {{ ti.xcom_pull('token') }}"}
AS_JSON = {**HEADERS, "Content-Type": "application/json"}
JOB = {"program_id": "sampler", "backend": BACKEND, "session_id": SESSION, "params": sampler_params()}


def id_of(response) -> str:
    """The id in a reply."""
    return response.json()["id"]


def nothing_pending(response) -> bool:
    """Return True if all jobs have ended."""
    return response.json()["count"] == 0


with DAG("http_provider", schedule=None, default_args={"http_conn_id": "http_provider"}):
    token = HttpOperator(
        task_id="token",
        http_conn_id="http_provider_iam",
        endpoint="identity/token",
        headers={"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"},
        data={
            "grant_type": "urn:ibm:params:oauth:grant-type:apikey",
            "apikey": "{{ conn.http_provider_iam.password }}",
        },
        response_filter=lambda response: response.json()["access_token"],
    )
    create = HttpOperator(
        task_id="create",
        endpoint="v1/sessions",
        headers=AS_JSON,
        data=json.dumps({"mode": "dedicated", "backend": BACKEND, "max_ttl": MAX_TTL}),
        response_filter=id_of,
    )
    submits = [
        HttpOperator(
            task_id=f"submit_{number}",
            endpoint="v1/jobs",
            headers=AS_JSON,
            data=json.dumps(JOB),
            response_filter=id_of,
        )
        for number in range(JOBS)
    ]
    wait = HttpSensor(
        task_id="wait",
        endpoint="v1/jobs",
        request_params={"session_id": SESSION, "pending": "true"},
        headers=HEADERS,
        response_check=nothing_pending,
        poke_interval=HTTP_POLL_SECONDS,
    )
    close = HttpOperator(
        task_id="close", endpoint=f"v1/sessions/{SESSION}/close", method="DELETE", headers=HEADERS
    )
    chain(token, create, submits, wait, close.as_teardown(setups=create))
