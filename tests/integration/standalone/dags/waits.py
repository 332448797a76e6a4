# SPDX-License-Identifier: Apache-2.0
"""Opens a session and waits for its end in the triggerer; the test brings the end about."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_ibm_sessions.operators.session import (
    IBMQuantumCloseSessionOperator,
    IBMQuantumCreateSessionOperator,
)
from airflow_provider_ibm_sessions.sensors.session import IBMQuantumSessionSensor

with DAG("waits", schedule=None):
    create = IBMQuantumCreateSessionOperator(task_id="create", backend="ibm_fez", max_ttl="1h")
    wait = IBMQuantumSessionSensor(
        task_id="wait", session_id=create.output, deferrable=True, poke_interval=1, timeout=120
    )
    close = IBMQuantumCloseSessionOperator(task_id="close", session_id=create.output)
    create >> wait >> close.as_teardown(setups=create)
