# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest

from airflow_provider_ibm_sessions.client import Credentials, IBMQuantumClient
from airflow_provider_ibm_sessions.emulator.emulator import IDENTITY, Emulator
from airflow_provider_ibm_sessions.emulator.service.settings import Settings

SPEED = 100
"""An emulated minute takes 0.6 s."""
BELL = """
OPENQASM 3.0;
include "stdgates.inc";
bit[2] pair;
rz(pi/2) $0; sx $0; rz(pi/2) $0;
rz(pi/2) $1; sx $1; rz(pi/2) $1;
cz $0, $1;
rz(pi/2) $1; sx $1; rz(pi/2) $1;
pair[0] = measure $0;
pair[1] = measure $1;
"""
"""A Bell pair in the instructions of a QPU."""


def finished(client, job_id):
    """Poll until the job has ended."""
    while not (job := client.get_job(job_id)).is_final:
        time.sleep(0.05)
    return job


@pytest.fixture(scope="session")
def emulator():
    """An emulator that all tests of a process share: loading Qiskit takes seconds."""
    with Emulator(port=0, settings=Settings(), speed=SPEED, seed=7) as running:
        yield running


@pytest.fixture
def settings(emulator):
    """The emulator's settings, put back after the test."""
    before = dict(vars(emulator.settings))
    yield emulator.settings
    vars(emulator.settings).update(before)


@pytest.fixture
def credentials(emulator, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return Credentials(api_key=IDENTITY.api_key, crn=IDENTITY.crn, url=emulator.url, iam_url=emulator.iam_url)


@pytest.fixture
def client(credentials):
    with IBMQuantumClient(credentials) as opened:
        yield opened
