# SPDX-License-Identifier: Apache-2.0
"""One fake IBM for each test, and one way to call the blocking and the async client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

from airflow_provider_ibm_sessions.client import (
    AsyncIBMQuantumClient,
    Credentials,
    IBMQuantumClient,
    RetryPolicy,
)
from testing.fake_ibm import FakeIBM

settings.register_profile("client", database=None, deadline=None, derandomize=True, max_examples=50)
settings.load_profile("client")

QUICK = RetryPolicy(max_elapsed=3.0, initial_backoff=0.01, max_backoff=0.02, list_lag=0.1)
"""Tries for long enough to see a passing fault out."""
BRIEF = RetryPolicy(max_elapsed=0.08, initial_backoff=0.01, max_backoff=0.02, list_lag=0.1)
"""Gives up soon on a lasting one."""
ONE_TRY = RetryPolicy(max_elapsed=0.0, list_lag=0.1)

TOKEN = "/identity/token"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:11111111-2222::"


class Blocking:
    """The blocking client; what is a generator comes as a list."""

    def __init__(self, credentials, retry):
        self.client = IBMQuantumClient(credentials, retry)

    def __getattr__(self, name):
        def call(*args, **kwargs):
            answer = getattr(self.client, name)(*args, **kwargs)
            return list(answer) if isinstance(answer, Iterator) else answer

        return call

    def end(self):
        self.client.close()


class Looped:
    """The async client in a loop of its own, called as if it were blocking."""

    def __init__(self, credentials, retry):
        self.runner = asyncio.Runner()
        self.client = AsyncIBMQuantumClient(credentials, retry)

    def __getattr__(self, name):
        def call(*args, **kwargs):
            return self.runner.run(self._call(name, args, kwargs))

        return call

    async def _call(self, name, args, kwargs):
        answer = getattr(self.client, name)(*args, **kwargs)
        return [item async for item in answer] if hasattr(answer, "__aiter__") else await answer

    def end(self):
        self.runner.run(self.client.close())
        self.runner.close()


KINDS = {"sync": Blocking, "async": Looped}


def credentials_for(ibm, **changes):
    # Not to look at certificates saves reading all of them for each client.
    facts = {
        "api_key": ibm.api_key,
        "crn": ibm.crn,
        "url": ibm.url,
        "iam_url": ibm.iam_url,
        "timeout": 5,
        "verify": False,
    }
    return Credentials(**(facts | changes))


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch):
    """No proxy of the machine that runs the tests, and no key of whoever runs them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def fake_ibm():
    """A fake whose own clock stands still. No test may show it the raw key outside of IAM."""
    with FakeIBM(frozen=True) as fake:
        yield fake
        assert fake.leaks == []
        assert fake.complaints == []


ibm = pytest.fixture(fake_ibm)
"""A fake of each test's own. A module whose tests leave nothing behind may share one."""


@pytest.fixture(params=KINDS)
def flavour(request):
    return request.param


@pytest.fixture
def connect(ibm, flavour):
    """Make a client of the fake, sync or async; changes of the credentials are named."""
    opened = []

    def make(retry=QUICK, **changes):
        opened.append(KINDS[flavour](credentials_for(ibm, **changes), retry))
        return opened[-1]

    yield make
    for each in opened:
        each.end()


@pytest.fixture
def api(connect):
    return connect()


@pytest.fixture
def later(monkeypatch):
    """Let time pass for this process: ``later(60)``. The fake's frozen clock does not notice."""
    passed = 0.0
    clocks = {name: getattr(time, name) for name in ("monotonic", "time")}
    for name, clock in clocks.items():
        monkeypatch.setattr(time, name, lambda clock=clock: clock() + passed)

    def wait(seconds):
        nonlocal passed
        passed += seconds

    return wait


def assert_hidden(ibm, text):
    """Neither the key nor any token stands in the text."""
    assert ibm.api_key not in text
    assert not [token for token in ibm.tokens if token.value in text]


def exchanges(ibm):
    return len(ibm.requests("POST", TOKEN))


_BOUND = []


def free_port():
    """A port of the loopback on which nobody listens: bound, so that no other process gets it meanwhile."""
    _BOUND.append(socket.socket())
    _BOUND[-1].bind(("127.0.0.1", 0))
    return _BOUND[-1].getsockname()[1]


def http(body=b"", status="200 OK", kind="application/json", **headers):
    """The bytes of an HTTP reply."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += ["Connection: close"] + [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Canned(socketserver.ThreadingTCPServer):
    """Answers every request with the same bytes: for replies that no HTTP library would send."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self):
        self.reply = http(b"{}")
        self.requests = []
        super().__init__(("127.0.0.1", 0), _Canned)
        threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/api"


class _Canned(socketserver.StreamRequestHandler):
    def handle(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        lengths = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
        request = head + self.rfile.read(int(lengths[0].split(b":")[1]) if lengths else 0)
        self.server.requests.append(request)
        reply = self.server.reply
        with contextlib.suppress(OSError):
            self.wfile.write(reply(request) if callable(reply) else reply)


def canned_server():
    with Canned() as server:
        yield server
        server.shutdown()


canned = pytest.fixture(canned_server)
