# SPDX-License-Identifier: Apache-2.0
"""The package on this version of Airflow: its modules, its metadata and its example Dags."""

from __future__ import annotations

import os
import pkgutil
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

import airflow_provider_ibm_sessions

EXAMPLES = Path(__file__).parents[3] / "example_dags"
OPTIONAL = ("airflow.providers.openlineage", "mcp", "numpy", "qiskit_aer", "qiskit_ibm_runtime")
"""Libraries that users may have; what imports one that is absent is skipped."""


def modules():
    prefix = f"{airflow_provider_ibm_sessions.__name__}."
    for module in pkgutil.walk_packages(airflow_provider_ibm_sessions.__path__, prefix):
        if not module.name.endswith("__main__"):
            yield module.name


def test_this_is_the_version_that_was_asked_for():
    asked = os.environ.get("COMPAT_AIRFLOW")
    if asked is None:
        pytest.skip("make compat sets COMPAT_AIRFLOW")
    assert version("apache-airflow-core") == asked


def test_all_modules_can_be_imported():
    """A missing library of an extra is fine, if the error names it."""
    problems = {}
    absent = [name for name in OPTIONAL if find_spec(name) is None]
    for name in modules():
        try:
            import_module(name)
        except (ImportError, AirflowOptionalProviderFeatureException) as error:
            if not absent or not any(library.split("_")[0] in str(error).lower() for library in absent):
                problems[name] = repr(error)
    assert problems == {}


def test_airflow_accepts_the_metadata(airflow_db):
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    info = manager.providers["airflow-provider-ibm-sessions"]
    assert info.version == airflow_provider_ibm_sessions.__version__
    assert manager.hooks["ibm_quantum"].connection_testable
    assert "airflow_provider_ibm_sessions.links.IBMQuantumSessionLink" in manager.extra_links_class_names
    for name in ("ibm_quantum_jobs", "ibm_quantum_session"):
        assert callable(manager.taskflow_decorators[name])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_the_example_dags_load(airflow_db, path):
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag

    bag = DagBag(path)
    assert bag.import_errors == {}
    assert bag.dags
