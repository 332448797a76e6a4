# SPDX-License-Identifier: Apache-2.0
"""The fault matrix, and whether it would tell. In processes of their own: it changes time itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("module", ["tests.faults.sight", "tests.faults"])
def test_every_cell_is_clean(module, pytestconfig):
    ended = subprocess.run(
        [sys.executable, "-m", module], cwd=pytestconfig.rootpath, capture_output=True, text=True
    )
    print(ended.stdout[-20_000:])
    assert ended.returncode == 0, ended.stderr[-2_000:] or ended.stdout[-20_000:]
