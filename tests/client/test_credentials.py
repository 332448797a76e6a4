# SPDX-License-Identifier: Apache-2.0
"""Credentials: what follows from the CRN, what is refused before anything is sent, what is never shown."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import pickle
import re
import stat
import threading
from unittest import mock

import pytest

from airflow_provider_ibm_sessions.client import Credentials, IBMQuantumClient
from airflow_provider_ibm_sessions.client import credentials as credentials_module
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from tests.client.conftest import CRN, credentials_for

KEY = "Zm9vYmFyYmF6_not-a-real-key-0123456789abcdef"
PASSWORD = "hunter2-of-the-proxy"

ALLOWED = {
    "api_key": "an IBM Cloud API key",
    "crn": "crn:v1:bluemix:public:quantum-computing:<region>:a/<account>:<instance>::",
    "api_version": "a date such as 2026-04-15",
    "url": "https",
    "iam_url": "https",
    "verify": "true, false or the path of a readable file of CA certificates",
    "proxy": "a URL such as http://",
    "emulator": "true or false",
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
    "emulator": ["maybe", 2, None, []],
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
    somewhere = {"url": "https://api.example/api", "iam_url": "https://iam.example"}
    credentials = credentials_for(ibm, proxy=f"http://me:{PASSWORD}@127.0.0.1:1", **somewhere)
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


# -- kind: secrets that leave by serialization ---------------------------------------------------------------


def secret_credentials():
    return made(proxy=f"http://me:{PASSWORD}@proxy.example:3128")


def test_airflow_does_not_serialize_the_key():
    from airflow.sdk.serde import serialize

    for thing in (secret_credentials(), {"a": [secret_credentials()]}, secret_credentials().api_key):
        with pytest.raises(TypeError, match="Credentials are not serialized: hand on the connection id"):
            serialize(thing)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_credentials_are_not_pickled(protocol):
    for thing in (secret_credentials(), secret_credentials().api_key, secret_credentials().proxy):
        with pytest.raises(TypeError, match="Credentials are not serialized"):
            pickle.dumps(thing, protocol)


def test_no_way_to_list_the_fields_shows_a_secret():
    secret = secret_credentials()
    shown = [
        dataclasses.asdict(secret),
        dataclasses.astuple(secret),
        {name: getattr(secret, name) for name in secret.__slots__},
        secret.__getstate__(),
        copy.copy(secret),
        copy.deepcopy(secret),
        dataclasses.replace(secret, timeout=1),
        json.dumps(dataclasses.asdict(secret), default=str),
        json.dumps(dataclasses.asdict(secret), default=repr),
        f"{secret.api_key} {secret.proxy} {secret.api_key!r} {secret.api_key:>10}",
    ]
    assert KEY not in str(shown)
    assert PASSWORD not in str(shown)
    for thing in (secret, secret.api_key):
        with pytest.raises(TypeError):
            vars(thing)
    with pytest.raises(TypeError):
        secret.api_key.__getstate__()


def test_copies_are_equal_and_the_key_can_be_had():
    secret = secret_credentials()
    again = dataclasses.replace(secret, timeout=secret.timeout)
    assert secret == again == copy.copy(secret) == copy.deepcopy(secret) == secret_credentials()
    assert len({secret, again, copy.deepcopy(secret), secret_credentials()}) == 1
    assert secret.api_key != KEY
    assert (secret.api_key.reveal(), secret.proxy.reveal()) == (
        KEY,
        f"http://me:{PASSWORD}@proxy.example:3128",
    )


# -- kind: secrets in the wrong field ------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["crn", "url", "iam_url", "proxy", "api_version", "verify"])
@pytest.mark.parametrize(
    "around",
    ["{}", "crn:{}", "crn:v1:{}", "crn:v1:bluemix:public:quantum-computing:us-east:a/{}:x::", "https://{}",
     "https://host/{}/api", "https://{}:99999", "http://{}", "https://u:{}@host", "https://host/?apikey={}",
     "https://{}.example", "https://{}.eu.cloud.ibm.com/api", "https://host.{}:443", "https://{}@host",
     " {}", "'{}'", "{}\u200b", CRN.replace("11111111-2222", "{}"), CRN.replace("us-east", "{}"),
     CRN.replace("bluemix", "{}")],
)  # fmt: skip
def test_a_key_pasted_into_another_field_is_refused_and_not_shown(field, around):
    value = around.format(KEY)
    if field == "proxy" and around in ("https://u:{}@host", "https://{}@host", "https://host/?apikey={}"):
        assert KEY not in repr(made(api_key="another", proxy=value))
        return
    with pytest.raises(ConfigurationError) as caught:
        made(api_key="another", **{field: value})
    assert caught.value.field == field
    assert KEY[:20].lower() not in f"{caught.value}{caught.value!r}{caught.value.__context__}".lower()


@pytest.mark.parametrize("field", ["crn", "url", "iam_url", "proxy", "api_version", "verify"])
@pytest.mark.parametrize(
    "around", ["https://{}.example", "http://{}@proxy:3128", "http://u:{}@proxy:3128", "x{}x"]
)
def test_the_connections_own_key_stands_in_no_other_field(field, around):
    """As a proxy's password it would be sent to the proxy."""
    with pytest.raises(ConfigurationError, match="belongs into the password") as caught:
        made(api_key=KEY, **{field: around.format(KEY)})
    assert caught.value.field == field
    assert KEY[:20].lower() not in f"{caught.value}{caught.value!r}".lower()


