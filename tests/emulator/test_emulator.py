# SPDX-License-Identifier: Apache-2.0
"""Sessions on a fast clock, usage, pages, the command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx
import pytest

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.emulator.__main__ import main
from airflow_provider_ibm_sessions.emulator.emulator import IDENTITY, Emulator, connection, connection_line
from airflow_provider_ibm_sessions.emulator.service.settings import Device, Settings
from airflow_provider_ibm_sessions.hooks.connection import credentials_from_connection

from .conftest import BELL, SPEED, finished

BACKEND = "ibm_fez"


def submit(client, session=None, **optional):
    optional |= {"session_id": session} if session else {}
    return client.submit_job("sampler", backend=BACKEND, params={"pubs": [[BELL, None, 10]]}, **optional).id


def wait_for(look, wanted):
    while look() != wanted:
        time.sleep(0.02)


@pytest.fixture
def raw(emulator):
    """Call the API with a token, for what the client has no method."""
    form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": IDENTITY.api_key}
    answer = httpx.post(
        f"{emulator.iam_url}/identity/token", data=form, headers={"Accept": "application/json"}
    )
    headers = {
        "Authorization": f"Bearer {answer.json()['access_token']}",
        "Service-CRN": IDENTITY.crn,
        "IBM-API-Version": "2026-04-15",
    }
    with httpx.Client(base_url=f"{emulator.url}/v1/", headers=headers, timeout=60) as opened:
        yield lambda path: opened.get(path).json()


class TestSessions:
    def test_an_idle_session_goes_inactive_comes_back_and_is_drained(self, client, raw):
        session = client.create_session(mode="dedicated", backend=BACKEND, max_ttl=28_800).id
        assert client.get_session(session).state == "open"
        finished(client, submit(client, session))
        wait_for(lambda: client.get_session(session).state, "inactive")
        finished(client, submit(client, session))
        client.update_session(session, accepting_jobs=False)
        wait_for(lambda: client.get_session(session).state, "closed")
        stamps = raw(f"sessions/{session}")["timestamps"]
        assert [each["status"] for each in stamps][:4] == ["open", "active", "inactive", "active"]
        active, inactive = (datetime.fromisoformat(stamps[at]["timestamp"]) for at in (1, 2))
        assert (inactive - active).total_seconds() >= 62  # 2 s of QPU time and the interactive TTL of 60 s

    def test_max_ttl_closes_a_session(self, client, settings):
        settings.interactive_ttl = 10_000
        session = client.create_session(mode="dedicated", backend=BACKEND, max_ttl=200).id
        finished(client, submit(client, session))
        wait_for(lambda: client.get_session(session).state, "closed")
        details = client.get_session(session)
        assert details.state_reason == "session_closed_by_max_ttl"
        assert details.elapsed_time == pytest.approx(200, abs=0.001)

    def test_a_batch_bills_the_qpu_time_of_its_jobs(self, client):
        session = client.create_session(mode="batch", backend=BACKEND, max_ttl=28_800).id
        jobs = [finished(client, submit(client, session)) for _ in range(2)]
        client.close_session(session)
        ran = sum(client.job_metrics(job.id).usage.qpu_charge_time_seconds for job in jobs)
        assert client.get_session(session).elapsed_time == pytest.approx(ran)

    def test_closing_fails_what_is_queued(self, client, settings):
        settings.queue_seconds = 10_000
        session = client.create_session(mode="batch", backend=BACKEND, max_ttl=28_800).id
        job = submit(client, session)
        client.close_session(session)
        assert finished(client, job).detail.reason_code == 1217

    def test_cancelling_stops_a_job_that_is_queued(self, client, settings):
        settings.queue_seconds = 10_000
        job = submit(client)
        assert client.cancel_job(job)
        assert client.get_job(job).detail.status == "Cancelled"

    def test_a_thousand_sessions_wait(self):
        """Their jobs are queued; every session and every list is still answered."""
        settings = Settings(queue_seconds=1e6)
        with Emulator(port=0, settings=settings, workers=0) as emulator:
            scheduler, now = emulator.service.scheduler, emulator.clock.now()
            for _ in range(1000):
                session = scheduler.open_session(
                    now, mode="dedicated", backend=BACKEND, max_ttl=28_800, user_id=IDENTITY.user_id
                )
                scheduler.submit(
                    now,
                    backend=BACKEND,
                    program_id="sampler",
                    params={"pubs": [[BELL]]},
                    user_id=IDENTITY.user_id,
                    session_id=session.id,
                    cost=600,
                )
            form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": IDENTITY.api_key}
            accept = {"Accept": "application/json"}
            token = httpx.post(f"{emulator.iam_url}/identity/token", data=form, headers=accept).json()
            headers = {
                "Authorization": f"Bearer {token['access_token']}",
                "Service-CRN": IDENTITY.crn,
                "IBM-API-Version": "2026-04-15",
            }
            with httpx.Client(headers=headers, timeout=120) as http, ThreadPoolExecutor(20) as pool:
                paths = [f"{emulator.url}/v1/sessions/{name}" for name in scheduler.sessions]
                states = list(pool.map(lambda path: http.get(path).json()["state"], paths))
                page = http.get(f"{emulator.url}/v1/workloads?mode=session&status=pending&limit=50").json()
            assert states == ["open"] * 1000
            assert page["total_count"] == 1000


class TestInstance:
    def test_devices_in_all_states(self, settings, raw):
        settings.backends = {
            "ibm_fez": Device(156, queue_length=3, wait_seconds=420.0),
            "ibm_torino": Device(133, "paused"),
            "ibm_miami": Device(120, "offline", "calibration"),
        }
        fez, torino, miami = raw("backends?fields=wait_time_seconds")["devices"]
        assert (fez["status"]["name"], fez["queue_length"], fez["wait_time_seconds"]["p50"]) == (
            "online",
            3,
            420,
        )
        assert torino["status"] == {"name": "paused", "reason": "maintenance"}
        assert miami["status"] == {"name": "offline", "reason": "calibration"}
        errors = fez["performance_metrics"]
        assert 0 < errors["two_q_error_best"]["value"] <= errors["two_q_error_median"]["value"] < 0.1
        assert 0 < errors["readout_error_median"]["value"] < 0.1

    def test_a_paused_device_keeps_its_queue(self, client, settings):
        settings.backends = {"ibm_fez": Device(156, "paused")}
        job = submit(client)
        assert client.get_job(job).detail.status == "Queued"
        settings.backends["ibm_fez"].status = "online"
        assert finished(client, job).is_completed

    def test_a_qpu_is_described_by_a_snapshot(self, raw):
        assert len(raw("backends/ibm_fez/configuration")["coupling_map"]) > 156
        assert len(raw("backends/ibm_fez/properties")["qubits"]) == 156
        assert raw("backends/ibm_fez/defaults") is None

    def test_the_usage_limit_ends_submission(self, client, settings, raw):
        used = raw("instances/usage")["usage_consumed_seconds"]
        settings.usage_limit_seconds = used + 1
        finished(client, submit(client))  # the last that fits: the limit is checked before, not after
        usage = raw("instances/usage")
        assert usage["usage_limit_reached"]
        assert usage["usage_consumed_seconds"] >= usage["usage_limit_seconds"]
        with pytest.raises(IBMQuantumError, match="usage limit"):
            submit(client)

    def test_without_a_limit_its_fields_are_absent(self, settings, raw):
        settings.usage_limit_seconds = None
        assert not [name for name in raw("instances/usage") if "limit" in name]

    def test_usage_that_settles_late(self, client, settings):
        settings.usage_settle_seconds = 1e6
        job = finished(client, submit(client)).id
        early = client.job_metrics(job).usage
        assert early.status == "pending"
        settings.usage_settle_seconds = 0
        final = client.job_metrics(job).usage
        assert final.status == "complete"
        assert early.qpu_charge_time_seconds == pytest.approx(final.qpu_charge_time_seconds / 2)

    def test_a_job_takes_the_time_that_ibm_estimates(self, client):
        usage = client.job_metrics(finished(client, submit(client)).id).usage
        assert usage.qpu_charge_time_seconds > 2 + 0.00035 * 9  # 10 shots; longer if the simulation is slow


class TestPages:
    def test_a_session_has_a_page_with_its_jobs(self, emulator, client):
        session = client.create_session(mode="batch", backend=BACKEND, max_ttl=600).id
        job = finished(client, submit(client, session, tags=["<script>alert(1)</script>"])).id
        for path in (f"/sessions/{session}", f"/workloads?search={session}"):
            page = httpx.get(f"{emulator.iam_url}{path}")
            assert page.status_code == 200
            assert f"Batch {session}" in page.text
            assert job in page.text
            assert "<script>" not in page.text
            assert "&lt;script&gt;" in page.text

    def test_a_job_has_a_page(self, emulator, client):
        job = finished(client, submit(client)).id
        page = httpx.get(f"{emulator.iam_url}/jobs/{job}").text
        assert "stdgates.inc" in page
        assert "num_bits" in page
        assert "Counts of pub 0, register pair" in page
        assert job in httpx.get(emulator.iam_url).text

    def test_a_private_jobs_page_shows_nothing_of_it(self, emulator, client):
        job = finished(client, submit(client, private=True)).id
        page = httpx.get(f"{emulator.iam_url}/jobs/{job}").text
        assert "private" in page
        assert "stdgates.inc" not in page
        assert client.job_results(job)["results"]

    @pytest.mark.parametrize("path", ["/sessions/<b>", "/nonsense", "/jobs/", "/sessions/x/y"])
    def test_what_does_not_exist_is_404(self, emulator, path):
        page = httpx.get(f"{emulator.iam_url}{path}")
        assert page.status_code == 404
        assert "<b>" not in page.text


class TestCommand:
    def test_it_prints_a_connection(self, capfd, monkeypatch):
        assert main(["--print-connection", "--port", "9999"]) == 0
        line = capfd.readouterr().out.strip()
        assert line == connection_line(9999)
        shell = subprocess.run(
            ["sh", "-c", f'{line}; printf %s "$AIRFLOW_CONN_IBM_QUANTUM_DEFAULT"'],
            capture_output=True,
            text=True,
        )
        assert json.loads(shell.stdout) == connection(9999)
        assert connection(9999)["extra"]["emulator"] is True

    def test_the_hook_reads_it(self):
        from airflow.providers.common.compat.sdk import Connection

        fields = connection(9999)
        read = credentials_from_connection(
            Connection(
                conn_id="c",
                conn_type=fields["conn_type"],
                host=fields["host"],
                port=fields["port"],
                password=fields["password"],
                extra=json.dumps(fields["extra"]),
            )
        )
        assert read.url == "http://127.0.0.1:9999/api"
        assert (read.crn, read.iam_url) == (IDENTITY.crn, "http://127.0.0.1:9999")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--backends", "ibm_nope"], "no snapshot of 'ibm_nope'"),
            (["--backends", "ibm_fez:broken"], "'ibm_fez:broken'"),
            (["--queue", "soon"], "--queue"),
            (["--speed", "0"], "--speed"),
            (["--workers", "0"], "--workers"),
            (["--settings", '{"nope": 1}'], "'nope'"),
            (["--settings", '{"usage_limit_seconds": "much"}'], "usage_limit_seconds"),
            (["--settings", "[]"], "JSON object"),
        ],
    )
    def test_a_wrong_option_is_named(self, capfd, arguments, said):
        assert main(arguments) == 2
        assert said in capfd.readouterr().err

    def test_a_port_in_use_is_an_error(self, emulator, capfd):
        assert main(["--port", str(emulator.port)]) == 2
        assert "in use" in capfd.readouterr().err

    def test_it_serves_until_it_is_told_to_end(self):
        command = [sys.executable, "-m", "airflow_provider_ibm_sessions.emulator", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--speed", str(SPEED), "--backends", "ibm_fez,ibm_torino:paused"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[4]
            assert httpx.get(f"{url}/api/v1/versions").json()["versions"]
            assert "paused" in httpx.get(url).text
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
