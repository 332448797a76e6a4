# SPDX-License-Identifier: Apache-2.0
"""The API key goes to IAM and nowhere else; neither it nor a token stands in an error or a log."""

from __future__ import annotations

import base64
import logging
import traceback

import pytest

from airflow_provider_ibm_sessions.client import Job, Session, auth
from airflow_provider_ibm_sessions.client.backend_selection import BackendRequirements
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError, NoBackendError
from airflow_provider_ibm_sessions.client.models.instance import Backend, Workload
from testing.fake_ibm import Fault
from tests.client.conftest import BRIEF, ONE_TRY, TOKEN, assert_hidden


def test_the_logs_of_a_run_full_of_faults_hold_no_secret(ibm, connect, caplog, later):
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "airflow_provider_ibm_sessions", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    ibm.script(Fault(path=TOKEN, echo=True), Fault(path=TOKEN, status=503), Fault(path=TOKEN, drop=True))
    for path in ("/v1/sessions*", "/v1/workloads"):
        kinds = [{"echo": True}, {"status": 401}, {"drop": True}, {"status": 429}, {"html": True}]
        ibm.script(*[Fault(path=path, **kind) for kind in kinds])
    api = connect(BRIEF)
    shown = []
    for _ in range(4):
        for call in (
            lambda: api.create_session(backend="ibm_fez", max_ttl=60),
            lambda: api.get_session("some-id"),
            lambda: api.close_session("some-id"),
            api.list_workloads,
        ):
            try:
                call()
            except IBMQuantumError as error:
                shown += traceback.format_exception(error)
        later(3300)
    assert "httpcore" in {record.name.split(".")[0] for record in caplog.records}
    assert any(record.name.startswith("airflow_provider_ibm_sessions") for record in caplog.records)
    assert len(shown) > 5
    assert_hidden(ibm, caplog.text)
    assert_hidden(ibm, "".join(shown))


@pytest.mark.parametrize("shape", ["errors", "singular", "message", "iam"])
@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_service_that_echoes_the_request_gives_nothing_away(ibm, connect, shape, status):
    ibm.script(Fault(path="/v1/*", echo=True, error_shape=shape, status=status))
    with pytest.raises(IBMQuantumError) as caught:
        connect(ONE_TRY).list_backends()
    assert "Cannot process" in str(caught.value)
    assert_hidden(ibm, "".join(traceback.format_exception(caught.value)) + str(vars(caught.value)))


def test_a_service_that_describes_a_qpu_by_the_request_gives_nothing_away(ibm, connect):
    api = connect(ONE_TRY)
    api.list_backends()
    device = ibm.settings.backends["ibm_fez"]
    device.status, device.reason = "offline", f"cannot serve {ibm.api_key} with {ibm.tokens[-1].value}"
    with pytest.raises(NoBackendError, match=r"cannot serve \*\*\* with \*\*\*") as caught:
        BackendRequirements(among=("ibm_fez",)).select(api.list_backends())
    assert_hidden(ibm, str(caught.value) + str(vars(caught.value)))