@pytest.mark.parametrize("field", ["url", "iam_url", "proxy"])
def test_a_long_host_name_is_no_key(field):
    host = "internal-k8s-default-ingress-a1b2c3d4e5-1234567890.us-east-1.elb.amazonaws.com"
    assert made(**{field: f"https://{host}"})


# -- kind: secrets in clear text through a proxy -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"url": "http://127.0.0.1:1/api", "iam_url": "http://localhost:1"}, "iam_url"),
        ({"iam_url": "http://[::1]:1"}, "iam_url"),
        ({"url": "http://localhost:1/api"}, "url"),
    ],
)
def test_no_proxy_reads_a_key_on_its_way_to_loopback(changes, name):
    with pytest.raises(ConfigurationError, match=f"proxy must be empty where {name} is plain http") as caught:
        made(proxy="http://proxy.example:3128", **changes)
    assert caught.value.field == "proxy"
    assert made(**changes)


# -- kind: risks that nobody mentions ------------------------------------------------------------------------


@pytest.fixture
def warnings(caplog):
    credentials_module._warn_once.cache_clear()
    caplog.set_level(logging.WARNING, logger=credentials_module.__name__)
    yield lambda: [record.getMessage() for record in caplog.records]
    credentials_module._warn_once.cache_clear()


def test_certificates_that_are_not_checked_are_warned_of_once(warnings):
    for _ in range(3):
        made(verify=False)
    [api, iam] = sorted(warnings(), key=lambda each: "iam" in each)
    assert "Certificates are not checked (verify=false)" in api
    assert "quantum.cloud.ibm.com" in api
    assert "iam.cloud.ibm.com" in iam


def test_an_iam_that_is_not_ibms_is_warned_of_once(warnings):
    for host in ("iam.example", "iam.cloud.ibm.com.example", "evilcloud.ibm.com"):
        for _ in range(2):
            made(iam_url=f"https://{host}")
    assert len(warnings()) == 3
    assert all("which is not IBM's: check iam_url" in each for each in warnings())


def test_what_is_usual_is_not_warned_of(warnings):
    made()
    made(private_endpoint=True)
    made(iam_url="https://iam.test.cloud.ibm.com")
    made(url="http://127.0.0.1:1/api", iam_url="http://127.0.0.1:1", verify=False)
    assert warnings() == []


# -- kind: messages that say which ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crn", "said"),
    [
        ("", "crn is empty"),
        (None, "crn is empty"),
        (f"'{CRN}'", "crn stands in quotes, remove them"),
        (f"\u201c{CRN}\u201d", "crn stands in quotes, remove them"),
        (f" {CRN}", "crn begins or ends with white space, remove it"),
        (f"{CRN}\n", "crn begins or ends with white space, remove it"),
        (f"{CRN[:9]}\u200b{CRN[9:]}", "crn holds the invisible character U+200B, remove it"),
        (f"\ufeff{CRN}", "crn holds the invisible character U+FEFF, remove it"),
        ("bluemix", "crn does not begin with 'crn:'"),
        (CRN.replace("quantum-computing", "cloudant"), "crn lacks the service, quantum-computing,"),
        (CRN.replace("us-east", ""), "crn lacks the region"),
        (CRN.replace("a/", ""), "crn lacks the account"),
        (CRN.removesuffix("::"), "crn does not end with '::'"),
        ("crn:v1:bluemix", "crn lacks the cloud's type"),
    ],
)
def test_what_is_wrong_with_a_crn_is_said_first(crn, said):
    with pytest.raises(ConfigurationError) as caught:
        made(crn=crn)
    assert str(caught.value).startswith(said)
    assert ALLOWED["crn"] in str(caught.value)


