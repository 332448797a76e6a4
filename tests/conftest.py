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
from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402

from tests.fake_ibm import FakeIBM  # noqa: E402
from tests.traces import traces  # noqa: E402

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
