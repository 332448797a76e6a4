# SPDX-License-Identifier: Apache-2.0
"""
Two Dags that events start: a QPU is back online, a job of the nightly calibration is final.

No run of these Dags waits: the triggerer polls once a minute for all watchers of a connection. One event
lists all jobs that one poll has found final. Events that arrive close together start one run. So each task
goes through all events of its run.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_ibm_sessions.triggers.event import (
    IBMQuantumBackendEventTrigger,
    IBMQuantumJobEventTrigger,
)

log = logging.getLogger("airflow.task")

# [START howto_trigger_events]
qpu_ready = Asset(
    "ibm_fez_ready",
    watchers=[
        AssetWatcher(
            name="ibm_fez_ready",
            trigger=IBMQuantumBackendEventTrigger(backend="ibm_fez", max_queue_length=5),
        )
    ],
)
job_final = Asset(
    "nightly_job_final",
    watchers=[AssetWatcher(name="nightly_job_final", trigger=IBMQuantumJobEventTrigger(tags=["nightly"]))],
)
# [END howto_trigger_events]

with DAG(
    dag_id="ibm_quantum_on_qpu_ready",
    description="Start when a QPU is online and its queue short",
    doc_md=__doc__,
    schedule=[qpu_ready],
    catchup=False,
    tags=["ibm-quantum", "example"],
):

    @task
    def report_qpu(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Log and return the figures of the QPU, as each event holds them."""
        found = [event.extra["payload"] for event in triggering_asset_events[qpu_ready]]
        for qpu in found:
            log.info("%s is %s, jobs in its queue: %s", qpu["name"], qpu["state"], qpu["queue_length"])
        return found

    report_qpu()

with DAG(
    dag_id="ibm_quantum_on_job_final",
    description="Start when a job with a tag is final",
    doc_md=__doc__,
    schedule=[job_final],
    catchup=False,
    tags=["ibm-quantum", "example"],
):
    # [START howto_trigger_events_task]
    @task
    def report_jobs(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Log and return id and state of each job, of all events of this run."""
        events = triggering_asset_events[job_final]
        jobs = [job for event in events for job in event.extra["payload"]["jobs"]]
        for job in jobs:
            log.info("Job %s on %s is %s", job["id"], job["backend"], job["state"])
        return [{"id": job["id"], "state": job["state"]} for job in jobs]

    # [END howto_trigger_events_task]

    report_jobs()
