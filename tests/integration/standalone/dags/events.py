# SPDX-License-Identifier: Apache-2.0
"""The example Dags that events start, polling each second."""

from __future__ import annotations

import sys
from pathlib import Path

from airflow.sdk import DAG  # noqa: F401 - Airflow looks for Dags only in files that name both words

sys.path.append(str(Path(__file__).resolve().parents[4] / "example_dags"))
import example_events

for asset in (example_events.qpu_ready, example_events.job_final):
    for watcher in asset.watchers:
        watcher.trigger.poll_interval = 1.0