@pytest.mark.parametrize("iam", [True, False], ids=["IAM", "API"])
@pytest.mark.parametrize("place", ["status line", "header line"])
def test_a_server_that_speaks_no_http_and_echoes_gives_nothing_away(ibm, connect, canned, iam, place):
    def echo(request):
        line = b" ".join(request.split())
        return (line if place == "status line" else b"HTTP/1.1 200 OK\r\n(" + line) + b"\r\n\r\n"

    canned.reply = echo
    here = {"iam_url": canned.url.removesuffix("/api")} if iam else {"url": canned.url}
    with pytest.raises(IBMQuantumError) as caught:
        connect(ONE_TRY, **here).list_backends()
    assert canned.requests
    assert_hidden(ibm, "".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("status", ["200 OK", "400 Bad"])
@pytest.mark.parametrize("header", ["Content-Type", "Content-Encoding"])
def test_what_is_echoed_in_lower_case_is_hidden_as_well(ibm, connect, canned, status, header):
    canned.reply = lambda _request: (
        f"HTTP/1.1 {status}\r\n{header}: text/{ibm.api_key}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    with pytest.raises(IBMQuantumError) as caught:
        connect(ONE_TRY, url=canned.url).get_session("x")
    assert ibm.api_key.lower() not in "".join(traceback.format_exception(caught.value)).lower()


def test_the_key_is_in_no_request_but_the_one_to_iam(ibm, connect):
    api = connect(BRIEF)
    name = api.create_session(backend="ibm_fez", max_ttl=60).id
    ibm.revoke_tokens()
    ibm.script(Fault(path=TOKEN, status=500, times=None))
    with pytest.raises(IBMQuantumError):
        api.close_session(name)
    for entry in ibm.journal:
        text = f"{entry.path}{entry.query}{entry.headers}{entry.body!r}"
        assert (ibm.api_key in text) == (entry.path == TOKEN)


def test_a_key_that_is_given_as_an_argument_is_not_sent(ibm, api):
    """It is as long as the name of a QPU, an id or a tag may be."""
    key = ibm.api_key
    params = {"pubs": [["OPENQASM 3.0;"]]}
    for call in (
        lambda: api.create_session(key),
        lambda: api.get_session(key),
        lambda: api.get_job(f"x{key}"),
        lambda: api.submit_job("sampler", backend="ibm_fez", params=params, tags=[key]),
        lambda: api.submit_job("sampler", backend="ibm_fez", params={**params, "token": key}),
        lambda: list(api.list_workloads(search=key)),
    ):
        with pytest.raises(ConfigurationError, match="not sent, because the API key stands in") as caught:
            call()
        assert not caught.value.sent
        assert_hidden(ibm, str(caught.value))
    assert ibm.requests(path="/v1/*") == ibm.leaks == []


# -- proxies -------------------------------------------------------------------------------------------------

PROXY_USERS = {
    "password": ("me:hunter2-of-the-proxy", ["hunter2-of-the-proxy"]),
    "encoded": ("me:p%40ss%2Fword%21", ["p%40ss%2Fword%21", "p@ss/word!"]),
    "token as user": ("proxy-token-0123456789", ["proxy-token-0123456789"]),
}


@pytest.mark.parametrize(("user", "secrets"), PROXY_USERS.values(), ids=PROXY_USERS)
def test_a_proxy_that_echoes_its_credentials_gives_nothing_away(ibm, connect, canned, caplog, user, secrets):
    def refuse(request):
        sent = [line for line in request.splitlines() if line.lower().startswith(b"proxy-authorization")]
        decoded = base64.b64decode(sent[0].split()[-1])
        reason = b"407 No: " + sent[0] + b" is " + decoded + b" of " + user.encode()
        return b"HTTP/1.1 " + reason + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    canned.reply = refuse
    proxy = canned.url.removesuffix("/api").replace("//", f"//{user}@")
    api = connect(BRIEF, url="https://api.example/api", iam_url="https://iam.example", proxy=proxy)
    with pytest.raises(IBMQuantumError) as caught:
        api.list_backends()
    text = f"{caught.value}{caught.value!r}{vars(caught.value)}{caplog.text}"
    assert "No: " in text
    assert "***" in text
    encoded = base64.b64encode(secrets[-1].encode()).decode().rstrip("=")
    assert not [secret for secret in [*secrets, encoded[4:-4]] if secret in text]


# -- who hides tokens in logs --------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch):
    """The tokens that a callback is given."""
    monkeypatch.setattr(auth, "_token_callbacks", [])
    tokens = []
    auth.on_new_token(tokens.append)
    tokens.clear()  # those of other tests
    return tokens


def test_each_new_token_is_handed_to_the_callback_before_it_is_used(ibm, connect, told):
    api = connect(ONE_TRY)
    api.list_backends()
    api.list_backends()
    ibm.revoke_tokens()
    api.list_backends()
    assert told == [token.value for token in ibm.tokens]
    assert len(told) == 2


def test_a_callback_that_comes_late_is_given_the_token_in_use(ibm, connect, told):
    connect(ONE_TRY).list_backends()
    late = []
    auth.on_new_token(late.append)
    assert ibm.tokens[0].value in late


# -- what IBM writes -----------------------------------------------------------------------------------------

ODD_TEXT = "bad\n2026-01-01 ERROR forged\r\x1b[31mred\x1b[0m\x00\u202e\u2028end"
FIELDS = {
    "job reason": Job(id="x", state={"status": ODD_TEXT, "reason": ODD_TEXT, "reason_solution": ODD_TEXT}),
    "job state": Job(id="x", state=ODD_TEXT, status=ODD_TEXT, backend=ODD_TEXT),
    "session": Session(id="x", state=ODD_TEXT, state_reason=ODD_TEXT, mode=ODD_TEXT, backend_name=ODD_TEXT),
    "workload": Workload(id="x", status=ODD_TEXT, status_reason=ODD_TEXT, mode=ODD_TEXT, backend=ODD_TEXT),
    "backend": Backend(name=ODD_TEXT, status={"name": ODD_TEXT, "reason": ODD_TEXT}),
}


@pytest.mark.parametrize("model", FIELDS.values(), ids=FIELDS)
def test_what_ibm_writes_is_one_line_without_control_characters(model):
    def strings(value):
        if isinstance(value, dict):
            return [each for item in value.values() for each in strings(item)]
        return [value] if isinstance(value, str) else []

    found = strings(model.model_dump(exclude_none=True))
    assert any("forged" in each for each in found)
    assert all(each.isprintable() for each in found)
    if isinstance(model, Job):
        assert str(model.to_error()).isprintable()


def test_what_ibm_writes_without_end_is_cut():
    session = Session(id="x", state_reason="x" * 1_000_000)
    assert len(session.state_reason) == 4000
