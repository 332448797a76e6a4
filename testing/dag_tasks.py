# SPDX-License-Identifier: Apache-2.0
"""Tasks that several tests put into their Dags. Import this module after :mod:`testing.airflow_home`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import get_current_context, task

from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX, VariableSessionRegistry
from airflow_provider_ibm_sessions.operators.job import IBMQuantumRunJobsOperator, IBMQuantumSubmitJobOperator
from airflow_provider_ibm_sessions.operators.sweep import IBMQuantumSweepSessionsOperator

AT_ONCE = {"retry_delay": timedelta(0)}
"""Arguments of a task that is retried without a delay."""

both_ways = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
"""Runs a test with a task that waits in the worker, and with one that waits in the triggerer."""


def sampler_job(width: int = 2, shots: int = 10, **fields: Any) -> dict[str, Any]:
    """Return a job whose results differ from others' by the width of their register."""
    circuit = f"OPENQASM 3.0; bit[{width}] meas; qubit[{width}] q;"
    return {"program_id": "sampler", "params": {"pubs": [[circuit, None, shots]]}, **fields}


def three_jobs() -> list[dict[str, Any]]:
    """Return jobs with registers of one, two and three bits."""
    return [sampler_job(width) for width in (1, 2, 3)]


def run_jobs(**kwargs: Any) -> IBMQuantumRunJobsOperator:
    """Return a task that runs :func:`three_jobs`."""
    defaults = {"task_id": "run", "backend": "ibm_fez", "jobs": three_jobs(), "poll_interval": 0.1}
    return IBMQuantumRunJobsOperator(**{**defaults, **kwargs})


def dies(monkeypatch: Any, owner: type, name: str, *, at: int = 1, before: bool = True) -> None:
    """Let the worker vanish once, before or after the method's ``at``-th work: it gets to nothing else."""
    original, clean_up, calls = getattr(owner, name), IBMQuantumRunJobsOperator._clean_up_after_error, []
    killed = RuntimeError("as if it were killed")

    def method(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if before and len(calls) == at:
            raise killed
        result = original(*args, **kwargs)
        if len(calls) == at:
            raise killed
        return result

    def clean_up_unless_killed(self: Any, error: BaseException, state: Any) -> None:
        if error is not killed:
            clean_up(self, error, state)

    monkeypatch.setattr(owner, name, method)
    monkeypatch.setattr(IBMQuantumRunJobsOperator, "_clean_up_after_error", clean_up_unless_killed)


def submit(**kwargs: Any) -> IBMQuantumSubmitJobOperator:
    """Return a task that submits a sampler's job outside of a session."""
    job = sampler_job()
    defaults = {"task_id": "run", "program_id": job["program_id"], "program_params": job["params"]}
    defaults |= {"backend": "ibm_fez", "poll_interval": 0.1}
    return IBMQuantumSubmitJobOperator(**{**defaults, **kwargs})


@task
def own(session_ids: list[str], dag_run_scoped: bool = True, conn_id: str = "ibm_quantum_default") -> None:
    """Register the sessions as opened by this task, and leave them open."""
    context, api_key = get_current_context(), IBMQuantumHook().credentials.api_key.reveal()
    for session_id in session_ids:
        owner = SessionOwner.of(context, conn_id, dag_run_scoped=dag_run_scoped)
        VariableSessionRegistry(context).register(session_id, owner.signed(session_id, api_key), "")


def sweep(**kwargs: Any) -> IBMQuantumSweepSessionsOperator:
    """Return a task that closes orphaned sessions which are at least a minute old."""
    defaults = {"task_id": "sweep", "dry_run": False, "min_age": 60}
    return IBMQuantumSweepSessionsOperator(**{**defaults, **kwargs})


def decisions(result: Any) -> dict[str, str]:
    """Return what the sweep of a finished run tells of single sessions, by id."""
    return {each["session_id"]: each["decision"] for each in result.xcom("sweep")["sessions"]}


def decision_counts(result: Any) -> dict[str, int]:
    """Return how many sessions the sweep of a finished run has decided on in each way."""
    return dict(result.xcom("sweep")["counts"])


def registered_sessions() -> list[str]:
    """Return the ids that the session registry holds, read from Airflow's database."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        keys = session.scalars(select(Variable.key).where(Variable.key.startswith(PREFIX)))
        return sorted(key.removeprefix(PREFIX) for key in keys)
