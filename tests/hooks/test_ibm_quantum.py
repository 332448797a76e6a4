# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest
from airflow.sdk import Connection
from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError

from airflow_provider_ibm_sessions.client import auth
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, PlanError, ServerError
from airflow_provider_ibm_sessions.hooks.connection import credentials_from_connection
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.qiskit import PLACEHOLDER_API_KEY
from testing.connections import connection_to
from testing.fake_ibm import FakeIBM, Fault
from testing.retry_policies import single_attempt

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/account:instance::"
EU_CRN = CRN.replace("us-east", "eu-de")
KEY = "k" * 44


def credentials(extra=None, **fields):
    fields = {"conn_id": "c", "conn_type": "ibm_quantum", "password": KEY, **fields}
    return credentials_from_connection(Connection(**fields, extra=json.dumps({"crn": CRN, **(extra or {})})))


class TestConnection:
    @pytest.mark.parametrize(
        ("fields", "extra", "url"),
        [
            ({}, {}, "https://quantum.cloud.ibm.com/api"),
            ({}, {"crn": EU_CRN}, "https://eu-de.quantum.cloud.ibm.com/api"),
            ({}, {"private_endpoint": True}, "https://private.us-east.quantum.cloud.ibm.com/api"),
            ({}, {"private_endpoint": "true"}, "https://private.us-east.quantum.cloud.ibm.com/api"),
            ({"host": "https://quantum.cloud.ibm.com/api/"}, {}, "https://quantum.cloud.ibm.com/api"),
            ({"host": "https://quantum.cloud.ibm.com/api/v1"}, {}, "https://quantum.cloud.ibm.com/api"),
            ({"host": "https://qpu.example/api", "port": 8443}, {}, "https://qpu.example:8443/api"),
            ({"host": "https://qpu.example:1/api", "port": 8443}, {}, "https://qpu.example:1/api"),
            ({"host": "qpu.example", "schema": "api"}, {}, "https://qpu.example/api"),
            ({"host": "http://localhost:8787/api"}, {}, "http://localhost:8787/api"),
            ({"host": "http://[::1]/api", "port": 5}, {}, "http://[::1]:5/api"),
        ],
    )
    def test_base_url(self, fields, extra, url):
        assert credentials(extra, **fields).url == url

    def test_uri_form(self):
        uri = f"ibm-quantum://:{KEY}@quantum.cloud.ibm.com/api?crn={quote(CRN, safe='')}"
        found = credentials_from_connection(Connection(conn_id="c", uri=uri))
        assert (found.url, found.crn) == ("https://quantum.cloud.ibm.com/api", CRN)

    def test_empty_fields_are_defaults(self):
        empty = {"api_version": "", "iam_url": None, "proxy": "", "verify": None, "timeout": ""}
        assert credentials(empty) == credentials()

    def test_fields_as_the_form_stores_them(self):
        found = credentials({"verify": "false", "timeout": "30", "api_version": "2026-03-15"})
        assert (found.verify, found.timeout, found.api_version) == (False, 30.0, "2026-03-15")

    @pytest.mark.parametrize(
        ("fields", "extra", "field"),
        [
            ({"password": ""}, {}, "api_key"),
            ({"password": None}, {}, "api_key"),
            ({"password": "two words"}, {}, "api_key"),
            ({}, {"crn": ""}, "crn"),
            ({}, {"crn": "crn:v1:bluemix"}, "crn"),
            ({}, {"crn": 5}, "crn"),
            ({}, {"api_version": "latest"}, "api_version"),
            ({}, {"api_version": "2026-13-01"}, "api_version"),
            ({}, {"verify": "/no/such/file.pem"}, "verify"),
            ({}, {"timeout": "soon"}, "timeout"),
            ({}, {"timeout": 0}, "timeout"),
            ({}, {"private_endpoint": "perhaps"}, "private_endpoint"),
            ({}, {"iam_url": "http://iam.example"}, "iam_url"),
            ({}, {"proxy": "proxy.example"}, "proxy"),
            ({"host": "http://qpu.example/api"}, {}, "url"),
            ({"host": "https://user:pw@qpu.example/api"}, {}, "url"),
            ({"host": "https://qpu.example:port/api"}, {}, "url"),
        ],
    )
    def test_a_wrong_field_is_named(self, fields, extra, field):
        with pytest.raises(ConfigurationError, match=f"Connection 'c'.*{field} ") as caught:
            credentials(extra, **fields)
        assert caught.value.field == field

    def test_extra_that_is_no_object(self):
        with pytest.raises(ConfigurationError, match="extra must be a JSON object"):
            credentials_from_connection(Connection(conn_id="c", password=KEY, extra="[1"))


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch, airflow_db):
        monkeypatch.setenv("IBM_CLOUD_API_KEY", KEY)
        monkeypatch.setenv("IBM_QUANTUM_CRN", EU_CRN)
        monkeypatch.setenv("IBM_QUANTUM_API_VERSION", "2026-03-15")

    def test_serves_in_place_of_the_default_connection(self):
        found = IBMQuantumHook().credentials
        assert (found.api_key, found.crn, found.api_version) == (KEY, EU_CRN, "2026-03-15")

    def test_and_in_the_triggerer(self):
        async def url():
            async with IBMQuantumHook().async_client() as client:
                return client.credentials.url

        assert asyncio.run(url()) == "https://eu-de.quantum.cloud.ibm.com/api"

    def test_airflow_hides_the_key(self):
        from airflow.sdk.log import redact

        _ = IBMQuantumHook().credentials
        assert KEY not in str(redact(f"the key is {KEY}"))

    def test_but_not_of_another(self):
        with pytest.raises(ConfigurationError, match="no Airflow connection 'typo'"):
            _ = IBMQuantumHook("typo").credentials

    def test_a_connection_comes_first(self, ibm, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
        assert IBMQuantumHook().credentials.crn == ibm.crn

    def test_nothing_at_all_is_explained(self, monkeypatch):
        monkeypatch.delenv("IBM_CLOUD_API_KEY")
        monkeypatch.delenv("IBM_QUANTUM_CRN")
        with pytest.raises(ConfigurationError, match="IBM_CLOUD_API_KEY"):
            _ = IBMQuantumHook().credentials

    def test_half_an_environment_is_explained(self, monkeypatch):
        monkeypatch.delenv("IBM_QUANTUM_CRN")
        with pytest.raises(ConfigurationError, match="Set IBM_QUANTUM_CRN"):
            _ = IBMQuantumHook().credentials


class TestTestButton:
    def test_all_is_well(self, ibm, connection):
        works, message = IBMQuantumHook().test_connection()
        assert works
        assert "us-east" in message

    def test_bad_key(self, ibm, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_C", connection_to(ibm).replace(ibm.api_key, KEY))
        works, message = IBMQuantumHook("c").test_connection()
        assert not works
        assert "IAM does not accept the API key" in message
        assert "BXNIM0415E" in message
        assert KEY not in message

    def test_crn_of_another_region(self, ibm, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_C", connection_to(ibm, crn=ibm.crn.replace("us-east", "eu-de")))
        works, message = IBMQuantumHook("c").test_connection()
        assert not works
        assert "region decides the host" in message

    def test_wrong_host(self, ibm, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_C", connection_to(ibm).replace("/api", "/elsewhere"))
        works, message = IBMQuantumHook("c").test_connection()
        assert not works
        assert "ends in /api" in message

    def test_wrong_field(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_C", '{"conn_type": "ibm_quantum"}')
        works, message = IBMQuantumHook("c").test_connection()
        assert not works
        assert "api_key" in message

    def test_open_plan_is_told_where_it_shows(self, connection, ibm):
        ibm.settings.plan = "open"
        with pytest.raises(PlanError, match="The Open plan has no dedicated sessions"):
            IBMQuantumHook().create_session(backend="ibm_fez", max_ttl=60)

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


class TestOperations:
    def test_the_four_and_the_list(self, ibm, connection):
        hook = IBMQuantumHook()
        session = hook.create_session(backend="ibm_fez", max_ttl="1h")
        assert hook.get_session(session.id).state == "open"
        assert session.id in {workload.id for workload in hook.list_workloads(mode="session")}
        hook.update_session(session.id, accepting_jobs=False)
        assert hook.close_session(session.id).is_closed
        assert ibm.books()["token_exchanges"] == 1

    def test_hooks_share_one_token(self, ibm, connection):
        session = ibm.plant_session(state="open", age=1)
        for _ in range(5):
            IBMQuantumHook().get_session(session.id)
        assert ibm.books()["token_exchanges"] == 1

    def test_get_conn_is_the_client(self, ibm, connection):
        assert IBMQuantumHook().get_conn().list_backends()


class TestQiskit:
    """The service is Qiskit's own; where circuits are run, the examples test it against localqpu."""

    @pytest.fixture
    def service(self, ibm, connection):
        return IBMQuantumHook().qiskit_service()

    def backends(self, service):
        """A call of Qiskit's own that goes to the API."""
        return [backend["name"] for backend in service._active_api_client.list_backends()]

    def test_speaks_with_our_token(self, ibm, service):
        assert "ibm_fez" in self.backends(service)
        assert ibm.books()["token_exchanges"] == 1

    def test_the_key_is_not_given_to_qiskit(self, ibm, service):
        assert ibm.api_key not in json.dumps(service.active_account())
        assert PLACEHOLDER_API_KEY in json.dumps(service.active_account())

    def test_no_key_even_when_iam_is_down(self, ibm, service, monkeypatch):
        single_attempt(monkeypatch)
        auth._caches.clear()  # as in a process that has no token yet
        monkeypatch.setattr(service._bearer, "_client", IBMQuantumHook().client())
        ibm.script(Fault(method="POST", path="/identity/token", status=503, times=None))
        with pytest.raises(ServerError, match="Get an IAM token"):
            self.backends(service)
        assert ibm.requests("POST", "/identity/token")[-1].status == 503
        assert ibm.leaks == []

    def test_a_token_that_is_refused_is_renewed_once(self, ibm, service):
        self.backends(service)
        ibm.revoke_tokens()
        assert "ibm_fez" in self.backends(service)
        assert ibm.books()["token_exchanges"] == 2

    def test_a_token_that_is_refused_for_ever_is_an_error(self, ibm, service):
        ibm.script(Fault(method="GET", path="/v1/backends", status=401, times=None))
        before = len(ibm.requests("GET", "/v1/backends"))
        with pytest.raises(IBMNotAuthorizedError):
            self.backends(service)
        assert len(ibm.requests("GET", "/v1/backends")) == before + 2

    def test_a_reply_is_not_waited_for_longer_than_the_connection_says(self, ibm, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_C", connection_to(ibm, timeout=0.5))
        service = IBMQuantumHook("c").qiskit_service()
        assert service._active_api_client._session._timeout[1] == 0.5


def test_two_accounts_are_kept_apart(ibm, monkeypatch):
    with FakeIBM() as other:
        monkeypatch.setenv("AIRFLOW_CONN_ONE", connection_to(ibm))
        monkeypatch.setenv("AIRFLOW_CONN_TWO", connection_to(other))
        for name, fake in (("one", ibm), ("two", other)):
            IBMQuantumHook(name).create_session(backend="ibm_fez", max_ttl=60)
            assert len(fake.sessions) == 1
            assert fake.leaks == []
