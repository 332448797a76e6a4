# SPDX-License-Identifier: Apache-2.0
"""The API key goes to IAM and nowhere else; neither it nor a token stands in an error or a log."""

from __future__ import annotations

import logging
import traceback

import pytest

from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
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
    assert_hidden(ibm, str(caught.value))


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
