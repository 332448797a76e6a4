# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio

import pytest

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from testing.connections import connection_to
from testing.fake_ibm import FakeIBM

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/account:instance::"
EU_CRN = CRN.replace("us-east", "eu-de")
KEY = "k" * 44


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch, airflow_db):
        monkeypatch.setenv("IBM_CLOUD_API_KEY", KEY)
        monkeypatch.setenv("IBM_QUANTUM_CRN", EU_CRN)
        monkeypatch.setenv("IBM_QUANTUM_API_VERSION", "2026-03-15")

    def test_serves_in_place_of_the_default_connection(self):
        found = IBMQuantumHook().credentials
        assert (found.api_key.reveal(), found.crn, found.api_version) == (KEY, EU_CRN, "2026-03-15")

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

    def test_the_environments_key_serves_no_team(self, monkeypatch):
        """All teams of an Airflow have the same environment: one would pay for another."""
        monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "true")
        with pytest.raises(ConfigurationError, match="Add it to the team"):
            _ = IBMQuantumHook().credentials

    def test_the_environments_key_serves_no_team_in_the_triggerer_either(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "true")
        with pytest.raises(ConfigurationError, match="Add it to the team"):
            asyncio.run(IBMQuantumHook().aget_credentials())

    def test_a_team_uses_its_connection(self, ibm, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "true")
        monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
        assert IBMQuantumHook().credentials.crn == ibm.crn

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


class TestOperations:
    def test_the_four_and_the_list(self, ibm, connection):
        hook = IBMQuantumHook()
        session = hook.create_session(backend="ibm_fez", max_ttl="1h")
        assert hook.get_session(session.id).state == "open"
        assert session.id in {workload.id for workload in hook.list_workloads(mode="session")}
        hook.update_session(session.id, accepting_jobs=False)
        assert hook.close_session(session.id).is_closed
        assert ibm.state()["token_exchanges"] == 1

    def test_hooks_share_one_token(self, ibm, connection):
        session = ibm.add_session(state="open", age=1)
        for _ in range(5):
            IBMQuantumHook().get_session(session.id)
        assert ibm.state()["token_exchanges"] == 1

    def test_get_conn_is_the_client(self, ibm, connection):
        assert IBMQuantumHook().get_conn().list_backends()


def test_two_accounts_are_kept_apart(ibm, monkeypatch):
    with FakeIBM() as other:
        monkeypatch.setenv("AIRFLOW_CONN_ONE", connection_to(ibm))
        monkeypatch.setenv("AIRFLOW_CONN_TWO", connection_to(other))
        for name, fake in (("one", ibm), ("two", other)):
            IBMQuantumHook(name).create_session(backend="ibm_fez", max_ttl=60)
            assert len(fake.sessions) == 1
            assert fake.leaks == []
