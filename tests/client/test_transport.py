# SPDX-License-Identifier: Apache-2.0
"""TLS, proxies and connections."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import socketserver
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_ibm_sessions.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, TransportError
from airflow_provider_ibm_sessions.client.shared import shared_client
from testing.fake_ibm import FakeIBM
from tests.client.conftest import BRIEF, ONE_TRY, QUICK, TOKEN, credentials_for, free_port

PASSWORD = "hunter2-of-the-proxy"


def certificate(folder, address="127.0.0.1", days=1):
    """A certificate that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test of ours")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False)
    )
    usages = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **usages
    )
    signed = builder.add_extension(usage, True).sign(key, hashes.SHA256())
    path = folder / f"{address}-{days}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


class TLSFront(socketserver.ThreadingTCPServer):
    """Speaks TLS in front of the fake."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path, port):
        self.behind = port
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(path)
        super().__init__(("127.0.0.1", 0), _Front)
        threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True).start()

    @property
    def where(self):
        base = f"https://127.0.0.1:{self.server_address[1]}"
        return {"url": f"{base}/api", "iam_url": base}


class _Front(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            with (
                self.server.context.wrap_socket(self.request, server_side=True) as near,
                socket.create_connection(("127.0.0.1", self.server.behind)) as far,
            ):
                threading.Thread(target=_pump, args=(far, near), daemon=True).start()
                _pump(near, far)
        except OSError:
            pass


def _pump(source, target):
    try:
        while data := source.recv(65_536):
            target.sendall(data)
    except OSError:
        pass


@pytest.fixture
def front(ibm):
    fronts = []

    def start(path):
        fronts.append(TLSFront(path, ibm.port))
        return fronts[-1].where

    yield start
    for each in fronts:
        each.shutdown()
        each.server_close()


@pytest.fixture
def path(tmp_path):
    return certificate(tmp_path)


def assert_not_trusted(ibm, api):
    """Neither IAM nor the API hears anything, and nobody tries again."""
    with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        api.create_session(backend="ibm_fez", max_ttl=60)
    assert (caught.value.retryable, caught.value.sent) == (False, False)
    assert ibm.journal == []


def test_a_certificate_that_nobody_vouches_for(ibm, connect, front, path):
    assert_not_trusted(ibm, connect(QUICK, verify=True, **front(path)))


def test_it_is_trusted_where_its_ca_is_named(ibm, connect, front, path):
    api = connect(QUICK, verify=str(path), **front(path))
    assert api.get_session(api.create_session(backend="ibm_fez", max_ttl=60).id).state == "open"
    assert ibm.requests("POST", TOKEN)


def test_it_is_not_looked_at_where_that_is_asked_for(ibm, connect, front, path):
    assert connect(QUICK, verify=False, **front(path)).list_backends()


@pytest.mark.parametrize("facts", [{"address": "127.0.0.2"}, {"days": -1}], ids=["another host", "expired"])
def test_a_certificate_that_does_not_fit(ibm, connect, front, tmp_path, facts):
    wrong = certificate(tmp_path, **facts)
    assert_not_trusted(ibm, connect(QUICK, verify=str(wrong), **front(wrong)))


def test_another_ca_does_not_do(ibm, connect, front, path, tmp_path):
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other")
    assert_not_trusted(ibm, connect(QUICK, verify=str(other), **front(path)))


def test_an_api_that_is_not_trusted_gets_no_token(ibm, connect, front, path):
    api = connect(QUICK, verify=True, url=front(path)["url"])
    with pytest.raises(TransportError) as caught:
        api.create_session(backend="ibm_fez", max_ttl=60)
    assert (caught.value.retryable, caught.value.sent) == (False, False)
    assert {entry.path for entry in ibm.journal} == {TOKEN}


def test_tls_where_there_is_none(ibm, connect):
    base = f"https://127.0.0.1:{ibm.port}"
    with pytest.raises(TransportError) as caught:
        connect(ONE_TRY, verify=True, url=f"{base}/api", iam_url=base).create_session(
            backend="ibm_fez", max_ttl=60
        )
    assert not caught.value.sent
    assert ibm.journal == []


# -- proxies -------------------------------------------------------------------------------------------------


class Tunnel(socketserver.StreamRequestHandler):
    """A proxy that opens tunnels, all of them to one server."""

    def handle(self):
        asked = self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        self.server.asked.append(asked.split()[1].decode())
        try:
            with socket.create_connection(self.server.behind) as far:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                threading.Thread(target=_pump, args=(far, self.request), daemon=True).start()
                _pump(self.request, far)
        except OSError:
            pass


def test_everything_goes_through_the_proxy(ibm, connect, front, path):
    behind = front(path)["iam_url"].rpartition(":")[2]
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as proxy:
        proxy.daemon_threads, proxy.block_on_close = True, False
        proxy.asked, proxy.behind = [], ("127.0.0.1", int(behind))
        threading.Thread(target=proxy.serve_forever, args=(0.005,), daemon=True).start()
        api = connect(
            QUICK,
            url="https://api.example/api",
            iam_url="https://iam.example",
            proxy=f"http://127.0.0.1:{proxy.server_address[1]}",
        )
        assert api.create_session(backend="ibm_fez", max_ttl=60).id in ibm.sessions
        proxy.shutdown()
    assert set(proxy.asked) == {"api.example:443", "iam.example:443"}


def test_a_proxy_that_is_down_is_told_without_its_password(ibm, connect):
    proxy = f"http://me:{PASSWORD}@127.0.0.1:{free_port()}"
    somewhere = {"url": "https://api.example/api", "iam_url": "https://iam.example"}
    with pytest.raises(TransportError) as caught:
        connect(BRIEF, proxy=proxy, **somewhere).create_session(backend="ibm_fez", max_ttl=60)
    assert (caught.value.sent, caught.value.retryable) == (False, True)
    assert PASSWORD not in f"{caught.value}{caught.value!r}"
    assert ibm.journal == []


def test_a_proxy_that_opens_no_tunnel_has_sent_nothing(ibm, connect, canned):
    canned.reply = b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    proxy = canned.url.removesuffix("/api").replace("//", f"//me:{PASSWORD}@")
    with pytest.raises(TransportError) as caught:
        connect(
            ONE_TRY, url="https://api.example/api", iam_url="https://iam.example", proxy=proxy
        ).create_session(backend="ibm_fez", max_ttl=60)
    assert not caught.value.sent
    assert PASSWORD not in str(caught.value)
    assert canned.requests[0].startswith(b"CONNECT iam.example:443 ")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_gets_nothing_that_is_for_loopback(ibm, connect, monkeypatch, name):
    """Plain http is allowed to loopback because it stays on the machine; so it must stay there."""
    with FakeIBM() as outside:
        monkeypatch.setenv(name, outside.iam_url)
        connect(ONE_TRY).list_versions()
        assert outside.journal == []


# -- connections ---------------------------------------------------------------------------------------------


def test_one_connection_is_kept(ibm, api):
    name = ibm.add_session().id
    for _ in range(20):
        api.get_session(name)
    assert ibm.connections == 1


def test_a_connection_that_the_service_closed_meanwhile_is_no_trouble(ibm, connect):
    """Above all not for a POST: nothing was sent on the dead connection."""
    api = connect(QUICK)
    api.list_backends()
    for _ in range(5):
        ibm.stop()
        ibm.start()
        api.create_session(backend="ibm_fez", max_ttl=60)
    assert len(ibm.sessions) == len(ibm.requests("POST", "/v1/sessions")) == 5


@pytest.mark.parametrize("call", ["list_versions", "list_backends"])
def test_what_was_sent_is_told_whether_or_not_it_needs_a_token(ibm, connect, call):
    ibm.script({"path": "/v1/*", "drop": True})
    with pytest.raises(TransportError) as caught:
        getattr(connect(ONE_TRY), call)()
    assert caught.value.sent
    assert "IAM" not in str(caught.value)


def test_a_ca_file_that_is_gone_is_a_configuration_error(ibm, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes())
    credentials = credentials_for(ibm, verify=str(bundle))
    bundle.unlink()
    with pytest.raises(ConfigurationError, match="verify"):
        IBMQuantumClient(credentials)

    async def use():
        async with shared_client(credentials):
            pass

    with pytest.raises(ConfigurationError, match="verify"):
        asyncio.run(use())
