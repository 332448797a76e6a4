# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from airflow_provider_ibm_sessions.emulator.emulator import Emulator, connection
from airflow_provider_ibm_sessions.emulator.service.settings import Settings


@pytest.fixture(scope="module")
def simulated_qpu(airflow_db):
    """An emulator of IBM that simulates circuits, for all tests of a file: loading Qiskit takes seconds."""
    with Emulator(port=0, settings=Settings(), speed=100, seed=7) as running:
        yield running


@pytest.fixture
def qpu(simulated_qpu, monkeypatch):
    """The same, with the connection ``ibm_quantum_default`` to it."""
    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", json.dumps(connection(simulated_qpu.port)))
    return simulated_qpu
