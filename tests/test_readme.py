# SPDX-License-Identifier: Apache-2.0
"""
The README and the pages in ``docs/`` are true: their Dags load and run, their tables and links fit the code.

A Python block after ``<!-- excerpt -->`` is only compiled. REST and MCP pages are tested in ``server/``.
"""

from __future__ import annotations

import inspect
import re
import runpy
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_ibm_sessions.client.error_hints import ERROR_HINTS
from airflow_provider_ibm_sessions.decorators.jobs import IBMQuantumJobsDecoratedOperator
from airflow_provider_ibm_sessions.decorators.session import IBMQuantumSessionDecoratedOperator
from airflow_provider_ibm_sessions.hooks.connection_form import CONN_FIELDS
from airflow_provider_ibm_sessions.operators.backend import IBMQuantumSelectBackendOperator
from airflow_provider_ibm_sessions.operators.job import (
    IBMQuantumJobResultsOperator,
    IBMQuantumRunJobsOperator,
    IBMQuantumSubmitJobOperator,
)
from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from airflow_provider_ibm_sessions.operators.sweep import IBMQuantumSweepSessionsOperator
from airflow_provider_ibm_sessions.sensors.backend import IBMQuantumBackendSensor
from airflow_provider_ibm_sessions.sensors.job import IBMQuantumJobSensor
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "airflow_provider_ibm_sessions"
ELSEWHERE = {"rest.md", "mcp.md", "cli.md"}
"""Pages whose blocks are tested beside the code that they describe."""
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in ELSEWHERE),
]
CLASSES = {
    "operators.md": [
        IBMQuantumRunJobsOperator,
        IBMQuantumSubmitJobOperator,
        IBMQuantumJobResultsOperator,
        IBMQuantumCreateSessionOperator,
        IBMQuantumUpdateSessionOperator,
        IBMQuantumCloseSessionOperator,
        IBMQuantumSelectBackendOperator,
        IBMQuantumSweepSessionsOperator,
    ],
    "sensors.md": [IBMQuantumSessionSensor, IBMQuantumJobSensor, IBMQuantumBackendSensor],
    "decorators.md": [IBMQuantumJobsDecoratedOperator, IBMQuantumSessionDecoratedOperator],
}
SECTIONS = {
    IBMQuantumJobsDecoratedOperator: "@task.ibm_quantum_jobs",
    IBMQuantumSessionDecoratedOperator: "@task.ibm_quantum_session",
}
"""Headings that are not the name of the class."""
TEMPLATE_FIELDS = {"max_wait_time": "max_wait"}
"""Arguments whose name Airflow's own class uses for something else, by their template field."""


@dataclass(frozen=True)
class Block:
    """A Python block on a page."""

    page: Path
    source: str
    is_excerpt: bool

    @property
    def name(self):
        """Return the page with the Dag's id, or with the first line."""
        dag = re.search(r'DAG\("(\w+)"', self.source)
        return f"{self.page.name}: {dag[1] if dag else self.source.splitlines()[0]}"


def python_blocks():
    for page in PAGES:
        for found in re.finditer(
            r"(<!-- excerpt -->\n+)?^```python\n(.*?)^```", page.read_text(), re.M | re.S
        ):
            yield Block(page, found[2], is_excerpt=bool(found[1]))


BLOCKS = {block.name: block for block in python_blocks()}


def dag_in(block, **replacements):
    """Return the Dag of a block, which gets a name here that it does not have on the page."""
    source = re.sub(r"^(with DAG\(.*\)):$", r"\1 as dag:", block.source, flags=re.MULTILINE)
    for old, new in replacements.items():
        source = source.replace(old, new)
    names = {}
    exec(compile(source, block.page, "exec"), names)
    return names["dag"]


def section(text, heading):
    """Return what stands under a heading, up to the next of its level."""
    [found] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found


def table(text, first):
    """Yield the rows of the table whose first column has this name, as lists of cells."""
    lines = iter(text.splitlines())
    next(line for line in lines if line.startswith(f"| {first} |"))
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def arguments_of(operator):
    """Return the parameters that this package's classes add to those of Airflow."""
    found = {}
    for base in reversed(operator.__mro__):
        if base.__module__.startswith("airflow_provider_ibm_sessions.") and "__init__" in vars(base):
            found |= inspect.signature(base.__init__).parameters
    internal = {"self", "python_callable", "op_kwargs"}
    internal |= {"retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay"}  # Airflow's own
    return {
        name: parameter
        for name, parameter in found.items()
        if name not in internal and parameter.kind is parameter.KEYWORD_ONLY
    }


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_each_block_is_a_dag_or_a_marked_excerpt(block):
    if block.is_excerpt:
        compile(block.source, block.name, "exec")
    else:
        assert dag_in(block).tasks


