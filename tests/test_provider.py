# SPDX-License-Identifier: Apache-2.0
"""What Airflow makes of the package: the connection type, the form, the button."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from packaging.requirements import Requirement

from airflow_provider_ibm_sessions.get_provider_info import get_provider_info
from airflow_provider_ibm_sessions.hooks.connection_form import CONN_FIELDS, connection_form_widgets


@pytest.fixture(scope="module")
def manager(airflow_db):
    from airflow.providers_manager import ProvidersManager

    return ProvidersManager()


def test_dependencies_have_what_is_used_of_them():
    """Lower bounds: determine_kwargs came with common-compat 1.14.1; h11 0.16 refuses ambiguous bodies."""
    least = {"apache-airflow-providers-common-compat": "1.14.1", "h11": "0.16"}
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    bounds = {each.name: each.specifier for each in map(Requirement, project["dependencies"])}
    for name, version in least.items():
        older = ".".join([*version.split(".")[:-1], str(int(version.split(".")[-1]) - 1)])
        assert version in bounds[name]
        assert older not in bounds[name]


def test_metadata_follows_airflows_schemas():
    info = get_provider_info()
    runtime = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(info, runtime)
    source = json.loads(files("airflow").joinpath("provider.yaml.schema.json").read_text())
    jsonschema.validate(info["connection-types"], source["properties"]["connection-types"])


def test_the_logo_is_a_file_of_the_repository():
    [integration] = get_provider_info()["integrations"]
    root = Path(__file__).parents[1]
    source = tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    assert integration["logo"].startswith(f"{source}/raw/main/")
    assert (root / integration["logo"].removeprefix(f"{source}/raw/main/")).exists()


def test_all_that_the_metadata_names_exists():
    from importlib import import_module

    info = get_provider_info()
    paths = [info["connection-types"][0]["hook-class-name"], *info["extra-links"], *info["cli"]]
    paths += [plugin["plugin-class"] for plugin in info["plugins"]]
    for path in paths:
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(module), name)
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                import_module(module)


def test_airflow_discovers_the_connection_type(manager):
    hook = manager.hooks["ibm_quantum"]
    assert hook.hook_name == "IBM Quantum"
    assert hook.connection_testable


def test_airflow_shows_the_form(manager):
    shown = {name for name in manager.connection_form_widgets if name.startswith("extra__ibm_quantum__")}
    assert shown == {f"extra__ibm_quantum__{name}" for name in CONN_FIELDS}
    behaviour = manager.field_behaviours["ibm_quantum"]
    assert behaviour["relabeling"]["password"] == "IBM Cloud API key"


def test_older_airflows_get_the_same_fields():
    widgets = connection_form_widgets()
    assert set(widgets) == set(CONN_FIELDS)
    # Airflow 3.1 drops the connection type for any other class.
    allowed = {"IntegerField", "PasswordField", "StringField", "BooleanField"}
    assert {widget.field_class.__name__ for widget in widgets.values()} <= allowed


def test_airflow_registers_the_buttons(manager):
    buttons = {"IBMQuantumJobLink", "IBMQuantumPageLink", "IBMQuantumSessionLink"}
    names = {f"airflow_provider_ibm_sessions.links.{name}" for name in buttons}
    assert names <= set(manager.extra_links_class_names)


def test_airflow_discovers_the_plugin_by_its_entry_point():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    path = project["entry-points"]["airflow.plugins"]["ibm_quantum"].replace(":", ".")
    assert {"name": "ibm_quantum", "plugin-class": path} in get_provider_info()["plugins"]


def test_the_tab_of_a_task_names_operators_as_airflow_does():
    """A name that no operator has would hide the tab, from Airflow 3.4 on."""
    from airflow_provider_ibm_sessions.decorators import jobs, session
    from airflow_provider_ibm_sessions.operators import job
    from airflow_provider_ibm_sessions.operators import session as sessions
    from airflow_provider_ibm_sessions.plugins.ibm_quantum import OPERATOR_NAMES, IBMQuantumPlugin

    decorated = (jobs.IBMQuantumJobsDecoratedOperator, session.IBMQuantumSessionDecoratedOperator)
    plain = (
        sessions.IBMQuantumCreateSessionOperator,
        job.IBMQuantumJobResultsOperator,
        job.IBMQuantumRunJobsOperator,
        job.IBMQuantumSubmitJobOperator,
    )
    names = [each.custom_operator_name for each in decorated] + [each.__name__ for each in plain]
    assert sorted(names) == OPERATOR_NAMES
    scopes = [app.get("applies_to") for app in IBMQuantumPlugin.react_apps]
    assert scopes == [None, None, None, {"operator_name": OPERATOR_NAMES}]


def test_the_scripts_of_the_page_are_small():
    scripts = files("airflow_provider_ibm_sessions.plugins._page").joinpath("static").iterdir()
    assert sum(len(path.read_bytes()) for path in scripts if path.name.endswith(".js")) <= 60_000


def test_the_pages_switches_are_options_of_airflow():
    options = get_provider_info()["config"]["ibm_quantum"]["options"]
    assert {"ui_live", "ui_tabs"} <= set(options)


def test_the_plugin_costs_one_module():
    """Each Airflow process loads it, and only the API server needs more."""
    code = (
        "import sys\n"
        "from airflow.providers.common.compat.sdk import AirflowPlugin, conf\n"
        "import airflow_provider_ibm_sessions.plugins\n"
        "before = set(sys.modules)\n"
        "from airflow_provider_ibm_sessions.plugins.ibm_quantum import IBMQuantumPlugin\n"
        "assert len(IBMQuantumPlugin().react_apps) == 4\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['airflow_provider_ibm_sessions.plugins.ibm_quantum']"


def test_a_dag_file_pays_for_no_http_client():
    """What a Dag file imports brings neither the models, nor the client, nor OpenLineage."""
    code = (
        "import sys\n"
        "from airflow_provider_ibm_sessions.operators import session\n"
        "from airflow_provider_ibm_sessions.sensors import session\n"
        "ours = 'airflow_provider_ibm_sessions.'\n"
        "print([m for m in sys.modules if m.startswith(ours) or 'openlineage' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1].replace("'", '"')))
    # Airflow reads the metadata of each provider that is installed.
    metadata = {"airflow.providers.openlineage", "airflow.providers.openlineage.get_provider_info"}
    assert not [module for module in loaded - metadata if "lineage" in module]
    assert not loaded & {
        f"airflow_provider_ibm_sessions.{name}"
        for name in ("client.client", "client.models", "hooks.ibm_quantum", "triggers.session")
    }


def test_the_client_needs_no_airflow():
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] == 'airflow': raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from airflow_provider_ibm_sessions.client import IBMQuantumClient, AsyncIBMQuantumClient\n"
        "from airflow_provider_ibm_sessions.client import polling, shared\n"
        "print('airflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
