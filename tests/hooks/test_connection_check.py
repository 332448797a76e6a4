# SPDX-License-Identifier: Apache-2.0
"""Airflow's test of a connection."""

from __future__ import annotations

import json
import threading

import pytest
from airflow.sdk import Connection

from airflow_provider_ibm_sessions.hooks import connection_check
from airflow_provider_ibm_sessions.hooks.connection import credentials_from_connection
from airflow_provider_ibm_sessions.hooks.connection_check import check_connection
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from testing.connections import connection_to
from testing.fake_ibm import Fault
from tests.client.conftest import free_port


class TestAnswer:
    def test_by_airflows_own_command(self, ibm, airflow_db, monkeypatch):
        import subprocess
        import sys

        monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
        monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "connections", "test", "ibm_quantum_default"],
            capture_output=True,
            text=True,
        )
        assert "Connection success" in done.stdout
        assert ibm.api_key not in done.stdout + done.stderr

    def test_success_says_what_was_found(self, connection):
        works, message = IBMQuantumHook().test_connection()
        assert works
        assert "The API key and the CRN are accepted. Region us-east, " in message
        assert "ibm_fez" in message

    def test_a_wrong_field_is_told_without_the_random_id_that_airflow_tests_under(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_AHJKDSF", '{"conn_type": "ibm_quantum", "password": "x"}')
        works, message = IBMQuantumHook("ahjkdsf").test_connection()
        assert (works, message[:12]) == (False, "crn is empty")


class TestSilence:
    """Within ten seconds the test says which of IAM, API and proxy does not answer."""

    @pytest.fixture(autouse=True)
    def short(self, monkeypatch):
        monkeypatch.setattr(connection_check, "CHECK_TIMEOUT", 1.0)

    def check(self, ibm, *, host=None, **extra):
        facts = json.loads(connection_to(ibm, **extra))
        return check_connection(
            credentials_from_connection(
                Connection(
                    conn_id="c", password=facts["password"], host=host or facts["host"],
                    extra=json.dumps(facts["extra"]),
                )
            )
        )  # fmt: skip

    def test_an_api_that_refuses_connections(self, ibm):
        port = free_port()
        works, message = self.check(ibm, host=f"http://127.0.0.1:{port}/api")
        assert not works
        assert message.startswith(f"The API at 127.0.0.1:{port} does not answer: check host and crn")

    def test_an_iam_that_refuses_connections(self, ibm):
        port = free_port()
        works, message = self.check(ibm, iam_url=f"http://127.0.0.1:{port}")
        assert not works
        assert message.startswith(f"IAM at 127.0.0.1:{port} does not answer: check iam_url")

    def test_an_api_that_is_silent(self, ibm):
        ibm.script(Fault(path="/v1/*", delay=20, times=None))
        works, message = self.check(ibm)
        assert not works
        assert message.startswith("The API at 127.0.0.1:")
        assert len(ibm.requests("GET", "/v1/backends")) == 1

    def test_an_iam_that_is_silent(self, ibm):
        ibm.script(Fault(path="/identity/token", delay=20, times=None))
        works, message = self.check(ibm)
        assert not works
        assert message.startswith("IAM at 127.0.0.1:")
        assert len(ibm.requests("POST", "/identity/token")) == 1

    def test_a_proxy_that_refuses_connections(self, ibm):
        port = free_port()
        proxy = f"http://me:hunter2@127.0.0.1:{port}"
        works, message = self.check(
            ibm, host="https://api.example/api", iam_url="https://iam.example", proxy=proxy
        )
        assert not works
        assert message.startswith(f"The proxy 127.0.0.1:{port} does not answer: check proxy")
        assert "hunter2" not in message

    def test_a_name_that_does_not_resolve_in_time(self, ibm, monkeypatch):
        import socket

        answer = threading.Event()
        monkeypatch.setattr(connection_check, "CHECK_DEADLINE", 0.5)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(60) and [])
        works, message = self.check(ibm, host="https://api.example/api", iam_url="https://iam.example")
        answer.set()
        assert not works
        assert message.startswith("The API at api.example does not answer")

    def test_its_time_is_bounded_whatever_the_connection_says(self):
        assert connection_check.CHECK_DEADLINE + connection_check.CHECK_TIMEOUT / 4 <= 10