def test_the_first_dag_runs(qpu, run):
    dag = dag_in(BLOCKS["README.md: bell_pair"], **{"deferrable=True": "deferrable=True, poll_interval=0.2"})
    result = run(dag)
    assert result.state == "success"
    [report] = result.xcom("entangle")
    counts = report["results"][0]["counts"]["meas"]
    assert sum(counts.values()) == 1000
    assert set(counts) == {"00", "11"}
    assert result.xcom("entangle", "session")["state"] == "closed"


def test_the_tasks_that_share_a_session_run(ibm, connection, run):
    dag = dag_in(
        BLOCKS["operators.md: shared_session"], **{"deferrable=True": "deferrable=True, poke_interval=0.2"}
    )
    assert run(dag).state == "success"
    assert [session.state for session in ibm.sessions.values()] == ["closed"]


def test_the_task_that_uses_the_hook_runs(ibm, connection, run):
    result = run(dag_in(BLOCKS["operators.md: own_task"]))
    assert result.state == "success"
    assert result.xcom("toss") in ibm.jobs
    assert [session.state for session in ibm.sessions.values()] == ["closed"]


@pytest.mark.parametrize(
    ("page", "operator"),
    [(page, operator) for page, operators in CLASSES.items() for operator in operators],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_arguments_are_those_of_the_class(page, operator):
    text = section((ROOT / "docs" / page).read_text(), SECTIONS.get(operator, operator.__name__))
    rows = list(table(text, "argument"))
    arguments = arguments_of(operator)
    names = [re.match(r"`(\w+)`", row[0])[1] for row in rows]
    assert sorted(names) == sorted(arguments)
    templated = {name for name, row in zip(names, rows, strict=True) if row[0].endswith("*t*")}
    fields = {TEMPLATE_FIELDS.get(field, field) for field in operator.template_fields}
    assert templated == fields & set(arguments)
    for name, row in zip(names, rows, strict=True):
        default, written = arguments[name].default, row[-1]
        assert (written == "required") == (default is inspect.Parameter.empty), name
        is_fixed = isinstance(default, bool | str) and name != "deferrable"  # which Airflow's option decides
        if is_fixed:
            assert written == f"`{default}`", name
        elif isinstance(default, int | float) and written.isdigit():
            assert float(written) == default, name


def test_every_field_of_the_connection_is_described():
    rows = table((ROOT / "docs" / "connection.md").read_text(), "field")
    assert {row[0].strip("`") for row in rows} == {"password", "host, port", *CONN_FIELDS}


def test_every_error_that_has_a_hint_is_explained():
    rows = table((ROOT / "docs" / "troubleshooting.md").read_text(), "code")
    assert {code for row in rows for code in row[0].split(", ")} == set(ERROR_HINTS)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_named_file_exists(name):
    named = re.findall(r"`([a-z_]+/[\w/]*(?:\.py)?)`", (ROOT / name).read_text())
    assert len(named) > 10
    assert [path for path in named if not ((PACKAGE / path).exists() or (ROOT / path).exists())] == []


def anchors_of(page):
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)]*)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


def test_the_picture_is_what_its_script_draws():
    script = runpy.run_path(str(ROOT / "scripts" / "session_life.py"))
    assert (ROOT / "docs" / "session-life.svg").read_text() == script["draw"]()


def test_the_emulators_page_has_the_readmes_five_commands():
    [commands] = re.findall(r"^```sh\n(pip install .*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)[
        :1
    ]
    assert len(commands.splitlines()) == 5
    assert commands in (ROOT / "docs" / "emulator.md").read_text()


def test_every_example_is_in_the_gallery():
    gallery = (ROOT / "docs" / "examples.md").read_text()
    files = sorted(path.name for path in (ROOT / "example_dags").glob("*.py"))
    assert [name for name in files if f"](../example_dags/{name})" not in gallery] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
