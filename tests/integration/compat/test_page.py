# SPDX-License-Identifier: Apache-2.0
"""The page in the UI of an older Airflow, asked over HTTP and opened once in a browser."""

from __future__ import annotations

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from testing.airflow_home import AIRFLOW_HOME
from testing.airflow_standalone import running_airflow
from testing.ui_browser import Browser, find_chromium, running_chromium

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(
        find_spec("airflow.models.task_state_store") is not None, reason="tests/integration/ui has all of it"
    ),
]

DAGS = Path(__file__).parents[1] / "ui" / "dags"
PAGE = "ibm-quantum/api"


def test_a_whole_airflow_serves_it_and_lists_past_sessions(tmp_path):
    with running_airflow(AIRFLOW_HOME / "page", DAGS, {}) as airflow:
        airflow.wait_for_dags({"vqe_h2"})
        airflow._json("POST", "/dags/vqe_h2/dagRuns", json={"dag_run_id": "weekly", "logical_date": None})
        place = {"dag_id": "vqe_h2", "run_id": "weekly", "task_id": "run_jobs"}
        record = {"session_id": "ended", "owner": {**place, "map_index": -1}, "billed": 12.5}
        entries = "/dags/vqe_h2/dagRuns/weekly/taskInstances/run_jobs/xcomEntries"
        airflow._json("POST", entries, json={"key": "ibm_quantum_record_ended", "value": record})

        [plugin] = [each for each in airflow.get("/plugins")["plugins"] if each["name"] == "ibm_quantum"]
        places = [app["destination"] for app in plugin["react_apps"]]
        assert places == ["nav", "dashboard", "dag_run", "task_instance"]
        script = airflow.http.get(f"{airflow.url}{plugin['react_apps'][0]['bundle_url']}")
        assert script.headers["content-type"].startswith("text/javascript")

        def ask(path):
            return airflow.http.get(f"{airflow.url}/{PAGE}/{path}").raise_for_status().json()

        assert ask("sessions")["sessions"] == []
        assert [each["billed"] for each in ask("records")["records"]] == [12.5]
        run = ask("dags/vqe_h2/runs/weekly")
        assert [each["session_id"] for each in run["records"]] == ["ended"]
        assert len(run["trend"]) == 1
        assert httpx.get(f"{airflow.url}/{PAGE}/records").status_code == 401
        if find_chromium():
            _open_in_a_browser(airflow, tmp_path)


def _open_in_a_browser(airflow, folder):
    with running_chromium() as chromium:
        browser = Browser(chromium, airflow, Path(os.environ.get("UI_SHOTS", folder)))
        page = browser.open()
        page.get_by_role("tab", name="Past").click()
        page.get_by_text("ended").first.wait_for()
        browser.shoot(page, f"airflow-{version('apache-airflow-core')}")
        page = browser.open("/dags/vqe_h2/runs/weekly/plugin/ibm-quantum-dag_run")
        page.get_by_text("By task and try").wait_for()
        browser.close()
    assert browser.errors == []
