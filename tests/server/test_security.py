# SPDX-License-Identifier: Apache-2.0
"""Who may call, for every address that a service may listen on."""

from __future__ import annotations

import pytest

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.server.run import ENV_TOKEN, listening, rules_for
from airflow_provider_ibm_sessions.server.security import Rules
from tests.server.conftest import TOKEN

LOOPBACK = ["127.0.0.1", "127.0.0.2", "localhost", "::1"]
ELSEWHERE = ["0.0.0.0", "::", "192.0.2.1", "quantum.example", ""]


@pytest.mark.parametrize("host", LOOPBACK)
def test_this_machine_needs_no_token(host):
    assert rules_for(host, [], None, {}).admits("")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_other_machines_do(host):
    with pytest.raises(ConfigurationError, match=ENV_TOKEN) as caught:
        rules_for(host, [], None, {})
    assert caught.value.field == "token"
    rules = rules_for(host, [], None, {ENV_TOKEN: TOKEN})
    assert rules.admits(f"Bearer {TOKEN}")
    assert rules.admits(f"bearer {TOKEN}")
    assert not rules.admits("")


@pytest.mark.parametrize(
    "token", ["", "short", "a" * 15, "with space in the midst", "ümläut-" * 5, "line\n" * 5]
)
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token):
    with pytest.raises(ConfigurationError, match="16") as caught:
        rules_for("127.0.0.1", [], None, {ENV_TOKEN: token})
    assert not token or token not in str(caught.value)


def test_a_token_may_stand_in_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    assert rules_for("0.0.0.0", [], str(file), {ENV_TOKEN: "another"}).token == TOKEN
    file.write_text("")
    with pytest.raises(ConfigurationError, match="16"):
        rules_for("0.0.0.0", [], str(file), {})
    with pytest.raises(ConfigurationError, match="cannot read"):
        rules_for("0.0.0.0", [], str(tmp_path / "none"), {})


def test_rules_do_not_show_the_token():
    assert TOKEN not in repr(Rules(token=TOKEN))


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
def test_a_service_goes_by_no_strange_name(listens, known, unknown):
    rules = Rules(token=TOKEN, host=listens)
    assert [host for host in known if not rules.knows(host)] == []
    assert [host for host in [*unknown, "", "[", ":", "a b"] if rules.knows(host)] == []


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_name_by_which_other_machines_know_it_needs_a_token(host):
    with pytest.raises(ConfigurationError, match=r"quantum\.example"):
        rules_for(host, ["localhost", "quantum.example"], None, {})
    assert rules_for(host, ["localhost"], None, {}).admits("")


def test_further_names_can_be_given():
    rules = rules_for("0.0.0.0", ["Quantum.Example"], None, {ENV_TOKEN: TOKEN})
    assert rules.knows("quantum.example:8080")


def test_a_port_that_is_taken_is_an_error_that_names_it():
    _, listener = listening(None, "127.0.0.1", 0)
    with listener, pytest.raises(ConfigurationError, match=str(listener.getsockname()[1])):
        listening(None, "127.0.0.1", listener.getsockname()[1])
