# SPDX-License-Identifier: Apache-2.0
"""
IBM Quantum over HTTP: sessions, workloads, backends.

Knows nothing of Airflow and can be used alone::

    from airflow_provider_ibm_sessions.client import Credentials, IBMQuantumClient

    with IBMQuantumClient(Credentials.from_env()) as client:
        session = client.create_session(backend="ibm_fez", mode="batch", max_ttl=600)
        client.close_session(session.id)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.client import AsyncIBMQuantumClient as AsyncIBMQuantumClient
    from airflow_provider_ibm_sessions.client.client import IBMQuantumClient as IBMQuantumClient
    from airflow_provider_ibm_sessions.client.credentials import Credentials as Credentials
    from airflow_provider_ibm_sessions.client.enums import JobState as JobState
    from airflow_provider_ibm_sessions.client.enums import SessionMode as SessionMode
    from airflow_provider_ibm_sessions.client.enums import SessionState as SessionState
    from airflow_provider_ibm_sessions.client.errors import IBMQuantumError as IBMQuantumError
    from airflow_provider_ibm_sessions.client.models.instance import Workload as Workload
    from airflow_provider_ibm_sessions.client.models.jobs import Job as Job
    from airflow_provider_ibm_sessions.client.models.sessions import Session as Session
    from airflow_provider_ibm_sessions.client.results import decode_results as decode_results
    from airflow_provider_ibm_sessions.client.retries import RetryPolicy as RetryPolicy
    from airflow_provider_ibm_sessions.client.submission import find_job as find_job
    from airflow_provider_ibm_sessions.client.submission import resume_job as resume_job
    from airflow_provider_ibm_sessions.client.submission import submit_once as submit_once

# Loaded when first used: Dag files and Airflow's own processes import parts of this package for a constant
# or an error class, and need neither the models nor the HTTP client for that.
_LAZY_IMPORTS = {
    "AsyncIBMQuantumClient": "client",
    "Credentials": "credentials",
    "IBMQuantumClient": "client",
    "IBMQuantumError": "errors",
    "Job": "models.jobs",
    "JobState": "enums",
    "RetryPolicy": "retries",
    "Session": "models.sessions",
    "SessionMode": "enums",
    "SessionState": "enums",
    "Workload": "models.instance",
    "resume_job": "submission",
    "decode_results": "results",
    "find_job": "submission",
    "submit_once": "submission",
}
__all__ = list(_LAZY_IMPORTS)


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY_IMPORTS[name]}"), name)
