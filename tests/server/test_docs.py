# SPDX-License-Identifier: Apache-2.0
"""What the two pages let a reader paste works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from airflow_provider_ibm_sessions.server.mcp import mcp_app
from testing.fake_ibm import Fault
from tests.client.conftest import credentials_for
from tests.server.conftest import BODY, SECURED, TOKEN, serving, source_for

DOCS = Path(__file__).parents[2] / "docs"


def block(page, language, containing):
    blocks = re.findall(
        rf"^ *```{language}\n(.*?)^ *```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE
    )
    [found] = [each for each in blocks if containing in each]
    return found


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_session_of_curl(ibm, rest):
    script = block("rest.md", "sh", "curl").replace("http://127.0.0.1:8080", str(rest.base_url).rstrip("/"))
    done = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('{"live":true,"ready":true}')
    assert '"state": "open"' in done.stdout
    assert '"code": "not_found"' in done.stdout
    assert [session.state for session in ibm.sessions.values()] == ["closed"]
    assert [entry.method for entry in ibm.requests(path="/v1/sessions*")] == [
        "POST",
        "GET",
        "PATCH",
        "DELETE",
        "GET",
    ]


def test_the_client_that_sends_a_token_waits_for_ibm(ibm):
    ibm.script(Fault("POST", "/v1/sessions", delay=6))
    call = f"""
import asyncio
async def main():
    async with client:
        told = await client.call_tool("ibm-quantum-create-session", {{"body": {BODY!r}}})
        print(told.is_error, told.content[0].text)
asyncio.run(main())"""
    with serving(mcp_app(source_for(credentials_for(ibm, timeout=30)), SECURED)) as url:
        script = textwrap.dedent(block("mcp.md", "python", "httpx2"))
        script = script.replace("https://quantum.example", url).replace("<token>", TOKEN) + call
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("False"), done.stdout + done.stderr


def test_the_session_of_the_sdks_client(ibm, mcp):
    script = block("mcp.md", "python", "asyncio.run").replace("http://127.0.0.1:9090", mcp)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("open\nTrue Get a session: Session not found")
    assert [session.state for session in ibm.sessions.values()] == ["closed"]
