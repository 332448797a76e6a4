# SPDX-License-Identifier: Apache-2.0
"""
The lineage of a task for OpenLineage: its QPU, what was billed, and where results are.

Needs ``apache-airflow-providers-openlineage``, and is imported by the methods that this provider calls.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

from airflow.providers.common.compat.openlineage.facet import Dataset, ExternalQueryRunFacet, RunFacet
from airflow.providers.common.compat.sdk import ObjectStoragePath
from airflow.providers.openlineage.extractors import OperatorLineage
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from attrs import define

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_ibm_sessions.lifecycle.task_mixin import IBMQuantumTaskMixin

log = logging.getLogger(__name__)

FACET: Final = "ibmQuantum"
SCHEMA_URL: Final = (
    "https://raw.githubusercontent.com/airflow-provider-ibm-sessions/airflow-provider-ibm-sessions/main/docs/"
    "IBMQuantumRunFacet.json#/$defs/IBMQuantumRunFacet"
)
MAX_JOB_IDS: Final = 100
"""Ids that an event carries; ``jobCount`` counts the others as well."""


@define
class IBMQuantumRunFacet(RunFacet):
    """The session and the jobs of a task, and what they have used; described by :data:`SCHEMA_URL`."""

    connectionId: str  # noqa: N815
    backend: str | None = None
    mode: str | None = None
    sessionId: str | None = None  # noqa: N815
    jobIds: list[str] | None = None  # noqa: N815
    jobCount: int | None = None  # noqa: N815
    qpuSeconds: float | None = None  # noqa: N815
    billedSeconds: float | None = None  # noqa: N815
    cost: float | None = None
    currency: str | None = None
    settled: bool | None = None

    _additional_skip_redact: ClassVar[list[str]] = ["connectionId", "sessionId", "jobIds"]

    @staticmethod
    def _get_schema() -> str:
        return SCHEMA_URL


def lineage_of(task: IBMQuantumTaskMixin) -> OperatorLineage:
    """
    Return what is known of a task by now: before it runs, or at its end.

    The QPU is an input. Outputs are the folders that the task has written to. What the Dag's author has
    declared as inlets and outlets is kept: Airflow would else leave it out.
    """
    known = task.workload()
    usage = task.usage or {}
    job_ids = list(map(str, known["job_ids"]))
    backend, session_id = known["backend"], known["session_id"]
    facet = IBMQuantumRunFacet(
        connectionId=task.ibm_quantum_conn_id,
        backend=backend,
        mode=known.get("mode"),
        sessionId=session_id,
        jobIds=job_ids[:MAX_JOB_IDS] or None,
        jobCount=len(job_ids) or None,
        qpuSeconds=usage.get("qpu_seconds"),
        billedSeconds=usage.get("billed_seconds"),
        cost=usage.get("cost"),
        currency=usage.get("currency"),
        settled=usage.get("settled"),
    )
    run_facets = {FACET: facet}
    # One id for an event: that of the only job, else that of all jobs' session.
    if external := job_ids[0] if len(job_ids) == 1 else session_id:
        run_facets["externalQuery"] = ExternalQueryRunFacet(externalQueryId=external, source="ibm_quantum")
    qpus = [Dataset(namespace=namespace, name=backend)] if backend and (namespace := _namespace(task)) else []
    folders = [_dataset_of(folder) for folder in known["folders"]]
    return OperatorLineage(
        inputs=[*qpus, *_declared(getattr(task, "inlets", ()))],
        outputs=[*folders, *_declared(getattr(task, "outlets", ()))],
        run_facets=run_facets,
    )


def _namespace(task: IBMQuantumTaskMixin) -> str | None:
    """
    Return the namespace of the QPU's name: the host of IBM's API, which tells an emulator from IBM.

    None where the connection cannot be read: the rest of the lineage does not depend on it.
    """
    try:
        return f"ibm-quantum://{urlsplit(task.hook.credentials.url).netloc}"
    except Exception:  # of Airflow, and of its secrets backend, of any kind
        log.warning(
            "The lineage names no QPU, without connection '%s'", task.ibm_quantum_conn_id, exc_info=True
        )
        return None


def _dataset_of(folder: str) -> Dataset:
    path = ObjectStoragePath(folder)
    # By OpenLineage's naming, a local path is absolute, and a key in a bucket is not.
    return Dataset(namespace=path.namespace, name=path.key if path.bucket else path.path)


def _declared(assets: Iterable[object]) -> list[Dataset]:
    found = map(ExtractorManager.convert_to_ol_dataset, assets)
    return [dataset for dataset in found if dataset is not None]
