# SPDX-License-Identifier: Apache-2.0
"""The page on scaling: its YAML can be read and agrees with the package, its pool limits what is deferred."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

import airflow_provider_ibm_sessions
from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"


def block(heading, language):
    """Return the only block of a language under a heading."""
    [section] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    [found] = re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S)
    return found


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(block("Docker Compose", "yaml"))


@pytest.fixture(scope="module")
def values():
    return yaml.safe_load(block("Helm", "yaml"))


def options(compose):
    """Return the options of Airflow that the services set, as pairs of section and name."""
    for service in compose["services"].values():
        for name in service.get("environment", {}):
            if found := re.fullmatch(r"AIRFLOW__(\w+?)__(\w+)", name):
                yield found[1].lower(), found[2].lower()


def test_compose_runs_two_of_what_must_not_be_missing(compose):
    services = compose["services"]
    for name in ("scheduler", "triggerer", "worker"):
        assert services[name]["deploy"]["replicas"] == 2
    parts = ("api-server", "dag-processor", "scheduler", "triggerer", "worker")
    assert len({services[name]["image"] for name in parts}) == 1
    assert all(service["restart"] == "always" for service in services.values())


def test_compose_keeps_no_secret(compose):
    environment = compose["services"]["worker"]["environment"]
    for name, value in environment.items():
        if re.search("KEY|SECRET|CONN_|SQL_ALCHEMY_CONN|RESULT_BACKEND", name):
            assert re.search(r"\$\{\w+:\?\}", value), name


def test_every_option_in_compose_is_one_of_airflow_or_celery(compose):
    from airflow.configuration import conf

    celery = {"broker_url", "result_backend"}  # of a provider that is not installed here
    unknown = {
        (section, name)
        for section, name in options(compose)
        if not conf.has_option(section, name) and not (section == "celery" and name in celery)
    }
    # Airflow has no default for these two, and none is possible.
    assert unknown <= {("api_auth", "jwt_secret"), ("core", "execution_api_server_url")}


def test_every_option_in_the_values_is_one_of_airflow(values):
    from airflow.configuration import conf

    for section, names in values["config"].items():
        for name in names:
            assert conf.has_option(section, name), name


def test_compose_and_values_agree(compose, values):
    environment = compose["services"]["worker"]["environment"]
    for section, names in values["config"].items():
        for name, value in names.items():
            assert environment[f"AIRFLOW__{section}__{name}".upper()] == value
    for part in ("scheduler", "triggerer", "workers", "apiServer"):
        assert values[part]["replicas"] == 2


def test_both_name_this_version(compose, values):
    version = airflow_provider_ibm_sessions.__version__
    assert compose["services"]["worker"]["image"].endswith(f":{version}")
    assert str(values["images"]["airflow"]["tag"]) == version


def test_a_trigger_of_another_version_fails_as_airflow_expects():
    """Airflow catches a TypeError alone: any other would end the triggerer."""
    trigger = IBMQuantumSessionTrigger(
        "a-session", ["closed"], end_time=2e9, poll_interval=10, ibm_quantum_conn_id="ibm_quantum_default"
    )
    _, arguments = trigger.serialize()
    with pytest.raises(TypeError, match="of_another_version"):
        IBMQuantumSessionTrigger(**arguments, of_another_version=1)


def test_the_command_makes_a_pool_that_counts_deferred_tasks(airflow_db):
    from airflow.cli import cli_parser
    from airflow.models.pool import Pool

    program, *arguments = shlex.split(block("At most N remote jobs at a time", "sh"))
    assert program == "airflow"
    parsed = cli_parser.get_parser().parse_args(arguments)
    parsed.func(parsed)
    try:
        pool = Pool.get_pool("ibm_quantum")
        assert (pool.slots, pool.include_deferred) == (5, True)
        assert 'pool="ibm_quantum"' in PAGE.read_text()
    finally:
        Pool.delete_pool("ibm_quantum")
