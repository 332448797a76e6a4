# SPDX-License-Identifier: Apache-2.0
"""
Two Dags that events start: a QPU is back online, a job of the nightly calibration is final.

No run of these Dags waits: the triggerer polls once a minute for all watchers of a connection.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_ibm_sessions.triggers.event import (
    IBMQuantumBackendEventTrigger,
    IBMQuantumJobEventTrigger,
)

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
    def report_qpu(triggering_asset_events=None):
        """Return the figures of the QPU, as the event holds them."""
        return [event.extra["payload"] for event in triggering_asset_events[qpu_ready]]

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
    def report_jobs(triggering_asset_events=None):
        """Return id and state of the jobs: one event each, one or several of them for a run."""
        payloads = [event.extra["payload"] for event in triggering_asset_events[job_final]]
        return [{"id": job["id"], "state": job["state"]} for job in payloads]

    # [END howto_trigger_events_task]

    report_jobs()
