# SPDX-License-Identifier: Apache-2.0
"""What the two pages let a reader paste works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def block(page, language, containing):
    blocks = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    [found] = [each for each in blocks if containing in each]
    return found


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_session_of_curl(ibm, rest):
    script = block("rest.md", "sh", "curl").replace("http://127.0.0.1:8080", str(rest.base_url).rstrip("/"))
    done = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, timeout=60)
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


def test_the_session_of_the_sdks_client(ibm, mcp):
    script = block("mcp.md", "python", "asyncio.run").replace("http://127.0.0.1:9090", mcp)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("open\nTrue Get a session: Session not found")
    assert [session.state for session in ibm.sessions.values()] == ["closed"]
