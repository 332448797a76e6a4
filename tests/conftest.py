# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a strict fake IBM on a real socket, and a real Airflow with its metadata database."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.airflow_home import AIRFLOW_HOME  # before everything that imports Airflow
from testing.airflow_runs import Run, serialize
from testing.connections import connection_to
from testing.fake_ibm import FakeIBM
from testing.localqpu import running_localqpu
from testing.retry_policies import quick_retries
from testing.secret_scan import SECRETS, remember_secrets, traces
from testing.triggerer import triggerer_comms

_ended = itertools.count(1)


NEED_AIRFLOW = {"airflow_db", "localqpu", "emulator"}
"""Fixtures that start an Airflow database or localqpu, which takes seconds."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--log-lines",
        type=int,
        default=50,
        help="how many lines a failed test shows of each of its logs, from the end (default: 50; 0: all)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if most := item.config.getoption("--log-lines"):
        report.sections = [(name, _last_lines(text, most)) for name, text in report.sections]
    return report


def _last_lines(text: str, most: int) -> str:
    lines = text.splitlines()
    left_out = len(lines) - most
    if left_out <= 0:
        return text
    return "\n".join([f"[{left_out} lines left out; --log-lines=0 shows all]", *lines[-most:]])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Most tests of the command start it as a process, which imports Airflow each time.
        if NEED_AIRFLOW & set(getattr(item, "fixturenames", ())) or item.path.parent.name == "cli":
            item.add_marker(pytest.mark.airflow)


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


@pytest.fixture(scope="module")
def simulated_qpu(airflow_db):
    """This package's emulator, for all tests of a file: it loads Qiskit, which takes seconds."""
    from airflow_provider_ibm_sessions.client import Credentials, IBMQuantumClient
    from airflow_provider_ibm_sessions.emulator.emulator import IDENTITY, Emulator
    from airflow_provider_ibm_sessions.emulator.service.settings import Settings

    with Emulator(port=0, settings=Settings(), speed=10, seed=7) as running:
        credentials = Credentials(IDENTITY.api_key, IDENTITY.crn, url=running.url, iam_url=running.iam_url)
        with IBMQuantumClient(credentials) as client:
            # The first job waits until Qiskit is loaded, which counts as its running time.
            circuit = "OPENQASM 3.0; bit[1] c; c[0] = measure $0;"
            job = client.submit_job("sampler", backend="ibm_fez", params={"pubs": [[circuit, None, 1]]})
            while not client.get_job(job.id).is_final:
                time.sleep(0.1)
        yield running


@pytest.fixture
def qpu(simulated_qpu, monkeypatch):
    """The same, with the connection ``ibm_quantum_default`` to it."""
    from airflow_provider_ibm_sessions.emulator.emulator import connection

    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", json.dumps(connection(simulated_qpu.port)))
    return simulated_qpu


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
def root_handlers():
    """Take back the handler that a command adds: it writes to this test's output, which is closed then."""
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers


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
def short_jobs(ibm):
    """Jobs run for a twentieth of a second."""
    ibm.settings.job_seconds = 0.05


@pytest.fixture
def quick(monkeypatch):
    """The client's own retries, with short delays between them."""
    quick_retries(monkeypatch)


@pytest.fixture(scope="session")
def warm(airflow_db):
    """Everything that forked workers need is imported once, in the parent."""
    from testing.worker_process import warm_up

    with pytest.MonkeyPatch.context() as patch:
        warm_up("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", patch)


@pytest.fixture
def supervisor(airflow_db):
    """A triggerer's connection to Airflow."""
    with triggerer_comms() as supervisor:
        yield supervisor


@pytest.fixture
def when():
    """Do something as soon as a condition holds, in a thread: ``when(condition, action)``."""
    over = threading.Event()
    threads = []

    def watch(condition, action):
        while not over.wait(0.02):
            if condition():
                action()
                return

    def start(condition, action):
        threads.append(threading.Thread(target=watch, args=(condition, action), daemon=True))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def terminate(when, monkeypatch):
    """End a task by Airflow's signal, once a condition holds: ``terminate(condition)``."""
    # On a busy machine, Airflow's answer whether another try is active may take longer.
    monkeypatch.setattr("airflow_provider_ibm_sessions.lifecycle.kill._QUESTION_TIMEOUT", 30.0)
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda condition: when(condition, lambda: os.kill(os.getpid(), signal.SIGTERM))
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def time_out(when, monkeypatch):
    """End a task by its ``execution_timeout``, which must be long, once a condition holds."""
    from airflow.sdk.execution_time.timeout import TimeoutPosix

    left, leave = threading.Event(), TimeoutPosix.__exit__

    def leave_and_note(self, *error):
        left.set()
        return leave(self, *error)

    def strike():
        assert callable(signal.getsignal(signal.SIGALRM)), "the task has no execution_timeout"
        left.clear()
        os.kill(os.getpid(), signal.SIGALRM)
        # An event loop swallows what is raised in one of its callbacks.
        while not left.wait(10):
            os.kill(os.getpid(), signal.SIGALRM)

    monkeypatch.setattr(TimeoutPosix, "__exit__", leave_and_note)
    return lambda condition: when(condition, strike)


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


@pytest.fixture
def without_task_state(monkeypatch):
    """Run tasks as Airflow 3.0 to 3.2 do: they have no task state store."""
    from airflow.sdk import Variable
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    original = RuntimeTaskInstance.get_template_context

    def context(self):
        return {name: value for name, value in original(self).items() if name != "task_state_store"}

    monkeypatch.setattr(RuntimeTaskInstance, "get_template_context", context)
    monkeypatch.delattr(Variable, "keys")


@pytest.fixture(autouse=True)
def nothing_secret_in_the_output(request):
    """Search what each test that runs Airflow prints and logs for keys and tokens."""
    if request.path.relative_to(Path(__file__).parent).parts[0] not in ("client", "server", "cli"):
        request.getfixturevalue("output")


@pytest.fixture(autouse=True)
def no_session_of_another_test(request):
    """Forget the open sessions and the stored connections of a test: the next one has another IBM."""
    yield
    if "airflow_db" in request.fixturenames:
        from airflow.models import Connection, Variable
        from airflow.utils.session import create_session
        from sqlalchemy import delete

        from airflow_provider_ibm_sessions.hooks.airflow_id import VARIABLE as AIRFLOW_ID

        # The id of this Airflow stays: whoever creates it waits for a second.
        of_the_test = Variable.key.startswith("ibm_quantum_") & (Variable.key != AIRFLOW_ID)
        with create_session() as session:
            session.execute(delete(Variable).where(of_the_test))
            session.execute(delete(Connection).where(Connection.conn_type == "ibm_quantum"))


@pytest.fixture(autouse=True)
def no_mask_of_another_test():
    """Forget the keys and tokens that Airflow masks: a pattern of a thousand of them is compiled for each."""
    yield
    for name in [name for name in sys.modules if name.endswith("_shared.secrets_masker")]:
        sys.modules[name].reset_secrets_masker()


@pytest.fixture(autouse=True)
def no_minimum_deferral(monkeypatch):
    """Let triggers fire at once: ``dag.test()`` has no scheduler that an event could be too early for."""
    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.base.MIN_DEFERRAL", 0.0)
