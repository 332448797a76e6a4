# SPDX-License-Identifier: Apache-2.0
"""A connection's fields, and the masking of secrets."""

from __future__ import annotations

import json
from decimal import Decimal
from urllib.parse import quote

import pytest
from airflow.sdk import Connection

from airflow_provider_ibm_sessions.client.errors import ConfigurationError, PlanError
from airflow_provider_ibm_sessions.hooks.connection import credentials_from_connection, mask_secret
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from tests.conftest import connection_to

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
        priced = credentials({"price_per_second": "1.60", "currency": "EUR"})
        assert (priced.price_per_second, priced.currency) == (Decimal("1.6"), "EUR")
        assert credentials({"price_per_second": 0}).price_per_second == 0
        assert (found.price_per_second, found.currency) == (None, "USD")

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
            ({}, {"price_per_second": "free"}, "price_per_second"),
            ({}, {"price_per_second": -1}, "price_per_second"),
            ({}, {"currency": "dollars"}, "currency"),
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

    @pytest.mark.parametrize(
        "extra", ["[1", "5", "null", '"x"', "[" * 100_000, '{"a":' * 100_000, "NaN", "\ud800", "1" * 5000]
    )
    def test_extra_that_cannot_be_read(self, extra):
        with pytest.raises(ConfigurationError, match=r"Connection 'c': (extra must be|crn is empty)"):
            credentials_from_connection(Connection(conn_id="c", password=KEY, extra=extra))

    @pytest.mark.parametrize(
        "host", ["https://h:99999", "h:99999", "https://[v1.x]/", "https://[::1", "h:x", "h:-1"]
    )
    @pytest.mark.parametrize("port", [None, 443, 99999])
    def test_a_wrong_host_is_named_whatever_the_port_field_holds(self, host, port):
        with pytest.raises(
            ConfigurationError, match=r"Connection 'c' \(field host of the form\): url has a wrong"
        ):
            credentials(host=host, port=port)

    @pytest.mark.parametrize("field", ["crn", "api_version", "iam_url", "proxy", "verify", "timeout"])
    @pytest.mark.parametrize(
        "value", [True, 0, 7, 1e999, [], {}, ["x"], {"a": [1]}, "x" * 100_000, "\x00", "a\nb"]
    )
    def test_values_of_any_type_are_refused_by_name(self, field, value):
        if (field, value) in (("verify", True), ("timeout", 7)):
            assert credentials({field: value})
            return
        with pytest.raises(ConfigurationError, match=f"Connection 'c'.*{field}") as caught:
            credentials({field: value})
        assert caught.value.field == field
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400

    def test_a_key_in_the_field_host_is_not_shown(self):
        key = "Zm9vYmFyYmF6-not-a-real-key-0123456789abcdefg"
        for host in (key, f"https://{key}", f"https://host/{key}", f"{key}:99999", f"user:{key}@host"):
            with pytest.raises(ConfigurationError) as caught:
                credentials(host=host)
            assert key.lower() not in str(caught.value).lower()
            assert caught.value.field == "url"


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
        with pytest.raises(PlanError, match=r"^Create a session: Use mode='batch'"):
            IBMQuantumHook().create_session(backend="ibm_fez", max_ttl=60)


def test_a_masked_secret_is_in_no_log():
    from airflow.sdk.log import redact

    mask_secret("a-token-that-was-just-made-0123456789")
    assert "just-made" not in str(redact("Bearer a-token-that-was-just-made-0123456789"))
