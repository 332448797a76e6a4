# SPDX-License-Identifier: Apache-2.0
"""
Many circuits as OpenQASM 3 in one batch: a qubit is turned by a different angle in each, and measured.

The worker needs no Qiskit. A circuit must use gates and qubits that the QPU has. The batch closes itself with
its last job, and is billed for QPU time only. The probability of reading 1 is ``cos(angle / 2) ** 2``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator

ANGLES = [0.0, 0.8, 1.6, 2.4, 3.2]


def turned(angle: float) -> str:
    """Return a circuit that turns a qubit, in the gates of a QPU."""
    return (
        'OPENQASM 3.0; include "stdgates.inc"; bit[1] side; '
        f"sx $0; rz({angle}) $0; sx $0; side[0] = measure $0;"
    )


@task
def ones(reports: list[dict[str, Any]]) -> list[float]:
    """Return how often each qubit was 1."""
    counts = [report["results"][0]["counts"]["side"] for report in reports]
    return [each.get("1", 0) / sum(each.values()) for each in counts]


with DAG(
    dag_id="ibm_quantum_openqasm_jobs",
    description="Circuits as OpenQASM 3, run in an IBM Quantum batch of their own by one task",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(hours=8),
    params={
        "backend": Param("ibm_fez", type="string", description="Name of the QPU"),
        "mode": Param("batch", enum=["dedicated", "batch"]),
    },
    tags=["ibm-quantum", "example"],
):
    # [START howto_operator_run_jobs]
    run = IBMQuantumRunJobsOperator(
        task_id="run",
        backend="{{ params.backend }}",
        mode="{{ params.mode }}",
        max_ttl="20m",
        jobs=[
            {
                "program_id": "sampler",
                # A circuit, its parameters, and the number of shots.
                "params": {"pubs": [[turned(angle), None, 1000]]},
                "tags": [f"angle={angle}"],
            }
            for angle in ANGLES
        ],
        deferrable=True,
        poll_interval=5,
    )
    # [END howto_operator_run_jobs]
    ones(run.output)
