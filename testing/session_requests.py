# SPDX-License-Identifier: Apache-2.0
"""Requests about sessions: faults for them, those that the fake has seen, a job as any client submits it."""

from __future__ import annotations

from typing import Any

import httpx

from testing.fake_ibm import FakeIBM, Fault

CREATE = ("POST", "/v1/sessions")


def create_requests(ibm: FakeIBM) -> list[Any]:
    """Return the requests that the fake has seen for a new session."""
    return ibm.requests(*CREATE)


def lost_response(**fault: Any) -> Fault:
    """Return a fault: a session is created, and the response never arrives."""
    return Fault(*CREATE, phase="after", **{"drop": True, **fault})


def dropped_request(**fault: Any) -> Fault:
    """Return a fault: the connection ends before a session is created."""
    return Fault(*CREATE, **{"drop": True, **fault})


def assert_asked(ibm: FakeIBM, seconds: int) -> None:
    """
    Check the ``max_ttl`` of the only request for a session.

    It may be less by a fingerprint of the task that asks: by a sixteenth, and by 256 s, at most.
    """
    [request] = create_requests(ibm)
    assert seconds - min(256, seconds / 16) <= request.json["max_ttl"] < seconds


def is_open(ibm: FakeIBM, session_id: str) -> bool:
    """Return False if the session is closed."""
    return ibm.sessions[session_id].state != "closed"


def submit_job(ibm: FakeIBM, session_id: str) -> str:
    """Submit a job to a session, as any client of IBM's API would; return its id."""
    token = httpx.post(
        f"{ibm.iam_url}/identity/token",
        data={"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": ibm.api_key},
        headers={"Accept": "application/json"},
    ).json()["access_token"]
    headers = {
        "Authorization": f"Bearer {token}",
        "Service-CRN": ibm.crn,
        "IBM-API-Version": "2026-04-15",
        "Accept": "application/json",
        "X-Qx-Client-Application": "test",
    }
    body = {
        "program_id": "sampler",
        "backend": ibm.sessions[session_id].backend,
        "session_id": session_id,
        "params": {"pubs": [["OPENQASM 3.0; bit[1] c;"]], "version": 2},
    }
    response = httpx.post(f"{ibm.url}/v1/jobs", json=body, headers=headers)
    assert response.is_success, response.text
    return str(response.json()["id"])


def share_fingerprint(monkeypatch: Any) -> None:
    """Let all tasks ask for the same max_ttl, as strangers may."""
    hook = "airflow_provider_ibm_sessions.hooks.ibm_quantum"
    monkeypatch.setattr(f"{hook}.max_ttl_with_fingerprint", lambda _, max_ttl: (max_ttl - 7, True))
