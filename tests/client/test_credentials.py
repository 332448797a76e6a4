# SPDX-License-Identifier: Apache-2.0
"""Who calls, and where: what follows from the CRN, and what is refused before anything is sent."""

from __future__ import annotations

import copy
import os
import stat

import pytest

from airflow_provider_ibm_sessions.client import Credentials, IBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from tests.client.conftest import CRN, credentials_for

KEY = "Zm9vYmFyYmF6_not-a-real-key-0123456789abcdef"
PASSWORD = "hunter2-of-the-proxy"

ALLOWED = {
    "api_key": "IBM Cloud API key",
    "crn": "crn:v1:bluemix:public:quantum-computing:<region>:a/<account>:<instance>::",
    "api_version": "a date such as 2026-04-15",
    "url": "https",
    "iam_url": "https",
    "verify": "true, false or the path of a readable file of CA certificates",
    "proxy": "a URL such as http://",
    "timeout": "a number of seconds, above 0 and at most 3600",
}
BAD = {
    "api_key": ["", None, 7, "two words", "tail\n", "tab\t", "schlüssel", "\x00"],
    "crn": [
        "",
        None,
        "nonsense",
        CRN[:-2],
        CRN + "x",
        f" {CRN}",
        f"{CRN}\n",
        CRN.replace("quantum-computing", "cloudant"),
        CRN.replace(":a/", ":"),
        CRN.replace("us-east", "US East"),
        CRN.replace("us-east", ""),
        CRN.replace("us-east", "evil.example/"),
        CRN.replace("0123", "a/b"),
    ],
    "api_version": [
        "",
        "latest",
        "2026-4-15",
        "20260415",
        "2026-13-01",
        "2026-02-30",
        "2026-04-15T00:00:00",
        None,
    ],
    "url": [
        "quantum.cloud.ibm.com",
        "ftp://host/api",
        "https://",
        "https://host:99999/api",
        "https://ho\nst/api",
        " https://host/api",
        "https://user@host/api",
        "https://user:word@host/api",
        "https://host/api?x=1",
        "https://host/api#x",
        7,
        # Plain http, and hosts that only look like this machine.
        "http://quantum.cloud.ibm.com/api",
        "http://10.0.0.1/api",
        "http://127.0.0.1.evil.example/api",
        "http://localhost.evil.example/api",
        "http://localhost@evil.example/api",
        "http://0.0.0.0/api",
    ],
    "iam_url": ["iam.cloud.ibm.com", "http://iam.cloud.ibm.com", "ftp://host", None, "https://u:p@host"],
    "verify": ["", "/no/such/file.pem", ".", None, 1, b"x"],
    "proxy": ["", "proxy.example:3128", "socks5://proxy.example", "http://", "http://proxy.example:x", 7],
    "timeout": [0, -1, True, "30", None, float("nan"), float("inf"), []],
}
CASES = [(field, value) for field, values in BAD.items() for value in values]


def made(**changes):
    return Credentials(**({"api_key": KEY, "crn": CRN} | changes))


@pytest.mark.parametrize(("field", "value"), CASES, ids=lambda each: repr(each)[:40])
def test_a_bad_field_is_named_with_what_is_allowed(field, value):
    with pytest.raises(ConfigurationError) as caught:
        made(**{field: value})
    error = caught.value
    assert error.field == field
    assert field in str(error)
    assert ALLOWED[field] in str(error) or "must not hold a user" in str(error)
    assert (error.sent, error.retryable) == (False, False)
    assert "\n" not in str(error)
    assert KEY not in str(error)


def test_an_unreadable_ca_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "ca.pem"
    path.write_text("x")
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser reads everything
        monkeypatch.setattr(os, "access", lambda name, mode: bool(os.stat(name).st_mode & stat.S_IRUSR))
    with pytest.raises(ConfigurationError, match="verify must be"):
        made(verify=str(path))


def test_a_wrong_key_is_not_shown():
    for wrong in (f"{KEY} ", f"{KEY}\n", f"é{KEY}"):
        with pytest.raises(ConfigurationError) as caught:
            made(api_key=wrong)
        assert KEY not in str(caught.value)


def test_a_key_in_the_wrong_field_is_not_shown():
    with pytest.raises(ConfigurationError) as caught:
        Credentials(api_key=CRN, crn=KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("field", ["url", "iam_url", "proxy"])
@pytest.mark.parametrize("scheme", ["ftp", "http", "https"])
@pytest.mark.parametrize("port", ["1", "99999"])
def test_a_password_in_a_url_is_not_shown(field, scheme, port):
    if field == "proxy" and port == "1" and scheme != "ftp":
        assert PASSWORD not in repr(made(proxy=f"{scheme}://me:{PASSWORD}@host:1"))
        return
    with pytest.raises(ConfigurationError) as caught:
        made(**{field: f"{scheme}://me:{PASSWORD}@host:{port}"})
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("region", "private", "url", "iam_url"),
    [
        ("us-east", False, "https://quantum.cloud.ibm.com/api", "https://iam.cloud.ibm.com"),
        ("eu-de", False, "https://eu-de.quantum.cloud.ibm.com/api", "https://iam.cloud.ibm.com"),
        (
            "us-east",
            True,
            "https://private.us-east.quantum.cloud.ibm.com/api",
            "https://private.iam.cloud.ibm.com",
        ),
        (
            "eu-de",
            True,
            "https://private.eu-de.quantum.cloud.ibm.com/api",
            "https://private.iam.cloud.ibm.com",
        ),
    ],
)
def test_hosts_follow_from_the_region(region, private, url, iam_url):
    credentials = made(crn=CRN.replace("us-east", region), private_endpoint=private)
    assert (credentials.region, credentials.url, credentials.iam_url) == (region, url, iam_url)


