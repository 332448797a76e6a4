# SPDX-License-Identifier: Apache-2.0
"""Every block of code on the pages about the command, the services and troubleshooting works."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from airflow_provider_ibm_sessions.cli.main import main, parser
from airflow_provider_ibm_sessions.client import IBMQuantumClient
from airflow_provider_ibm_sessions.server.mcp import mcp_app
from airflow_provider_ibm_sessions.server.problem_details import ProblemDetails
from airflow_provider_ibm_sessions.server.rest import rest_app
from testing.fake_ibm import Fault
from tests.client.conftest import credentials_for
from tests.conftest import connection_to
from tests.server.conftest import SECURED, TOKEN, factory_for, serving

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["rest.md", "mcp.md", "cli.md"]
SHELL = """
pip() { :; }
export PYTHONSAFEPATH=1
ibm-quantum-sessions() {
  if [ "$1" = serve ]; then
    echo "$@" >> served
  else
    %s -m airflow_provider_ibm_sessions.cli.main "$@" --conn-id quantum
  fi
}
"""
pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")


def blocks(page, language):
    text = (DOCS / page).read_text()
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)


def run_shell(page, ibm, cwd, **replacements):
    """Run all shell blocks of a page, one after the other; returns the output, and what was to be served."""
    script = SHELL % sys.executable + "\n".join(blocks(page, "sh"))
    for old, new in replacements.items():
        script = script.replace(old, new)
    environment = {**os.environ, "AIRFLOW_CONN_QUANTUM": connection_to(ibm)}
    command = ["bash", "-eu", "-c", script]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    served = cwd / "served"
    return done.stdout, served.read_text().splitlines() if served.exists() else []


def test_the_languages_are_known():
    languages = [
        each for page in PAGES for each in re.findall(r"^ *```(\w+)$", (DOCS / page).read_text(), re.M)
    ]
    assert set(languages) == {"sh", "python", "json"}


def test_rest(ibm, tmp_path):
    with serving(rest_app(factory_for(credentials_for(ibm)), SECURED)) as url:
        replacements = {"http://127.0.0.1:8080": url, "<token>": TOKEN}
        out, served = run_shell("rest.md", ibm, tmp_path, **replacements)
    for arguments in served:
        assert parser().parse_args(arguments.split())
    assert len(served) == 2
    assert '"state": "open"' in out
    assert '"code": "not_found"' in out
    assert out.endswith('{"live":true,"ready":true}')
    assert [session.state for session in ibm.sessions.values()] == ["closed"]
    calls = [entry.method for entry in ibm.requests(path="/v1/sessions*")]
    assert calls == ["POST", "GET", "PATCH", "DELETE", "GET"]
    [problem] = blocks("rest.md", "json")
    assert ProblemDetails.model_validate_json(problem).status == 404


def test_mcp_over_http(ibm, tmp_path):
    ibm.script(Fault("POST", "/v1/sessions", delay=6))
    [script] = blocks("mcp.md", "python")
    with serving(mcp_app(factory_for(credentials_for(ibm, timeout=30)), SECURED)) as url:
        script = script.replace("http://127.0.0.1:9090", url).replace("<token>", TOKEN)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("open\nTrue Get a session: Session not found")
    assert [session.state for session in ibm.sessions.values()] == ["closed"]
    assert run_shell("mcp.md", ibm, tmp_path)[1] == ["serve mcp"]


def test_mcp_over_standard_input_and_output(ibm):
    [configuration] = blocks("mcp.md", "json")
    server = json.loads(configuration)["mcpServers"]["ibm-quantum"]
    assert shutil.which(server["command"], path=Path(sys.executable).parent)

    async def list_tools():
        parameters = StdioServerParameters(
            command=str(Path(sys.executable).parent / server["command"]),
            args=[*server["args"], "--conn-id", "quantum"],
            env={"AIRFLOW_CONN_QUANTUM": connection_to(ibm)},
        )
        async with Client(parameters) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    tools = re.findall(r"^\| `(ibm-quantum-[a-z-]+)`", (DOCS / "mcp.md").read_text(), re.MULTILINE)
    assert asyncio.run(list_tools()) == tools


def test_cli(ibm, airflow_db, tmp_path):
    [jobs] = job_blocks()
    out, _ = run_shell("cli.md", ibm, tmp_path, **{jobs: ""})
    assert "state            closed" in out
    assert [session.state for session in ibm.sessions.values()] == ["closed"]


def test_everything_that_is_open_is_stopped(ibm, airflow_db, tmp_path):
    own = [ibm.add_session(mode=mode).id for mode in ("dedicated", "batch")]
    another = ibm.add_session(user="somebody").id
    run_shell("troubleshooting.md", ibm, tmp_path)
    assert [ibm.sessions[each].state for each in [*own, another]] == ["closed", "closed", "open"]


def job_blocks():
    return [block for block in blocks("cli.md", "sh") if "JOB=" in block]


def test_cli_on_jobs(ibm, monkeypatch, capsys, root_handlers):
    """In this process: each command that is one of its own takes seconds to start."""
    monkeypatch.setenv("AIRFLOW_CONN_QUANTUM", connection_to(ibm))
    ibm.settings.job_seconds = 0.0
    with IBMQuantumClient(credentials_for(ibm)) as client:
        params = {"pubs": [["OPENQASM 3.0; bit[1] c; c[0] = measure $0;", None, 4]]}
        job = client.submit_job("sampler", backend="ibm_fez", params=params).id
    [lines] = job_blocks()
    for line in lines.splitlines()[1:]:
        program, *arguments = shlex.split(line.replace("$JOB", job))
        assert program == "ibm-quantum-sessions"
        assert main([*arguments, "--conn-id", "quantum"]) == 0
    assert "Pub 0: 4 shots, register c" in capsys.readouterr().out


def test_the_exit_codes_are_those_of_the_help():
    documented = re.findall(
        r"^\| (\d+) \| (.*?)(?:;[^|]*candidates)? \|$", (DOCS / "cli.md").read_text(), re.MULTILINE
    )
    shown = re.findall(r"^  (\d+) +(.*)$", parser().epilog.partition("Exit codes:")[2], re.MULTILINE)
    assert documented
    assert [(code, text.replace("`", "")) for code, text in documented] == shown
