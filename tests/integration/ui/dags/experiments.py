# SPDX-License-Identifier: Apache-2.0
"""Dags whose tasks never run: the tests write what they have opened and returned."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

for dag_id in ("vqe_h2", "bell_pairs", "hostile"):
    with DAG(dag_id=dag_id, schedule=None, is_paused_upon_creation=True) as dag:
        EmptyOperator(task_id="run_jobs") >> EmptyOperator(task_id="analyse")
    globals()[dag_id] = dag
