# SPDX-License-Identifier: Apache-2.0
"""
The README and the pages in ``docs/`` are true: their code works, their tables and links fit the package.

A block after ``<!-- excerpt -->`` is read, not run: Python is compiled, each command of a shell is parsed.
The pages about the command and the services are tested in ``server/``, how-to pages in ``test_howto.py``.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.util import find_spec

import pytest
from airflow.cli.cli_parser import get_parser as airflow_parser
from packaging.requirements import Requirement

from airflow_provider_ibm_sessions.cli.main import parser
from airflow_provider_ibm_sessions.client.error_hints import ERROR_HINTS
from airflow_provider_ibm_sessions.emulator.service.settings import Settings
from airflow_provider_ibm_sessions.get_provider_info import get_provider_info
from airflow_provider_ibm_sessions.hooks.connection_form import CONN_FIELDS
from testing.fake_ibm import Fault
from testing.pages import DOCS, PAGES, ROOT, Block, anchors, blocks, table

PACKAGE = ROOT / "airflow_provider_ibm_sessions"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUN_ELSEWHERE = {"rest.md", "mcp.md", "cli.md", "troubleshooting.md"}
"""Pages whose blocks are run beside the code that they describe."""
_HERE = [block for page in PAGES if page.name not in RUN_ELSEWHERE for block in blocks(page)]
BLOCKS = {block.name: block for block in _HERE if block.language == "python"}
OTHERS = [block for block in _HERE if block.language != "python"]


def dag_in(block, **replacements):
    """Return the Dag of a block, which gets a name here that it does not have on the page."""
    source = re.sub(r"^(with DAG\(.*\)):$", r"\1 as dag:", block.source, flags=re.MULTILINE)
    for old, new in replacements.items():
        source = source.replace(old, new)
    names = {}
    exec(compile(source, block.page, "exec"), names)
    return names["dag"]


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
        BLOCKS["create-session.md: shared_session"],
        **{"deferrable=True": "deferrable=True, poke_interval=0.2"},
    )
    assert run(dag).state == "success"
    assert [session.state for session in ibm.sessions.values()] == ["closed"]


def test_the_task_that_uses_the_hook_lets_its_queued_job_run(ibm, connection, run):
    ibm.settings.queue_seconds = 3600
    result = run(dag_in(BLOCKS["hook.md: own_task"]))
    assert result.state == "success"
    [session] = ibm.sessions.values()
    assert (session.state, session.accepting_jobs) == ("open", False)
    ibm.clock.advance(3700)
    assert ibm.jobs[result.xcom("toss")].status == "Completed"
    assert [session.state for session in ibm.sessions.values()] == ["closed"]


def test_the_task_that_uses_the_hook_closes_its_session_after_an_error(ibm, connection, run):
    ibm.script(Fault("POST", "/v1/jobs", status=403))
    assert run(dag_in(BLOCKS["hook.md: own_task"])).state == "failed"
    assert [session.state_reason for session in ibm.sessions.values()] == ["session_cancelled"]


def commands_in(block: Block) -> Iterator[list[str]]:
    """Yield the commands of a shell block, as lists of words."""
    written = ""
    for line in block.source.splitlines():
        written += line
        if written.endswith("\\"):
            written = written[:-1]
            continue
        try:
            words = shlex.split(written, comments=True)
        except ValueError:  # a string that goes on in the next line
            written += "\n"
            continue
        written = ""
        if words:
            yield words


def check_command(words):
    """Fail if a command does not exist, or does not take these words."""
    if words[0].startswith(("$(", "eval")):
        words = shlex.split(words[-1].removeprefix("$(").removesuffix(")"))
    match [word for word in words if word != "&"]:
        case ["ibm-quantum-sessions", *arguments] | ["airflow", "ibm-quantum", *arguments]:
            options = vars(parser().parse_args(arguments))
            assert set(options.get("settings", {})) <= set(Settings.__dataclass_fields__)
        case ["airflow", *arguments]:
            assert airflow_parser().parse_args(arguments)
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["pip", "install", what]:
            if "$(" not in what:
                assert Requirement(what).name == PROJECT["name"]
                assert Requirement(what).extras <= set(PROJECT["optional-dependencies"])
        case ["python", "-m", module, *_]:
            assert find_spec(module)
        case ["export", assignment]:
            name, _, value = assignment.partition("=")
            assert name == "AIRFLOW_CONN_IBM_QUANTUM_DEFAULT"
            connection = json.loads(value)
            assert connection["conn_type"] == "ibm_quantum"
            assert set(connection["extra"]) <= set(CONN_FIELDS)
        case [first, *_]:
            assert first in {"pip", "mkdir", "uv"} or first.startswith("AIRFLOW__"), first


@pytest.mark.parametrize("block", OTHERS, ids=lambda block: block.name)
def test_each_other_block_is_an_excerpt_whose_words_are_right(block):
    if block.language == "sh":
        assert block.is_excerpt
        for words in commands_in(block):
            check_command(words)
    elif block.language == "ini":
        options = ConfigParser()
        options.read_string(block.source)
        for name, value in options["ibm_quantum"].items():
            described = get_provider_info()["config"]["ibm_quantum"]["options"][name]
            assert described["type"] != "boolean" or value in {"True", "False"}
    else:
        # tests/test_scaling_page.py parses those of YAML.
        assert block.language == "text" or (block.language == "yaml" and block.is_excerpt)


def test_every_field_of_the_connection_is_described():
    rows = table((DOCS / "connection.md").read_text(), "field")
    assert {row[0].strip("`") for row in rows} == {"password", "host, port", *CONN_FIELDS}


def test_every_error_that_has_a_hint_is_explained():
    rows = table((DOCS / "troubleshooting.md").read_text(), "code")
    assert {code for row in rows for code in row[0].split(", ")} == set(ERROR_HINTS)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_named_file_exists(name):
    named = re.findall(r"`([a-z_]+/[\w/]*(?:\.py)?)`", (ROOT / name).read_text())
    assert len(named) > 10
    assert [path for path in named if not ((PACKAGE / path).exists() or (ROOT / path).exists())] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)]*)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_picture_is_what_its_script_draws():
    script = runpy.run_path(str(ROOT / "scripts" / "session_life.py"))
    assert (DOCS / "session-life.svg").read_text() == script["draw"]()


def test_the_emulators_page_has_the_readmes_five_commands():
    [commands] = re.findall(r"^```sh\n(pip install .*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)[
        :1
    ]
    assert len(commands.splitlines()) == 5
    assert commands in (DOCS / "emulator.md").read_text()


def test_every_example_is_in_the_gallery():
    gallery = (DOCS / "examples.md").read_text()
    files = sorted(path.name for path in (ROOT / "example_dags").glob("*.py"))
    assert [name for name in files if f"](../example_dags/{name})" not in gallery] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
