# SPDX-License-Identifier: Apache-2.0
"""Connections: one for each thread and process; what of a library they need; who is named when they fail."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import httpcore
import httpx
import pytest

from airflow_provider_ibm_sessions.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client._http import pool, timeouts, transport
from airflow_provider_ibm_sessions.client._http.proxies import proxy_url
from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConfigurationError,
    OutcomeUnknownError,
    TransportError,
)
from testing.fake_ibm import Fault
from tests.client.conftest import ONE_TRY, QUICK, credentials_for, free_port, http

# -- threads -------------------------------------------------------------------------------------------------


def test_thirty_threads_never_use_more_than_ten_connections(ibm):
    """httpcore's own pool closes connections that it has just given to another thread."""
    names = [ibm.add_session().id for _ in range(30)]
    gate = threading.Barrier(30)
    credentials = credentials_for(ibm, timeout=120)  # a busy machine needs that long for 600 exchanges
    with IBMQuantumClient(credentials, ONE_TRY) as client, ThreadPoolExecutor(30) as threads:

        def ask(name):
            gate.wait(120)
            return [client.get_session(name).id for _ in range(20)]

        assert list(threads.map(ask, names)) == [[name] * 20 for name in names]
    assert ibm.connections <= 2 * pool.MAX_THREADS


def test_as_many_exchanges_are_under_way_as_there_are_connections(ibm):
    made = []
    pool_ = pool.ExclusivePool(lambda: made.append(1) or transport.open_client(credentials_for(ibm)))
    gate, done = threading.Barrier(pool.MAX_THREADS + 1), threading.Event()

    def hold(_):
        with pool_.client(10):
            gate.wait(10)
            done.wait(10)

    with ThreadPoolExecutor(pool.MAX_THREADS) as threads:
        holding = [threads.submit(hold, number) for number in range(pool.MAX_THREADS)]
        gate.wait(10)
        with pytest.raises(httpx.PoolTimeout, match="10 other threads"), pool_.client(0.01):
            pass
        done.set()
        for each in holding:
            each.result(10)
    with pool_.client(0.01):
        assert len(made) == pool.MAX_THREADS
    pool_.close()


def test_a_thread_that_finds_no_connection_has_sent_nothing(ibm, monkeypatch):
    monkeypatch.setattr(pool, "MAX_THREADS", 1)
    with (
        IBMQuantumClient(credentials_for(ibm, timeout=0.05), ONE_TRY) as client,
        client._pool.client(1),
        pytest.raises(TransportError, match="other threads") as caught,
    ):
        client.create_session("ibm_fez")
    assert (caught.value.sent, caught.value.retryable) == (False, True)
    assert ibm.journal == []


def test_a_client_that_is_closed_while_in_use_is_closed_afterwards(ibm):
    client = IBMQuantumClient(credentials_for(ibm), ONE_TRY)
    with client._pool.client(1) as http_client:
        client.close()
        assert not http_client.is_closed
    assert http_client.is_closed


# -- processes -----------------------------------------------------------------------------------------------


