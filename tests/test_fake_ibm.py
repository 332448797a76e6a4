# SPDX-License-Identifier: Apache-2.0
"""Pins the strict fake and the emulator to IBM's API reference, over real HTTP."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from airflow_provider_ibm_sessions.emulator.simulation.simulator import Simulator
from testing.fake_ibm import FakeIBM, Fault, Outcome
from testing.fake_ibm.devices import devices_in_all_states
from testing.stepped_emulator import SteppedEmulator

if TYPE_CHECKING:
    from collections.abc import Iterator

GRANT = "urn:ibm:params:oauth:grant-type:apikey"
BACKEND = "ibm_fez"
QASM = (
    'OPENQASM 3.0; include "stdgates.inc"; bit[2] c; bit[70] wide; x $0; '
    "c[0] = measure $0; wide[69] = measure $0;"
)
PARAMS = {"pubs": [[QASM, None, 8]]}


Service = FakeIBM | SteppedEmulator


class Caller:
    """A client with no opinions: sends what the test says, with valid headers."""

    def __init__(self, ibm: Service) -> None:
        self.ibm = ibm
        self.http = httpx.Client(timeout=120, verify=False)
        self.headers: dict[str, str] = {}
        self.login()

    def token(self, **form: str) -> httpx.Response:
        form = {"grant_type": GRANT, "apikey": self.ibm.api_key} | form
        return self.http.post(
            f"{self.ibm.iam_url}/identity/token", data=form, headers={"Accept": "application/json"}
        )

    def login(self) -> None:
        self.headers = {
            "Authorization": f"Bearer {self.token().json()['access_token']}",
            "Service-CRN": self.ibm.crn,
            "IBM-API-Version": "2026-04-15",
            "Accept": "application/json",
            "X-Qx-Client-Application": "test",
        }

    def __call__(self, method: str, path: str, body: Any = None, **headers: str | None) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        merged = {k: v for k, v in (self.headers | named).items() if v is not None}
        url = f"{self.ibm.url}/v1/{path}"
        return self.http.request(method, url, headers=merged, json=body)

    def open(self, **fields: Any) -> str:
        reply = self("POST", "sessions", {"mode": "dedicated", "backend": BACKEND} | fields)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["id"])

    def submit(self, session: str | None = None, **fields: Any) -> str:
        body = {"program_id": "sampler", "backend": BACKEND, "params": PARAMS} | fields
        reply = self("POST", "jobs", body | ({"session_id": session} if session else {}))
        assert reply.status_code == 200, reply.text
        return str(reply.json()["id"])

    def session(self, name: str) -> dict[str, Any]:
        return dict(self("GET", f"sessions/{name}").json())

    def job(self, name: str) -> dict[str, Any]:
        return dict(self("GET", f"jobs/{name}").json())


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    pytest.importorskip("qiskit_aer")
    running = Simulator(seed=5)
    yield running
    running.close()


@pytest.fixture(params=["fake", "emulator"])
def ibm(request: pytest.FixtureRequest) -> Iterator[Service]:
    kind = FakeIBM(frozen=True)
    if request.param == "emulator":
        kind = SteppedEmulator(request.getfixturevalue("simulator"))
    with kind as running:
        yield running


only_the_fake = pytest.mark.parametrize("ibm", ["fake"], indirect=True)
"""For what the emulator does not offer: planned outcomes, faults, the journal of requests."""


@pytest.fixture
def call(ibm: Service) -> Iterator[Caller]:
    caller = Caller(ibm)
    yield caller
    caller.http.close()


def first_error(reply: httpx.Response) -> dict[str, Any]:
    body = reply.json()
    assert set(body) == {"errors", "trace"}
    return dict(body["errors"][0])


# -- IAM -----------------------------------------------------------------------------------------------------


@only_the_fake
def test_the_key_is_exchanged_for_a_token(ibm: Service, call: Caller) -> None:
    body = call.token().json()
    now = int(ibm.clock.now())
    assert body["token_type"] == "Bearer" and body["refresh_token"] == "not_supported"
    assert body["expires_in"] == 3600 and body["expiration"] == now + 3600
    payload = body["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert (claims["iat"], claims["exp"]) == (now, now + 3600)
    assert len(ibm.api_key) == 44 and not ibm.leaks


def test_iam_refuses_in_its_two_shapes(ibm: Service, call: Caller) -> None:
    unknown = call.token(apikey="x" * 44)
    assert unknown.status_code == 400
    assert unknown.json()["errorCode"] == "BXNIM0415E" and unknown.json()["context"]["requestId"]
    wrong = [call.token(grant_type="password"), call.token(apikey="")]
    wrong.append(call.http.post(f"{ibm.iam_url}/identity/token", json={"apikey": ibm.api_key}))
    form = {"grant_type": GRANT, "apikey": ibm.api_key}
    wrong.append(call.http.post(f"{ibm.iam_url}/identity/token", data=form))
    for reply in wrong:
        assert reply.status_code == 400 and reply.json()["status_code"] == 400 and reply.json()["errors"]


@only_the_fake
def test_tokens_expire_and_can_be_revoked(ibm: Service, call: Caller) -> None:
    name = call.open(mode="batch")
    ibm.clock.advance(3599)
    assert call("GET", f"sessions/{name}").status_code == 200
    ibm.clock.advance(1)
    refused = call("GET", f"sessions/{name}")
    assert refused.status_code == 401 and first_error(refused)["message"]
    call.login()
    assert call("GET", f"sessions/{name}").status_code == 200
    ibm.revoke_tokens()
    assert call("GET", f"sessions/{name}").status_code == 401
    assert len(ibm.tokens) == 2 and ibm.state()["token_exchanges"] == 2


# -- headers and paths ---------------------------------------------------------------------------------------


def test_every_call_but_versions_needs_token_and_crn(ibm: Service, call: Caller) -> None:
    bare = call.http.get(f"{ibm.url}/v1/versions")
    assert bare.status_code == 200
    assert [each["version"] for each in bare.json()["versions"] if each["status"] == "live"] == ["2026-04-15"]
    cases: list[tuple[dict[str, str | None], int, int | str]] = [
        ({"Authorization": None}, 401, "unauthorized"),
        ({"Authorization": "Bearer nonsense"}, 401, "unauthorized"),
        ({"Service_CRN": None}, 400, 1241),
        ({"Service_CRN": "crn:v1:nonsense"}, 400, 1348),
        ({"IBM_API_Version": "April"}, 400, "bad_request"),
    ]
    for headers, status, code in cases:
        reply = call("GET", "backends", **headers)
        assert (reply.status_code, first_error(reply)["code"]) == (status, code)
    assert call("GET", "backends", IBM_API_Version=None).json()["devices"][0] == BACKEND


def test_a_crn_of_another_region_is_404_and_named(ibm: Service, call: Caller) -> None:
    other = ibm.crn.replace("us-east", "eu-de")
    reply = call("GET", "backends", Service_CRN=other)
    assert reply.status_code == 404
    assert first_error(reply)["code"] == 1279 and other in first_error(reply)["message"]


@only_the_fake
def test_the_raw_key_outside_iam_is_a_leak(ibm: Service, call: Caller) -> None:
    assert call("GET", "backends", Authorization=f"apikey {ibm.api_key}").status_code == 401
    call("POST", "sessions", {"mode": "dedicated", "key": ibm.api_key})
    call("GET", f"workloads?search={ibm.api_key}")
    assert [leak.rpartition(" ")[2] for leak in ibm.leaks] == ["authorization", "body", "URL"]


@only_the_fake
def test_requests_of_a_careless_client_are_noted(ibm: Service, call: Caller) -> None:
    call("GET", "backends")
    assert ibm.complaints == []
    call("GET", "backends", IBM_API_Version=None, Accept="*/*", X_Qx_Client_Application=None)
    assert len(ibm.complaints) == 3


@pytest.mark.parametrize("path", ["nonsense", "sessions/", "jobs/", "sessions/../x", "sessions//close"])
def test_unknown_paths_and_empty_ids_get_the_web_application(call: Caller, path: str) -> None:
    reply = call("GET", path)
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/html")
    assert 250_000 < len(reply.content) < 320_000


@only_the_fake
def test_an_encoded_id_stays_an_id(ibm: Service, call: Caller) -> None:
    reply = call("GET", "sessions/..%2Fx")
    assert reply.status_code == 404 and "../x" in first_error(reply)["message"]
    assert ibm.journal[-1].path == "/v1/sessions/..%2Fx" and ibm.journal[-1].operation == "get_session"
    assert call("GET", "sessions/%2E%2E%2Fjobs").status_code == 404


# -- sessions ------------------------------------------------------------------------------------------------


def test_a_fresh_session(ibm: Service, call: Caller) -> None:
    session = call.session(call.open())
    assert len(session["id"]) == 36 and session["user_id"] == ibm.user_id
    assert (session["interactive_ttl"], session["max_ttl"], session["active_ttl"]) == (60, 28800, 28800)
    assert (session["state"], session["state_reason"], session["accepting_jobs"]) == (
        "open",
        "session_created",
        True,
    )
    empty = ("started_at", "activated_at", "closed_at", "last_job_started", "elapsed_time")
    assert all(session[name] is None for name in empty) and "created_at" not in session
    assert session["timestamps"][0]["status"] == "open"


def test_create_refuses_and_clamps(ibm: Service, call: Caller) -> None:
    wrong = call("POST", "sessions", {"mode": "dedicatd", "backend": BACKEND})
    assert wrong.status_code == 500 and wrong.json()["message"] == "Internal server error"
    for fields in ({"max_ttl": 0}, {"max_ttl": "60"}, {"max_ttl": True}, {"backend": "ibm_gone"}):
        reply = call("POST", "sessions", {"mode": "batch", "backend": BACKEND} | fields)
        assert reply.status_code == 400 and first_error(reply)["message"]
    assert call.session(call.open(max_ttl=10**6))["max_ttl"] == 28800
    assert call.session(call.open(backend=None, backend_name=BACKEND))["backend_name"] == BACKEND


def test_the_open_plan_has_batches_of_ten_minutes_only(ibm: Service, call: Caller) -> None:
    ibm.settings.plan = "open"
    reply = call("POST", "sessions", {"mode": "dedicated", "backend": BACKEND})
    assert reply.status_code == 400 and first_error(reply)["code"] == 1352
    assert call.session(call.open(mode="batch", max_ttl=28800))["max_ttl"] == 600


def test_patch_takes_one_boolean(call: Caller) -> None:
    name = call.open()
    bodies: list[Any] = [[], {}, {"accepting_jobs": "false"}, {"accepting_jobs": False, "max_ttl": 1}]
    for body in bodies:
        assert call("PATCH", f"sessions/{name}", body).status_code == 400
    assert call("PATCH", "sessions/unknown", {"accepting_jobs": False}).status_code == 404
    assert call.session(name)["accepting_jobs"] is True


def test_draining_an_empty_session_closes_it_for_good(call: Caller) -> None:
    name = call.open()
    assert call("PATCH", f"sessions/{name}", {"accepting_jobs": False}).status_code == 204
    session = call.session(name)
    assert (session["state"], session["state_reason"]) == ("closed", "session_closed_early")
    assert session["closed_at"] and not session["accepting_jobs"]
    assert call("PATCH", f"sessions/{name}", {"accepting_jobs": True}).status_code == 204
    assert (call.session(name)["state"], call.session(name)["accepting_jobs"]) == ("closed", True)
    body = {"program_id": "sampler", "backend": BACKEND, "params": PARAMS, "session_id": name}
    assert first_error(call("POST", "jobs", body))["code"] == 1217
    assert call("DELETE", f"sessions/{name}/close").status_code == 204


def test_draining_lets_queued_jobs_run_and_closes_with_the_last(ibm: Service, call: Caller) -> None:
    name = call.open()
    ibm.settings.lanes = 1
    jobs = [call.submit(name) for _ in range(3)]
    assert [call.job(job)["status"] for job in jobs] == ["Running", "Queued", "Queued"]
    call("PATCH", f"sessions/{name}", {"accepting_jobs": False})
    assert call.session(name)["state"] == "active"
    ibm.clock.advance(100)
    session = ibm.sessions[name]
    assert session.started_at
    assert session.closed_at == session.started_at + 3.0 == session.last_job_completed
    assert [job.status for job in ibm.jobs.values()] == ["Completed"] * 3
    assert session.billed_seconds == call.session(name)["elapsed_time"] == 3.0


def test_a_session_drained_while_its_jobs_still_queue_runs_them(ibm: Service, call: Caller) -> None:
    ibm.settings.queue_seconds, ibm.settings.one_job_at_a_time = 3600, True
    name = call.open()
    jobs = [call.submit(name) for _ in range(2)]
    call("PATCH", f"sessions/{name}", {"accepting_jobs": False})
    ibm.clock.advance(3599)
    session = call.session(name)
    assert (session["state"], session["accepting_jobs"]) == ("open", False)
    ibm.clock.advance(3)
    call.login()  # the queue outlived the token
    assert [call.job(job)["status"] for job in jobs] == ["Completed"] * 2
    assert call.session(name)["state"] == "closed" and ibm.sessions[name].billed_seconds == pytest.approx(2)


def test_close_fails_queued_jobs_and_lets_running_ones_finish(ibm: Service, call: Caller) -> None:
    name = call.open()
    ibm.settings.lanes, ibm.settings.job_seconds = 1, 10
    running, queued = call.submit(name), call.submit(name)
    ibm.clock.advance(4)
    assert call("DELETE", f"sessions/{name}/close").status_code == 204
    assert call("DELETE", f"sessions/{name}/close").status_code == 204
    assert call.session(name)["state"] == "closed" and call.job(running)["status"] == "Running"
    state = call.job(queued)["state"]
    assert (state["status"], state["reason_code"]) == ("Failed", 1217)
    assert ibm.jobs[queued].ran(ibm.clock.now()) == 0
    ibm.clock.advance(60)
    assert call.job(running)["status"] == "Completed"
    # Billed until the last job ended, although the session was closed before.
    assert ibm.sessions[name].billed_seconds == pytest.approx(10)
    unknown = call("DELETE", "sessions/unknown/close")
    assert unknown.status_code == 404 and "unknown" in first_error(unknown)["message"]


def test_an_idle_session_goes_inactive_and_comes_back(ibm: Service, call: Caller) -> None:
    ibm.settings.queue_seconds = 30
    name = call.open()
    call.submit(name)
    assert call.session(name)["state"] == "open"
    ibm.clock.advance(30)
    assert call.session(name)["state"] == "active"
    ibm.clock.advance(60.5)
    assert call.session(name)["state"] == "active"
    ibm.clock.advance(1)
    session = call.session(name)
    assert session["state"] == "inactive" and session["accepting_jobs"]
    assert session["state_reason"] == "session_inactivated_by_interactive_ttl"
    assert session["elapsed_time"] == pytest.approx(61) and session["active_ttl"] == 28800 - 61
    again = call.submit(name)
    assert call.job(again)["status"] == "Queued"
    ibm.clock.advance(30)
    assert call.session(name)["state"] == "active"
    assert [state for state, _ in ibm.sessions[name].transitions] == ["open", "active", "inactive", "active"]


def test_a_job_in_time_keeps_the_session_active(ibm: Service, call: Caller) -> None:
    name = call.open()
    for _ in range(4):
        call.submit(name)
        ibm.clock.advance(59)
    assert [state for state, _ in ibm.sessions[name].transitions] == ["open", "active"]


def test_max_ttl_runs_from_the_first_job_and_never_pauses(ibm: Service, call: Caller) -> None:
    name = call.open(max_ttl=300)
    ibm.clock.advance(1000)
    call.submit(name)
    ibm.clock.advance(295)
    ibm.settings.job_seconds, ibm.settings.lanes = 20, 1
    running, queued = call.submit(name), call.submit(name)
    ibm.clock.advance(5)
    assert call.session(name)["state"] == "closed"
    assert call.job(queued)["state"]["status"] == "Failed" and call.job(running)["status"] == "Running"
    session = ibm.sessions[name]
    assert session.started_at
    assert session.closed_at == pytest.approx(session.started_at + 300)
    ibm.clock.advance(20)
    assert call.job(running)["status"] == "Completed"


def test_a_session_never_used_closes_after_half_an_hour(ibm: Service, call: Caller) -> None:
    name, batch = call.open(), call.open(mode="batch")
    ibm.clock.advance(1799)
    assert call.session(name)["state"] == "open"
    ibm.clock.advance(1)
    assert call.session(name)["state"] == "closed" and ibm.sessions[name].billed_seconds == 0
    # IBM's reference states the rule for dedicated sessions only.
    assert call.session(batch)["state"] == "open"


def test_the_transient_states_show_when_asked_for(ibm: Service, call: Caller) -> None:
    ibm.settings.pending_seconds = 2
    name = call.open()
    call.submit(name)
    ibm.clock.advance(61.5)
    assert call.session(name)["state"] == "pending_inactive"
    call("DELETE", f"sessions/{name}/close")
    session = call.session(name)
    assert session["state"] == "pending_closed" and not session["accepting_jobs"]
    ibm.clock.advance(2)
    assert call.session(name)["state"] == "closed"


def test_a_batch_is_billed_for_qpu_time_only(ibm: Service, call: Caller) -> None:
    ibm.settings.one_job_at_a_time = True
    name = call.open(mode="batch")
    for _ in range(7):
        call.submit(name)
    ibm.clock.advance(1000)
    session = ibm.sessions[name]
    assert session.jobs_run == 7 and session.state == "inactive"
    assert session.billed_seconds == pytest.approx(7)
    assert session.started_at and session.last_job_completed
    # One after the other.
    assert session.last_job_completed - session.started_at == pytest.approx(7)


@pytest.mark.parametrize("mode", ["dedicated", "batch"])
def test_five_jobs_run_in_parallel_and_share_the_qpu(ibm: Service, call: Caller, mode: str) -> None:
    """The others are being prepared: what they are charged adds up to no more than the time that passed."""
    ibm.settings.job_seconds, ibm.settings.one_job_at_a_time = 10, True
    name = call.open(mode=mode)
    jobs = [call.submit(name) for _ in range(6)]
    ibm.clock.advance(15)
    assert [call.job(job)["status"] for job in jobs] == ["Completed", *["Running"] * 5]
    used = [call.job(job)["usage"]["qpu_charge_time_seconds"] for job in jobs]
    assert used == pytest.approx([10, 5, 0, 0, 0, 0])
    ibm.clock.advance(60)
    used = [call.job(job)["usage"]["qpu_charge_time_seconds"] for job in jobs]
    assert used == pytest.approx([10] * 6)
    call("DELETE", f"sessions/{name}/close")
    assert ibm.sessions[name].billed_seconds == pytest.approx(75 if mode == "dedicated" else 60)


def test_jobs_of_two_sessions_and_of_none_share_the_qpu(ibm: Service, call: Caller) -> None:
    ibm.settings.job_seconds, ibm.settings.one_job_at_a_time = 10, True
    jobs = [call.submit(call.open()), call.submit(call.open()), call.submit(None)]
    ibm.clock.advance(25)
    assert [call.job(job)["status"] for job in jobs] == ["Completed", "Completed", "Running"]
    used = [call.job(job)["usage"]["qpu_charge_time_seconds"] for job in jobs]
    assert used == pytest.approx([10, 10, 5])


def test_a_cancelled_job_leaves_the_qpu_to_the_next(ibm: Service, call: Caller) -> None:
    ibm.settings.job_seconds, ibm.settings.one_job_at_a_time = 10, True
    name = call.open()
    first, second, third = (call.submit(name) for _ in range(3))
    ibm.clock.advance(4)
    for job in (first, second):
        assert call("POST", f"jobs/{job}/cancel").status_code == 204
    ibm.clock.advance(6)
    used = [call.job(job)["usage"]["qpu_charge_time_seconds"] for job in (first, second, third)]
    assert used == pytest.approx([4, 0, 6])


# -- jobs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"program_id": "hello"}, 404),
        ({"backend": "ibm_marrakesh"}, 400),
        ({"session_id": "x" * 37}, 400),
        ({"session_id": "unknown"}, 404),
        ({"tags": ["t"] * 9}, 400),
        ({"tags": ["t" * 87]}, 400),
        ({"cost": -1}, 400),
        ({"start_session": True}, 400),
        ({"params": {}}, 400),
        ({"params": PARAMS | {"options": {"transpilation": {"optimization_level": 1}}}}, 400),
    ],
)
def test_submit_refuses(call: Caller, fields: dict[str, Any], status: int) -> None:
    name = call.open()
    body = {"program_id": "sampler", "backend": BACKEND, "params": PARAMS, "session_id": name}
    reply = call("POST", "jobs", body | fields)
    assert reply.status_code == status and first_error(reply)["message"]


def test_a_job_from_submit_to_results(ibm: Service, call: Caller) -> None:
    name = call.open()
    reply = call(
        "POST",
        "jobs",
        {
            "program_id": "sampler",
            "backend": BACKEND,
            "session_id": name,
            "params": PARAMS,
            "tags": ["a"],
            "cost": 10**6,
        },
    )
    job = reply.json()["id"]
    assert reply.json() == {"id": job, "backend": BACKEND, "session_id": name}
    assert call("GET", f"jobs/{job}/results").status_code == 204
    assert call("GET", f"jobs/{job}/logs").status_code == 404
    ibm.clock.advance(1)
    view = call.job(job)
    assert view["params"] == PARAMS and view["cost"] == 10_800 and view["state"] == {"status": "Completed"}
    assert "params" not in call("GET", f"jobs/{job}?exclude_params=true").json()
    data = call("GET", f"jobs/{job}/results").json()["results"][0]["data"]
    assert data["c"]["num_bits"] == 2 and len(data["c"]["samples"]) == 8
    assert max(int(sample, 16) for sample in data["wide"]["samples"]) > 2**64
    assert call("GET", f"jobs/{job}/results").json()["results"][0]["data"] == data
    metrics = call("GET", f"jobs/{job}/metrics").json()
    assert metrics["caller"] == "test" and metrics["usage"]["status"] == "complete"
    assert metrics["usage"]["qpu_charge_time_seconds"] == pytest.approx(1)
    assert metrics["circuits_execution_time_ns"] == pytest.approx(1e9)
    old = call("GET", f"jobs/{job}/metrics", IBM_API_Version="2025-01-01").json()
    assert old["usage"]["quantum_seconds"] == pytest.approx(1)


@only_the_fake
def test_jobs_that_end_badly(ibm: Service, call: Caller) -> None:
    ibm.next_jobs([Outcome("Failed", "not ISA", 1517), Outcome(seconds=50), Outcome("Cancelled")])
    failed, late, cancelled = call.submit(), call.submit(cost=5), call.submit()
    ibm.clock.advance(60)
    assert call.job(failed)["state"]["reason_code"] == 1517
    text = call("GET", f"jobs/{failed}/results")
    assert text.headers["content-type"].startswith("text/plain") and "not ISA" in text.text
    assert call.job(late)["status"] == "Cancelled - Ran too long"
    assert call.job(late)["state"]["reason_code"] == 1305 and ibm.jobs[late].ran(0) == pytest.approx(5)
    assert call.job(cancelled)["state"] == {"status": "Cancelled"}
    assert call("GET", f"jobs/{cancelled}/results").status_code == 204


def test_cancel_delete_and_tags(ibm: Service, call: Caller) -> None:
    job = call.submit()
    assert call("DELETE", f"jobs/{job}").status_code == 409
    assert call("PUT", f"jobs/{job}/tags", {"tags": ["x", "y"]}).status_code == 204
    assert call.job(job)["tags"] == ["x", "y"]
    assert call("POST", f"jobs/{job}/cancel").status_code == 204
    assert call("POST", f"jobs/{job}/cancel").status_code == 409
    assert call.job(job)["state"] == {"status": "Cancelled"}
    assert call("DELETE", f"jobs/{job}").status_code == 204
    assert call("GET", f"jobs/{job}").status_code == 404


def test_private_results_are_read_once(ibm: Service, call: Caller) -> None:
    job = call.submit(private=True)
    ibm.clock.advance(1)
    assert "params" not in call.job(job)
    assert call("GET", f"jobs/{job}/results").status_code == 200
    assert call("GET", f"jobs/{job}/results").status_code == 204


def test_listing_jobs(ibm: Service, call: Caller) -> None:
    name = call.open()
    ibm.settings.lanes = 1
    jobs = [call.submit(name, tags=["all", str(number)]) for number in range(4)]
    ibm.clock.advance(2)

    def ids(query: str) -> list[str]:
        return [job["id"] for job in call("GET", f"jobs?{query}").json()["jobs"]]

    assert ids("") == jobs[::-1] and ids("sort=ASC") == jobs
    assert ids("pending=true&sort=ASC") == jobs[2:] and ids("pending=false&sort=ASC") == jobs[:2]
    assert ids("tags=all&tags=2") == [jobs[2]] and ids("session_id=unknown") == []
    page = call("GET", "jobs?limit=1000&offset=1").json()
    assert (page["limit"], page["offset"], page["count"], len(page["jobs"])) == (200, 1, 4, 3)
    assert "params" not in page["jobs"][0]


# -- workloads -----------------------------------------------------------------------------------------------


def test_workloads_page_by_cursor_oldest_first(ibm: Service, call: Caller) -> None:
    names = [call.open() for _ in range(23)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = call("GET", f"workloads?{httpx.QueryParams({'limit': '10', 'user': 'me'} | cursor)}").json()
        seen += [each["id"] for each in page["workloads"]]
        assert page["total_count"] == 23 and page["limit"] == 10
        if "next" not in page:
            break
        cursor = {"next": parse_qs(urlsplit(page["next"]["href"]).query)["next"][0]}
    assert seen == names
    back = parse_qs(urlsplit(page["previous"]["href"]).query)["previous"][0]
    page = call("GET", f"workloads?{httpx.QueryParams({'previous': back})}").json()
    assert [each["id"] for each in page["workloads"]] == names[10:20]
    assert len(call("GET", "workloads").json()["workloads"]) == 10
    assert call("GET", "workloads?limit=51").status_code == 400


@only_the_fake
def test_workloads_filter_by_repeated_keys(ibm: Service, call: Caller) -> None:
    other = ibm.add_session(user="other", age=3600, state="active")
    opened, active, drained, closed = (call.open() for _ in range(4))
    batch = call.open(mode="batch")
    ibm.settings.job_seconds = 50
    call.submit(active)
    call("PATCH", f"sessions/{drained}", {"accepting_jobs": False})
    call("DELETE", f"sessions/{closed}/close")
    job = call.submit(tags=["lonely"])

    def ids(query: str) -> list[str]:
        return [each["id"] for each in call("GET", f"workloads?limit=50&{query}").json()["workloads"]]

    live = "mode=session&status=pending&status=in_progress&sort=-createdAt"
    assert ids(live) == [active, opened, other.id] and ids(f"{live}&user=me") == [active, opened]
    assert ids("status=completed") == [drained] and ids("status=canceled") == [closed]
    assert ids("mode=batch") == [batch] and ids("mode=job") == [job] == ids("search=lonely")
    assert len(ids("status[]=completed")) == 7  # brackets are ignored without a word
    before = ibm.sessions[opened].created - 1
    assert ids(f"created_before={datetime.fromtimestamp(before, UTC):%Y-%m-%dT%H:%M:%SZ}") == [other.id]
    assert call("GET", "workloads?created_before=x").status_code == 400
    item = call("GET", f"workloads?search={active}").json()["workloads"][0]
    assert (item["mode"], item["status"], item["accepting_jobs"]) == ("session", "in_progress", True)


def test_devices_instance_and_usage(ibm: Service, call: Caller) -> None:
    device = call("GET", "backends?fields=wait_time_seconds").json()["devices"][0]
    assert device["name"] == BACKEND and device["wait_time_seconds"]["p50"] == 0
    assert call("GET", f"backends/{BACKEND}/status").json()["length_queue"] == 0
    assert call("GET", f"backends/{BACKEND}/defaults").json() is None
    assert call("GET", "backends/ibm_gone/status").status_code == 404
    assert call("GET", "instance").json()["instance_limit_seconds"] == "36000"
    call.submit()
    ibm.clock.advance(5)
    assert call("GET", "instances/usage").json()["usage_consumed_seconds"] == pytest.approx(1)
    account = ibm.crn.split(":")[6].removeprefix("a/")
    assert call("GET", f"accounts/{account}").json()["plans"][0]["interactive_ttl"] == 60


def test_a_reserved_device_takes_no_jobs(ibm: Service, call: Caller) -> None:
    device = ibm.settings.backends[BACKEND]
    device.is_reserved = True
    body = {"program_id": "sampler", "backend": BACKEND, "params": PARAMS}
    refused = call("POST", "jobs", body)
    assert (refused.status_code, first_error(refused)["code"]) == (423, 1233)
    device.is_reserved = False
    assert call("POST", "jobs", body).status_code == 200


def test_devices_in_all_states_are_listed_as_ibm_lists_them(ibm: Service, call: Caller) -> None:
    ibm.settings.backends = devices_in_all_states()
    ibm.settings.usage_before = 35_990.0
    listed = {
        each["name"]: each for each in call("GET", "backends?fields=wait_time_seconds").json()["devices"]
    }
    states = {name: device["status"]["name"] for name, device in listed.items()}
    assert set(states.values()) == {"online", "paused", "offline"}
    assert listed["ibm_kingston"]["wait_time_seconds"]["average"] == 420
    assert listed["ibm_marrakesh"]["wait_time_seconds"] is None
    assert listed["ibm_kingston"]["processor_type"]["family"] == "Heron"
    assert listed["ibm_simulator"]["is_simulator"] and not listed["ibm_fez"]["is_simulator"]
    assert listed["mock_fez"]["performance_metrics"]["two_q_error_median"]["value"] is None
    used = call("GET", "instances/usage").json()
    assert used["usage_limit_seconds"] - used["usage_consumed_seconds"] == 10


# -- faults --------------------------------------------------------------------------------------------------


@only_the_fake
def test_a_scripted_status_before_or_after_the_work(ibm: Service, call: Caller) -> None:
    after = Fault("POST", "/v1/sessions", status=504, phase="after")
    ibm.script(after, Fault("POST", "/v1/sessions", status=429, headers={"Retry-After": "3"}, skip=1))
    body = {"mode": "dedicated", "backend": BACKEND}
    lost, made, limited = (call("POST", "sessions", body) for _ in range(3))
    assert [reply.status_code for reply in (lost, made, limited)] == [504, 200, 429]
    assert limited.headers["retry-after"] == "3" and len(ibm.sessions) == 2
    assert [entry.status for entry in ibm.requests("POST", "/v1/sessions")] == [504, 200, 429]
    assert ibm.requests("POST", "/v1/sessions")[0].fault == "status 504 (after the work)"


@only_the_fake
@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("how", [True, "rst"])
def test_a_dropped_reply(ibm: Service, call: Caller, phase: Any, how: Any) -> None:
    ibm.script(Fault("POST", "/v1/sessions", drop=how, phase=phase))
    with pytest.raises(httpx.ReadError if how == "rst" else httpx.RemoteProtocolError):
        call("POST", "sessions", {"mode": "dedicated", "backend": BACKEND})
    assert len(ibm.sessions) == (phase == "after") and ibm.journal[-1].status is None


@only_the_fake
def test_replies_that_are_not_what_they_should_be(ibm: Service, call: Caller) -> None:
    def spoiled(**kind: Any) -> httpx.Response:
        ibm.script(Fault("GET", "/v1/backends", **kind))
        return call("GET", "backends")

    assert len(spoiled(html=True).content) > 250_000
    assert spoiled(empty=True).content == b"" and spoiled(no_content=True).status_code == 204
    assert spoiled(json=[1]).json() == [1] and spoiled(json=None).json() is None
    assert len(spoiled(huge=3_000_000).json()["a"]) == 3_000_000 - 8
    for kind in ({"garbage": True}, {"truncate": True}, {"truncate": True, "phase": "after"}):
        reply = spoiled(**kind)
        assert reply.status_code == 200
        with pytest.raises(ValueError):
            reply.json()
    with pytest.raises(httpx.RemoteProtocolError):
        spoiled(truncate="length")
    assert ibm.api_key not in spoiled(echo=True).text and ibm.crn in ibm.journal[-1].headers["service-crn"]


@only_the_fake
def test_error_shapes_and_echo(ibm: Service, call: Caller) -> None:
    shapes: dict[str, Any] = {
        "errors": lambda body: body["errors"][0]["message"],
        "singular": lambda body: body["error"]["message"],
        "message": lambda body: body["message"],
        "iam": lambda body: body["errors"][0]["message"] if body["status_code"] == 503 else None,
    }
    for shape, read in shapes.items():
        ibm.script({"status": 503, "error_shape": shape, "message": "down", "code": 1999})
        assert read(call("GET", "backends").json()) == "down"
    ibm.script(Fault(path="/identity/token", echo=True))
    assert ibm.api_key in call.token().text
    ibm.script(Fault(status=502, body="<b>Bad gateway</b>"))
    assert call("GET", "backends").text == "<b>Bad gateway</b>"
    with pytest.raises(ValueError):
        Fault(html=True, drop=True)
    with pytest.raises(ValueError):
        Fault()


@only_the_fake
def test_twenty_callers_at_once(ibm: Service, call: Caller) -> None:
    ibm.script(Fault("POST", "/v1/sessions", drop="rst", phase="after", times=10))
    body = {"mode": "dedicated", "backend": BACKEND}

    def create(_: int) -> bool:
        try:
            return httpx.post(f"{ibm.url}/v1/sessions", headers=call.headers, json=body).status_code == 200
        except httpx.TransportError:
            return False

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(create, range(20))) == 10
    assert len(ibm.sessions) == 20 == len({session.created for session in ibm.sessions.values()})


@only_the_fake
def test_delays_and_drips(ibm: Service, call: Caller) -> None:
    ibm.script(Fault(delay=0.05), Fault("GET", "/v1/versions", drip=0.0005, drip_headers=True))
    began = time.monotonic()
    assert call("GET", "versions").status_code == 200
    assert call("GET", "versions").json()["versions"]
    assert time.monotonic() - began > 0.1
    body = {"mode": "dedicated", "backend": BACKEND}
    for phase, made in (("before", 0), ("after", 1)):
        ibm.script(Fault("POST", "/v1/sessions", delay=0.3, phase=phase))  # type: ignore[arg-type]
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{ibm.url}/v1/sessions", headers=call.headers, json=body, timeout=0.1)
        time.sleep(0.3)
        assert len(ibm.sessions) == made, phase


# -- the server ----------------------------------------------------------------------------------------------


@only_the_fake
def test_it_stops_at_once_and_comes_back_on_its_port(ibm: Service, call: Caller) -> None:
    name = call.open()
    ibm.script(Fault("GET", "/v1/versions", drip=5), Fault("GET", "/v1/backends", delay=60))
    waiting = [threading.Thread(target=_swallow, args=(call, path)) for path in ("versions", "backends")]
    for thread in waiting:
        thread.start()
    while len(ibm.requests("GET")) < 2:
        time.sleep(0.01)
    began = time.monotonic()
    ibm.stop()
    for thread in waiting:
        thread.join(2)
    assert time.monotonic() - began < 1 and not any(thread.is_alive() for thread in waiting)
    with pytest.raises(httpx.ConnectError):
        call("GET", f"sessions/{name}")
    ibm.start()
    assert call.session(name)["state"] == "open"


def _swallow(call: Caller, path: str) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{call.ibm.url}/v1/{path}", headers=call.headers, timeout=30)


@only_the_fake
def test_one_connection_serves_many_requests(ibm: Service, call: Caller) -> None:
    name = call.open()
    for _ in range(100):
        assert call.session(name)
    assert ibm.connections == 1


@only_the_fake
def test_the_state(ibm: Service, call: Caller) -> None:
    name = call.open()
    for _ in range(2):
        call.submit(name, tags=["point-1"])
    ibm.clock.advance(1)
    state = ibm.state()
    assert state["accepting"] == [name] and state["sessions"] == {"active": 1}
    assert state["jobs_run"] == 2 and len(state["duplicates"][0]["jobs"]) == 2
    assert state["requests"] == {"token": 1, "create_session": 1, "create_job": 2}
    assert state["billed_seconds"][name] == pytest.approx(1)
    assert json.loads(json.dumps(state)) == state


def test_it_runs_as_a_process_with_a_control_api() -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "testing.fake_ibm", "--settings", '{"job_seconds": 5}']
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert process.stdout is not None
        about = json.loads(process.stdout.readline())
        control = about["iam_url"] + "/_fake/"
        assert httpx.post(control + "script", json=[{"status": 500, "path": "/identity/*"}]).json() == {
            "left": 1
        }
        form = {"grant_type": GRANT, "apikey": about["api_key"]}
        token = [httpx.post(about["iam_url"] + "/identity/token", data=form).status_code for _ in range(2)]
        assert token == [500, 400]  # the second without an Accept header for JSON
        before = httpx.post(control + "advance", json={"seconds": 0}).json()["now"]
        assert httpx.post(control + "advance", json={"seconds": 100}).json()["now"] >= before + 100
        assert httpx.get(control + "state").json()["requests"] == {"token": 2}
        assert httpx.post(control + "script", json=[{"nonsense": 1}]).status_code == 400
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
