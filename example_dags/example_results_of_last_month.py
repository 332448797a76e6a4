# SPDX-License-Identifier: Apache-2.0
"""
Last month's jobs by their tag, whoever submitted them: on the first of each month, what they found and used.
Triggered by hand, it is this month's jobs up to now.

Jobs get the tag where they are submitted, as in ``tags=["nightly"]`` of an operator or in Qiskit's option
``environment.job_tags``. Nothing is run, and nothing is paid for.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_ibm_sessions.operators.job import IBMQuantumJobResultsOperator


@task
def summarise(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each job: its day, its QPU seconds, and how often all its bits agreed."""
    lines = []
    for report in reports:
        line = {
            "job": report["id"],
            "day": report["created"][:10],
            "qpu_seconds": report["usage"]["qpu_charge_time_seconds"],
        }
        if report.get("format") == "sampler":
            # Over all registers and all circuits of the job.
            counts = [item for pub in report["results"] for item in pub["joint_counts"].items()]
            shots = sum(count for _, count in counts)
            line["agreeing"] = sum(count for bits, count in counts if len(set(bits)) == 1) / shots
        else:  # an estimator's, or of a job that has failed
            line["error"] = report.get("error")
        lines.append(line)
    return lines


with DAG(
    dag_id="ibm_quantum_results_of_last_month",
    description="What last month's IBM Quantum jobs with a tag found and used",
    doc_md=__doc__,
    schedule="@monthly",
    catchup=False,
    params={"tag": Param("nightly", type="string", description="The tag of the jobs")},
    tags=["ibm-quantum", "example"],
):
    # [START howto_operator_job_results]
    results = IBMQuantumJobResultsOperator(
        task_id="fetch",
        tags=["{{ params.tag }}"],
        created_after="{{ (dag_run.run_after - macros.timedelta(days=1)).replace(day=1) }}",
        created_before="{{ dag_run.run_after }}",
        on_job_failure="collect",
        wait_for_completion=False,
        # A month's results may be too large for XCom: results_path="s3://my_aws_conn@bucket/results"
    )
    # [END howto_operator_job_results]
    summarise(results.output)