def in_a_child(work):
    """Run the work in a forked child; 0 if it has returned True."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    return child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_has_connections_of_its_own(ibm):
    """On shared ones, each would read the responses of the other."""
    names = [ibm.add_session().id for _ in range(4)]
    with IBMQuantumClient(credentials_for(ibm), QUICK) as client:
        client.get_session(names[0])
        before = ibm.connections

        def ask(name):
            return all(client.get_session(name).id == name for _ in range(25))

        children = [in_a_child(lambda name=name: ask(name)) for name in names[1:]]
        assert ask(names[0])
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
        assert ask(names[0]), "a child that ends closes nothing of its parent"
    # IAM and the API share a host here; each child needs one connection, and its parent keeps its own.
    assert ibm.connections == before + 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_that_is_forked_while_all_connections_are_in_use_has_room(ibm):
    name = ibm.add_session().id
    client = IBMQuantumClient(credentials_for(ibm), ONE_TRY)
    client.get_session(name)
    stack = [client._pool.client(1) for _ in range(pool.MAX_THREADS)]
    for each in stack:
        each.__enter__()
    child = in_a_child(lambda: client.get_session(name).id == name)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for each in stack:
        each.__exit__(None, None, None)
    client.close()


@pytest.mark.parametrize(("path", "call"), [("sessions", "get_session"), ("jobs", "get_job")])
def test_a_response_about_another_id_is_asked_for_again_then_refused(ibm, connect, path, call):
    """Whatever has mixed up the responses, the wrong session must not be taken for the right one."""
    mixed_up = {"id": "another", "state": "closed"}
    wanted = {"id": "wanted", "state": "open"} if path == "sessions" else {"id": "wanted"}
    ibm.script(Fault("GET", f"/v1/{path}/*", json=mixed_up, times=2))
    ibm.script(Fault("GET", f"/v1/{path}/*", json=wanted, times=1))
    assert getattr(connect(QUICK), call)("wanted").id == "wanted"
    assert len(ibm.requests("GET")) == 3
    ibm.script(Fault("GET", f"/v1/{path}/*", json=mixed_up, times=None))
    with pytest.raises(BadResponseError, match="about another id than wanted") as caught:
        getattr(connect(ONE_TRY), call)("wanted")
    assert caught.value.retryable


# -- parts of libraries that are not public ------------------------------------------------------------------


def test_httpx_and_httpcore_have_what_the_total_timeout_needs():
    """Should this fail with a new release, raise or lower the bounds in pyproject.toml."""
    with httpx.HTTPTransport() as plain:
        assert isinstance(plain._pool, httpcore.ConnectionPool)
        assert isinstance(plain._pool._network_backend, httpcore.NetworkBackend)
        assert timeouts.install_total_timeout(plain) is plain
    looped = httpx.AsyncHTTPTransport()
    assert isinstance(looped._pool._network_backend, httpcore.AsyncNetworkBackend)
    assert timeouts.install_small_steps(looped) is looped
    assert int(httpx.__version__.split(".")[0]) < 1
    assert int(httpcore.__version__.split(".")[0]) < 2


@pytest.mark.parametrize("missing", ["_pool", "_network_backend"])
def test_a_library_without_them_is_named_with_its_version(ibm, monkeypatch, missing):
    make = httpx.HTTPTransport.__init__

    def without(self, *args, **kwargs):
        make(self, *args, **kwargs)
        delattr(self if missing == "_pool" else self._pool, missing)

    monkeypatch.setattr(httpx.HTTPTransport, "__init__", without)
    with pytest.raises(ConfigurationError) as caught:
        IBMQuantumClient(credentials_for(ibm), ONE_TRY).list_versions()
    text = str(caught.value)
    assert f"httpx {httpx.__version__} with httpcore {httpcore.__version__}" in text
    assert missing in text
    assert timeouts.SUPPORTED in text
    assert not caught.value.sent


# -- who does not answer -------------------------------------------------------------------------------------

AFAR = {"url": "https://api.example/api", "iam_url": "https://iam.example"}


@pytest.fixture
def dead():
    return f"http://127.0.0.1:{free_port()}"


def test_an_error_says_that_iam_cannot_be_reached(ibm, connect, dead):
    with pytest.raises(TransportError, match=r"^List backends: ConnectError at IAM \(127\.0\.0\.1\): "):
        connect(ONE_TRY, iam_url=dead).list_backends()


def test_an_error_says_that_the_api_cannot_be_reached(ibm, connect, dead):
    with pytest.raises(TransportError, match=r"^List backends: ConnectError at the API \(127\.0\.0\.1\): "):
        connect(ONE_TRY, url=f"{dead}/api").list_backends()


def test_an_error_says_that_the_proxy_cannot_be_reached(ibm, connect, dead):
    with pytest.raises(TransportError, match=r"ConnectError at the proxy \(127\.0\.0\.1:\d+\)"):
        connect(ONE_TRY, proxy=dead, **AFAR).list_backends()
    with pytest.raises(TransportError, match=r"ConnectError at the proxy \(127\.0\.0\.1:\d+\)"):
        connect(ONE_TRY, proxy=dead, **AFAR).list_versions()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_so_it_does_of_a_proxy_of_the_environment(ibm, connect, dead, monkeypatch, name):
    monkeypatch.setenv(name, dead)
    with pytest.raises(TransportError, match=r"ConnectError at the proxy \(127\.0\.0\.1:\d+\)"):
        connect(ONE_TRY, **AFAR).list_backends()


def test_an_error_says_that_the_proxy_refuses(ibm, connect, canned):
    canned.reply = b"HTTP/1.1 403 Forbidden by policy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    proxy = canned.url.removesuffix("/api")
    with pytest.raises(
        TransportError, match=r"ProxyError at the proxy \(127.*403 Forbidden by policy"
    ) as caught:
        connect(ONE_TRY, proxy=proxy, **AFAR).list_backends()
    assert not caught.value.sent


@pytest.mark.parametrize(("path", "who"), [("/identity/token", "IAM"), ("/v1/*", "the API")])
def test_an_error_says_who_did_not_answer_in_time(ibm, connect, path, who):
    ibm.script(Fault(path=path, delay=30, times=None))
    with pytest.raises(TransportError, match=rf"{who} \(127\.0\.0\.1\)"):
        connect(ONE_TRY, timeout=0.3).list_backends()


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("value", ["*", "api.example", ".example", "iam.example, api.example"])
def test_hosts_without_a_proxy(ibm, monkeypatch, name, value):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    credentials = credentials_for(ibm, **AFAR)
    assert proxy_url(credentials, credentials.url) == "http://proxy.example:3128"
    monkeypatch.setenv(name, value)
    assert proxy_url(credentials, credentials.url) is None


@pytest.mark.parametrize("value", ["127.0.0.1,::1,fd00::/8", "[::1]", ",,", "10.0.0.0/8", "http://x"])
def test_a_no_proxy_of_any_form_is_no_error(ibm, connect, monkeypatch, value):
    monkeypatch.setenv("NO_PROXY", value)
    assert connect(ONE_TRY).list_versions()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_plain_http_to_loopback_uses_no_proxy_of_the_environment(ibm, connect, dead, monkeypatch, name):
    """It is allowed because it stays on this machine: a proxy would read the API key."""
    monkeypatch.setenv(name, dead)
    assert connect(ONE_TRY).list_backends()


def test_a_create_whose_id_cannot_be_used_again_is_of_unknown_outcome(connect, canned):
    """Else a session would be opened that our own check does not let anybody close."""
    for odd in ("\x00x", "a/b", "..", " ", "x" * 501, "ψ"):
        canned.reply = http({"id": odd, "state": "open"})
        said = "id: is empty" if odd == " " else "id: must be 1 to 500 letters"
        with pytest.raises(OutcomeUnknownError, match=said):
            connect(ONE_TRY, url=canned.url).create_session("ibm_fez")
        with pytest.raises(OutcomeUnknownError, match=said):
            connect(ONE_TRY, url=canned.url).submit_job("executor", backend="ibm_fez", params={})


def test_every_id_that_is_read_can_be_closed(ibm, connect, canned):
    canned.reply = http({"id": "a~b.c_d-e"})
    api = connect(ONE_TRY, url=canned.url)
    session = api.create_session("ibm_fez")
    canned.reply = http(b"", "204 No Content")
    api.close_session(session.id)
    assert canned.requests[-1].startswith((b"DELETE /api/v1/sessions/a~b", b"DELETE /api/v1/sessions/a%7Eb"))
