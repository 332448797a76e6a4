# SPDX-License-Identifier: Apache-2.0
"""
The four session operations, with setup and teardown.

A session is opened, looked at, drained and, whatever happens in between, closed. Run it with ``backend`` set
to a QPU of your instance; no job is submitted, so nothing is billed.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param

from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
    IBMQuantumUpdateSessionOperator,
)
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor

with DAG(
    dag_id="ibm_quantum_session_lifecycle",
    description="Open, look at, drain and close an IBM Quantum session",
    doc_md=__doc__,
    schedule=None,
    dagrun_timeout=timedelta(hours=1),
    params={
        "backend": Param("ibm_fez", type="string", description="Name of the QPU"),
        "mode": Param("dedicated", enum=["dedicated", "batch"]),
    },
    tags=["ibm-quantum", "example"],
):
    # [START howto_operator_create_session]
    create = IBMQuantumCreateSessionOperator(
        task_id="create_session",
        backend="{{ params.backend }}",
        mode="{{ params.mode }}",
        max_ttl="30m",  # limits the bill, even if Airflow dies
    )
    # [END howto_operator_create_session]
    is_there = IBMQuantumSessionSensor(
        task_id="session_is_there",
        session_id=create.output,
        target_state=["open", "active"],
        timeout=300,
    )
    # [START howto_operator_update_session]
    drain = IBMQuantumUpdateSessionOperator(
        task_id="drain_session",
        session_id=create.output,
        accepting_jobs=False,
    )
    # [END howto_operator_update_session]
    # [START howto_sensor_session]
    has_closed = IBMQuantumSessionSensor(
        task_id="session_has_closed",
        session_id=create.output,
        target_state="closed",
        deferrable=True,  # waits in the triggerer: no worker slot
        timeout=timedelta(minutes=45),
    )
    # [END howto_sensor_session]
    # [START howto_operator_close_session]
    close = IBMQuantumCloseSessionOperator(task_id="close_session", session_id=create.output, retries=3)
    # [END howto_operator_close_session]

    # A teardown that fails does not fail the run by itself; what comes after it does.
    (
        create
        >> is_there
        >> drain
        >> has_closed
        >> close.as_teardown(setups=create)
        >> EmptyOperator(task_id="closed")
    )
