# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a strict fake IBM on a real socket, and a real Airflow with its metadata database."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path

# Airflow reads its home when it is first imported, so this comes before everything.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="false",
    AIRFLOW__CORE__UNIT_TEST_MODE="false",
    AIRFLOW__CORE__FERNET_KEY=base64.urlsafe_b64encode(os.urandom(32)).decode(),
    AIRFLOW__CORE__DAGS_FOLDER=str(AIRFLOW_HOME / "dags"),
    AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="300",
)
(AIRFLOW_HOME / "dags").mkdir()
for name in (
    "IBM_CLOUD_API_KEY",
    "IBM_QUANTUM_CRN",
    "IBM_QUANTUM_API_VERSION",
    "AIRFLOW_CONN_IBM_QUANTUM_DEFAULT",
):
    os.environ.pop(name, None)

import gc  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

from testing.airflow_runs import Run, serialize  # noqa: E402
from testing.fake_ibm import FakeIBM  # noqa: E402
from testing.localqpu import running_localqpu  # noqa: E402
from testing.secret_scan import traces  # noqa: E402

_ended = itertools.count(1)

SECRETS: set[str] = set()
"""Every API key and token that the tests of this process have used."""


def pytest_configure() -> None:
    # A shell lets what it starts in the background ignore SIGINT, and so would all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart() -> None:
    # Python swallows what a signal handler raises inside of a finalizer, such as the exception that Airflow's
    # execution_timeout is made of: so garbage is collected between the tests.
    gc.disable()


def pytest_runtest_logfinish() -> None:
    if next(_ended) % 20 == 0:
        gc.collect()
        gc.freeze()  # what is left is not looked at again: it would take a second each time


def pytest_sessionfinish() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


def remember_secrets(ibm: FakeIBM) -> None:
    """Note what must not be found anywhere."""
    SECRETS.add(ibm.api_key)
    SECRETS.update(token.value for token in ibm.tokens)


def connection_to(ibm: FakeIBM, **extra: object) -> str:
    """An Airflow connection to the fake, as JSON."""
    return json.dumps(
        {
            "conn_type": "ibm_quantum",
            "host": ibm.url,
            "password": ibm.api_key,
            "extra": {"crn": ibm.crn, "iam_url": ibm.iam_url, **extra},
        }
    )


@pytest.fixture(scope="session", autouse=True)
def nothing_secret_at_rest() -> Iterator[None]:
    """After its last test, all that this process's Airflow has written is searched for keys and tokens."""
    yield
    assert traces(SECRETS, AIRFLOW_HOME) == []


@pytest.fixture
def ibm() -> Iterator[FakeIBM]:
    """A strict fake IBM; at the end it must have seen no key outside of IAM and no header missing."""
    with FakeIBM() as fake:
        SECRETS.add(fake.api_key)
        yield fake
        remember_secrets(fake)
        assert fake.leaks == []
        assert fake.complaints == []


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """A real metadata database, migrated by Airflow's own command."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)


@pytest.fixture
def connection(ibm, monkeypatch):
    """The connection ``ibm_quantum_default``, to the fake."""
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm))
    return "ibm_quantum_default"


@pytest.fixture(scope="module")
def emulator(airflow_db):
    """An emulator that runs real circuits, for all tests of a file."""
    with running_localqpu() as localqpu:
        yield localqpu


@pytest.fixture
def localqpu(emulator, monkeypatch):
    """The same, with the connection ``ibm_quantum_default`` to it."""
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", emulator.connection)
    return emulator


@pytest.fixture
def output(capfd, caplog):
    """All that the test has logged and printed so far; at its end, neither key nor token is in it."""
    seen: list[str] = []

    def read() -> str:
        captured = capfd.readouterr()
        seen.append(captured.out + captured.err)
        return "".join(seen) + caplog.text

    with caplog.at_level("DEBUG"):
        yield read
    everything = read()
    assert [secret for secret in SECRETS if secret in everything] == []


@pytest.fixture
def run(airflow_db, request):
    """Run a Dag through Airflow: ``run(dag)``; tasks, XComs and triggers are real."""

    def run_dag(dag: Any, **conf: Any) -> Run:
        serialize(dag)
        return Run(dag.test(run_conf=conf or None))

    return run_dag


@pytest.fixture
def dag(request):
    """An empty Dag of the test's own."""
    from airflow.sdk import DAG

    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    # A retry would wait for its delay; tests of retries ask for them.
    with DAG(dag_id=name[:200], schedule=None, default_args={"retries": 0}) as dag:
        yield dag


@pytest.fixture
def quick(monkeypatch):
    """The client's own attempts, with short pauses between them."""
    from airflow_provider_ibm_sessions.client.retries import RetryPolicy

    policy = RetryPolicy(max_elapsed=10, initial_backoff=0.05, max_backoff=0.2, list_lag=0.3)
    monkeypatch.setattr("airflow_provider_ibm_sessions.client.client.RetryPolicy", lambda: policy)


@pytest.fixture
def terminate():
    """Send this process Airflow's signal to end the task, as soon as something is so: ``terminate(when)``."""
    handler = signal.getsignal(signal.SIGTERM)
    over = threading.Event()

    def watch(when):
        while not over.wait(0.02):
            if when():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threads = []

    def start(when):
        threads.append(threading.Thread(target=watch, args=(when,), daemon=True))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def airflow_fails(monkeypatch):
    """
    Let Airflow's API answer 503 to who asks for a connection, or a variable: ``airflow_fails("Variable")``.

    Returns what was asked for.
    """
    import httpx
    from airflow.sdk.api import client

    request = httpx.Request("GET", "http://airflow")
    response = httpx.Response(503, request=request, json={"detail": "the database is down"})

    def arrange(kind, *, times=None):
        operations, asked = getattr(client, f"{kind}Operations"), []
        get = operations.get

        def fail(self, key):
            asked.append(key)
            if times is not None and len(asked) > times:
                return get(self, key)
            raise client.ServerResponseError("Server error", request=request, response=response)

        monkeypatch.setattr(operations, "get", fail)
        return asked

    return arrange


@pytest.fixture(autouse=True)
def nothing_secret_in_the_output(request):
    """Search what each test that runs Airflow prints and logs for keys and tokens."""
    if request.path.relative_to(Path(__file__).parent).parts[0] not in ("client", "server", "cli"):
        request.getfixturevalue("output")


@pytest.fixture(autouse=True)
def no_minimum_deferral(monkeypatch):
    """Let triggers fire at once: ``dag.test()`` has no scheduler that an event could be too early for."""
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.base.MIN_DEFERRAL", 0.0)
