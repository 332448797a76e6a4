# SPDX-License-Identifier: Apache-2.0
"""The supervisor of the cluster tests: it restarts what exits, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import sys
import threading

import psutil
import pytest

from testing.airflow_standalone import until
from tests.integration.cluster.supervisor import Component, Supervisor

SECONDS = 60
WITH_A_CHILD = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
)


@pytest.fixture
def supervisor():
    supervisor = Supervisor()
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    yield supervisor
    supervisor.stop()
    thread.join()


@pytest.fixture
def component(supervisor, tmp_path):
    """A component whose first process has a child, which outlives it."""
    command = [sys.executable, "-c", WITH_A_CHILD]
    component = Component("sleeper", command, dict(os.environ), tmp_path / "log")
    supervisor.add(component)
    until(lambda: len(component.processes()) == 2, SECONDS)
    return component


def test_what_exits_is_started_again_without_what_it_had_left(supervisor, component):
    before = component.processes()
    os.kill(component.process.pid, signal.SIGKILL)
    until(lambda: supervisor.restarts.get("sleeper") == 1, SECONDS)
    until(lambda: len(component.processes()) == 2, SECONDS)
    assert not any(process.is_running() for process in before)


def test_what_is_held_stays_away(supervisor, component):
    with supervisor.held("sleeper"):
        assert component.processes() == []
        supervisor._restart(component)  # as its thread does again and again
        assert component.processes() == []
    until(lambda: len(component.processes()) == 2, SECONDS)


def test_what_is_paused_goes_on(supervisor, component):
    with supervisor.paused("sleeper"):
        until(lambda: {each.status() for each in component.processes()} == {psutil.STATUS_STOPPED}, SECONDS)
    until(lambda: psutil.STATUS_STOPPED not in {each.status() for each in component.processes()}, SECONDS)


def test_nothing_is_left_at_the_end(supervisor, component):
    everything = component.processes()
    assert supervisor.memory() > 0
    supervisor.stop()
    assert not any(process.is_running() for process in everything)
