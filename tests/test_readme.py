# SPDX-License-Identifier: Apache-2.0
"""The README's Dags are read by Airflow, and the first of them runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def dag_in(source):
    """The README's Dags have no name in their module; here they get one."""
    named = re.sub(r"^(with DAG\(.*\)):$", r"\1 as dag:", source, flags=re.MULTILINE)
    names = {}
    exec(compile(named, "README.md", "exec"), names)
    return names["dag"]


@pytest.mark.parametrize("source", BLOCKS, ids=lambda source: re.search(r'DAG\("(\w+)"', source)[1])
def test_each_is_a_dag(source):
    assert dag_in(source).tasks


def test_the_first_runs(ibm, connection, run):
    ibm.settings.job_seconds = 0.2
    dag = dag_in(BLOCKS[0].replace("deferrable=True", "deferrable=True, poll_interval=0.2"))
    result = run(dag)
    assert result.state == "success"
    [report] = result.xcom("toss")
    counts = report["results"][0]["counts"]["side"]
    assert sum(counts.values()) == 1000
    assert set(counts) == {"0", "1"}
    assert ibm.books()["accepting"] == []