@pytest.mark.parametrize("field", ["api_key", "url", "iam_url", "proxy", "api_version", "verify"])
def test_quotes_and_white_space_around_a_value_are_named(field):
    for around, said in (
        ("'{}'", "quotes"),
        ('"{}"', "quotes"),
        ("{} ", "white space"),
        ("{}\u200b", "U+200B"),
    ):
        with pytest.raises(ConfigurationError, match=f"^{field} .*{re.escape(said)}.*remove"):
            made(**{field: around.format("https://host.example/api")})


def test_a_wrong_environment_names_the_variable():
    with pytest.raises(ConfigurationError, match=r"^IBM_QUANTUM_CRN: crn does not begin"):
        Credentials.from_env({"IBM_CLOUD_API_KEY": KEY, "IBM_QUANTUM_CRN": "bluemix"})
    with pytest.raises(ConfigurationError, match=r"^IBM_CLOUD_API_KEY: api_key stands in quotes"):
        Credentials.from_env({"IBM_CLOUD_API_KEY": f"'{KEY}'", "IBM_QUANTUM_CRN": CRN})


# -- kind: one connection's setting that hangs all -----------------------------------------------------------


def refused_verify(path):
    with pytest.raises(ConfigurationError, match="verify must be true, false or the path") as caught:
        made(verify=str(path))
    assert caught.value.field == "verify"


def test_a_fifo_is_no_ca_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    refused_verify(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    refused_verify(tmp_path / "link")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty", "/", "/proc/self/mem", "/dev/fd/0"])
def test_devices_and_folders_are_no_ca_files(path):
    refused_verify(path)


def test_a_ca_file_of_any_size_is_not_read(tmp_path):
    path = tmp_path / "large.pem"
    with path.open("wb") as file:
        file.truncate(2**40)
    refused_verify(path)


def test_a_ca_file_that_is_slow_to_read_holds_nobody_else_up(tmp_path):
    """Another thread reads a file on a network drive that does not answer."""
    reading, answer = threading.Event(), threading.Event()
    opened = os.open

    def slow(path, *args, **kwargs):
        if str(path) == "/mnt/away.pem":
            reading.set()
            answer.wait(30)
            raise OSError
        return opened(path, *args, **kwargs)

    def read():
        with pytest.raises(ConfigurationError):
            made(verify="/mnt/away.pem")

    with mock.patch("os.open", slow):
        thread = threading.Thread(target=read)
        thread.start()
        assert reading.wait(30)
        IBMQuantumClient(made()).close()
        IBMQuantumClient(made(verify=False)).close()
        assert not answer.is_set()
        answer.set()
        thread.join()


# -- kind: hosts that no library reads -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["[v1.x]", "[::1", "::1]", "[127.0.0.1]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[]", "a%41", "h:-1"],
)
@pytest.mark.parametrize("field", ["url", "iam_url", "proxy"])
def test_odd_brackets_in_a_host_are_refused(host, field):
    with pytest.raises(ConfigurationError) as caught:
        made(**{field: f"https://{host}/"})
    assert caught.value.field == field


# -- kind: environments that a library cannot read -----------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["127.0.0.1,::1,fd00::/8", "::1", "[::1]", "*", "a b", ",,", "10.0.0.0/8,*.x"]
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("proxy", ["http://proxy.example:3128", None])
def test_any_list_of_hosts_without_proxy_is_read(monkeypatch, name, value, proxy):
    monkeypatch.setenv(name, value)
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    IBMQuantumClient(made(verify=False)).close()


@pytest.mark.parametrize(
    "value", ["socks5://127.0.0.1:1", "socks://x:1", "http://[v1.x]:1", "http://a:99999", "://"]
)
@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"])
def test_a_proxy_of_the_environment_that_cannot_be_used_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name.upper()} of the environment must be") as caught:
        IBMQuantumClient(made(verify=False))
    assert caught.value.field == name.upper()
    monkeypatch.setenv("NO_PROXY", ".cloud.ibm.com")
    IBMQuantumClient(made(verify=False)).close()


@pytest.mark.parametrize(("name", "value"), [("SSL_CERT_FILE", "/no/such.pem"), ("SSL_CERT_DIR", "/no/such")])
def test_certificates_of_the_environment_that_are_missing_are_named(monkeypatch, name, value):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name} must be the path") as caught:
        IBMQuantumClient(made())
    assert caught.value.field == name
    IBMQuantumClient(made(verify=False)).close()
