# SPDX-License-Identifier: Apache-2.0
"""Who may call, for every address that a service may listen on."""

from __future__ import annotations

import pytest

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.server.run import ENV_TOKEN, access_policy_from_options, bind
from airflow_provider_ibm_sessions.server.security import AccessPolicy
from tests.server.conftest import TOKEN

LOOPBACK = ["127.0.0.1", "127.0.0.2", "localhost", "::1"]
ELSEWHERE = ["0.0.0.0", "::", "192.0.2.1", "quantum.example", ""]


def policy_for(host, names=(), file=None, *, no_token=False, environ=None):
    policy, _ = access_policy_from_options(host, names, file, no_token=no_token, environ=environ or {})
    return policy


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_may_go_without_a_token(host):
    assert policy_for(host, no_token=True).is_authorized("")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_other_addresses_need_a_token(host):
    with pytest.raises(ConfigurationError, match=ENV_TOKEN) as caught:
        policy_for(host)
    assert caught.value.field == "token"
    with pytest.raises(ConfigurationError, match=ENV_TOKEN):
        policy_for(host, no_token=True)
    policy = policy_for(host, environ={ENV_TOKEN: TOKEN})
    assert policy.is_authorized(f"Bearer {TOKEN}")
    assert policy.is_authorized(f"bearer {TOKEN}")
    assert not policy.is_authorized("")


@pytest.mark.parametrize(
    "token", ["", "short", "a" * 15, "with space in the midst", "ümläut-" * 5, "line\n" * 5]
)
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token):
    with pytest.raises(ConfigurationError, match="16") as caught:
        policy_for("127.0.0.1", environ={ENV_TOKEN: token})
    assert not token or token not in str(caught.value)


def test_a_token_may_stand_in_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    assert policy_for("0.0.0.0", file=str(file), environ={ENV_TOKEN: "another"}).token == TOKEN
    file.write_text("")
    with pytest.raises(ConfigurationError, match="16"):
        policy_for("0.0.0.0", file=str(file))
    with pytest.raises(ConfigurationError, match="cannot read"):
        policy_for("0.0.0.0", file=str(tmp_path / "none"))


def test_a_policy_does_not_show_the_token():
    assert TOKEN not in repr(AccessPolicy(token=TOKEN))


@pytest.mark.parametrize(
    ("listens", "known", "unknown"),
    [
        ("127.0.0.1", ["127.0.0.1:8080", "localhost", "[::1]:1"], ["192.0.2.1", "evil.example", "0.0.0.0"]),
        ("192.0.2.1", ["192.0.2.1", "192.0.2.1:8080"], ["127.0.0.1", "192.0.2.2", "evil.example"]),
        ("quantum.example", ["quantum.example:8080", "QUANTUM.example"], ["evil.example", "192.0.2.1"]),
        (
            "0.0.0.0",
            ["192.0.2.1:8080", "127.0.0.1", "[2001:db8::1]"],
            ["evil.example", "localhost.evil.example"],
        ),
    ],
)
def test_a_service_refuses_a_strange_host(listens, known, unknown):
    policy = AccessPolicy(token=TOKEN, host=listens)
    assert [host for host in known if not policy.allows_host(host)] == []
    assert [host for host in [*unknown, "", "[", ":", "a b"] if policy.allows_host(host)] == []


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_name_by_which_other_machines_know_it_needs_a_token(host):
    with pytest.raises(ConfigurationError, match=r"quantum\.example"):
        policy_for(host, ["localhost", "quantum.example"], no_token=True)
    assert policy_for(host, ["localhost"], no_token=True)


def test_further_names_can_be_given():
    policy = policy_for("0.0.0.0", ["Quantum.Example"], environ={ENV_TOKEN: TOKEN})
    assert policy.allows_host("quantum.example:8080")


def test_a_port_that_is_taken_is_an_error_that_names_it():
    _, listener = bind(None, "127.0.0.1", 0)
    with listener, pytest.raises(ConfigurationError, match=str(listener.getsockname()[1])):
        bind(None, "127.0.0.1", listener.getsockname()[1])


# -- a token by default --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", LOOPBACK)
def test_without_options_a_token_is_made(host):
    policy, made = access_policy_from_options(host, [], None, environ={})
    assert len(made) >= 32
    assert policy.token == made
    assert not policy.is_authorized("")
    assert access_policy_from_options(host, [], None, environ={})[1] != made


def test_a_given_token_is_not_printed():
    policy, made = access_policy_from_options("127.0.0.1", [], None, environ={ENV_TOKEN: TOKEN})
    assert (policy.token, made) == (TOKEN, None)


def test_a_token_and_no_token_contradict():
    with pytest.raises(ConfigurationError, match="--no-token"):
        policy_for("127.0.0.1", no_token=True, environ={ENV_TOKEN: TOKEN})


@pytest.mark.parametrize(
    ("mode", "warns"), [(0o600, False), (0o400, False), (0o644, True), (0o620, True), (0o604, True)]
)
def test_a_token_file_that_others_can_use_is_warned_about(tmp_path, caplog, mode, warns):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(mode)
    policy_for("127.0.0.1", file=str(file))
    assert (f"chmod 600 {file}" in caplog.text) is warns
    assert TOKEN not in caplog.text


# -- malformed Host headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.com@127.0.0.1",
        "evil.com:80@127.0.0.1",
        "localhost/evil.com",
        "localhost?x",
        "localhost#x",
        "127.0.0.1:99999",
        "127.0.0.1:0",
        "127.0.0.1:",
        "127.0.0.1:8080:8080",
        "127.0.0.1:+80",
        "127.0.0.1:٨٠",
        "localhost, localhost",
        "localhost localhost",
        " localhost",
        "local%68ost",
        "[::1",
        "[127.0.0.1]",
        "[::1%lo]",
        "::1",
        "localhost\\evil.com",
    ],
)
def test_a_malformed_host_is_refused(host):
    assert not AccessPolicy(token=TOKEN).allows_host(host)
    assert not AccessPolicy(token=TOKEN, host="0.0.0.0", names=frozenset({"quantum.example"})).allows_host(
        host
    )
