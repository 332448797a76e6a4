# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow, a fake IBM with much to see, and a browser."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from testing.airflow_home import AIRFLOW_HOME
from testing.airflow_standalone import running_airflow
from testing.fake_ibm import FakeIBM
from testing.secret_scan import remember_secrets
from testing.ui_browser import Browser, running_chromium
from testing.ui_scene import Scene

SHOTS = Path(os.environ.get("UI_SHOTS", ".ui"))
"""Where screenshots are written."""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ui)


@pytest.fixture(scope="package")
def service():
    # An idle session stays active for long, and jobs wait for each other: the tests are to find them so.
    with FakeIBM(interactive_ttl=3600, lanes=1) as fake:
        yield fake
        fake.clear_faults()
        remember_secrets(fake)
        assert fake.leaks == []


@pytest.fixture(scope="package")
def scene(service):
    """An Airflow with runs, sessions, records and results."""
    names = [each.name for each in entry_points(group="airflow.plugins")]
    assert "ibm_quantum" in names, "install the package again: Airflow finds the plugin by its entry point"
    users = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer"}
    with running_airflow(AIRFLOW_HOME / "ui", Path(__file__).parent / "dags", users) as airflow:
        scene = Scene(airflow, service)
        scene.build()
        yield scene


@pytest.fixture(scope="package")
def chromium():
    with running_chromium() as chromium:
        yield chromium


@pytest.fixture
def browser(chromium, scene):
    """Pages of this Airflow: ``browser.open("/plugin/ibm-quantum")``. None of them may log an error."""
    browser = Browser(chromium, scene.airflow, SHOTS)
    yield browser
    browser.close()
    assert browser.errors == []