@pytest.mark.parametrize(
    "url",
    [
        "https://host/api",
        "https://host/api/",
        "https://host/api/v1",
        "https://host/api/v1/",
        "HTTPS://host/api",
    ],
)
def test_a_base_url_is_written_in_one_form(url):
    assert made(url=url).url == "https://host/api"


def test_urls_that_are_given_are_kept():
    credentials = made(url="http://localhost:8080/api", iam_url="https://iam.example:444/identity/token/")
    assert credentials.url == "http://localhost:8080/api"
    assert credentials.iam_url == "https://iam.example:444"
    for loopback in ("http://127.0.0.1:1/api", "http://127.9.9.9/api", "http://[::1]:1/api"):
        assert made(url=loopback).url == loopback


def test_defaults():
    credentials = made()
    assert credentials.api_version == "2026-04-15"
    assert (credentials.verify, credentials.proxy, credentials.timeout) == (True, None, 60.0)


def test_the_environment_gives_credentials(monkeypatch):
    environ = {"IBM_CLOUD_API_KEY": KEY, "IBM_QUANTUM_CRN": CRN}
    assert Credentials.from_env(environ) == made()
    assert Credentials.from_env(environ | {"IBM_QUANTUM_API_VERSION": ""}) == made()
    version = "2026-03-15"
    assert Credentials.from_env(environ | {"IBM_QUANTUM_API_VERSION": version}) == made(api_version=version)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("IBM_QUANTUM_API_VERSION", raising=False)
    assert Credentials.from_env() == made()


def test_an_environment_without_them_names_what_is_missing():
    with pytest.raises(ConfigurationError, match="IBM_CLOUD_API_KEY and IBM_QUANTUM_CRN") as caught:
        Credentials.from_env({"IBM_CLOUD_API_KEY": ""})
    assert caught.value.field == "IBM_CLOUD_API_KEY"
    with pytest.raises(ConfigurationError, match="Set IBM_QUANTUM_CRN in") as caught:
        Credentials.from_env({"IBM_CLOUD_API_KEY": KEY})
    assert KEY not in str(caught.value)


def test_credentials_cannot_change_and_are_keys():
    credentials = made()
    with pytest.raises(AttributeError):
        credentials.api_key = "other"
    assert {credentials: 1}[copy.copy(credentials)] == 1
    assert credentials != made(api_key="other")


def test_nothing_shows_the_key_or_the_password_of_the_proxy(ibm):
    credentials = credentials_for(ibm, proxy=f"http://me:{PASSWORD}@127.0.0.1:1")
    with IBMQuantumClient(credentials) as client:
        for thing in (credentials, client, client.retry, [credentials], {"a": credentials}):
            for text in (repr(thing), str(thing), f"{thing}", f"{thing!r:>10}"):
                assert ibm.api_key not in text
                assert PASSWORD not in text


# -- values that pass a superficial check and fail in a library ----------------------------------------------

TRICKY = {
    "CA path with a NUL": {"verify": "a\0b"},
    "CA path that is no text": {"verify": "\ud800"},
    "timeout beyond floats": {"timeout": 10**400},
    "timeout that no socket takes": {"timeout": 1e300},
    "proxy host that is no host": {"proxy": "http://\u2603..x:1"},
    "host that is no host": {"url": "https://\u00df..\u2603/api"},
    "host with a space": {"url": "https://ho st/api"},
    "proxy host with a space": {"proxy": "http://ho st:3128"},
    "host with an empty label": {"url": "https://a..b/api"},
    "host with a label too long": {"url": f"https://{'a' * 64}.example/api"},
    "URL without end": {"url": f"http://127.0.0.1:9/{'a' * 70_000}"},
    "region that is no host label": {"crn": CRN.replace("us-east", "x" * 64)},
    "CRN with letters that no header takes": {"crn": CRN.replace("0123", "ü")},
    "CRN with a control character": {"crn": CRN.replace("0123", "\x00")},
}


@pytest.mark.parametrize("changes", TRICKY.values(), ids=TRICKY)
def test_what_a_library_would_refuse_is_refused_by_name(changes):
    with pytest.raises(ConfigurationError) as caught:
        made(**changes)
    assert caught.value.field in changes


def test_a_ca_file_without_certificates_is_refused(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("this is no certificate\n")
    with pytest.raises(ConfigurationError) as caught:
        IBMQuantumClient(made(verify=str(path))).close()
    assert caught.value.field == "verify"
