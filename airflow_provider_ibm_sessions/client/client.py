# SPDX-License-Identifier: Apache-2.0
"""
The client, sync and async. Thin: what is sent and how replies are read stands in the operations table, when
to send again in the retry policy, who may in the auth. Only here do the two differ: in who moves the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from typing import Any, Self, TypeVar, cast

import httpx
from tenacity import AsyncRetrying, Retrying

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.client import operations
from airflow_provider_ibm_sessions.client._http import transport
from airflow_provider_ibm_sessions.client._http.pool import POOL_SHARDS, ShardedPool
from airflow_provider_ibm_sessions.client._http.timeouts import install_total_timeout, within
from airflow_provider_ibm_sessions.client.auth import HAND_OVER, SENT, IAMAuth
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.enums import SessionMode
from airflow_provider_ibm_sessions.client.errors import ConflictError, IBMQuantumError, NotFoundError
from airflow_provider_ibm_sessions.client.models.instance import (
    Backend,
    Paging,
    Version,
    Workload,
    WorkloadFilter,
)
from airflow_provider_ibm_sessions.client.models.jobs import Job, JobFilter, JobMetrics, JobPaging
from airflow_provider_ibm_sessions.client.models.sessions import Session
from airflow_provider_ibm_sessions.client.operations import Call, Calls, Operation, advanced
from airflow_provider_ibm_sessions.client.retries import RetryPolicy, flag_unknown_outcome
from airflow_provider_ibm_sessions.client.validation import DEFAULT_MAX_TTL, to_seconds

APPLICATION = f"airflow-provider-ibm-sessions/{__version__}"

ReplyT = TypeVar("ReplyT")


class _BaseClient:
    """What both clients know: whom they speak for, and what stands on every request."""

    def __init__(self, credentials: Credentials, retry: RetryPolicy | None = None) -> None:
        self.credentials = credentials
        self.retry = retry or RetryPolicy()
        self._auth = IAMAuth(credentials)
        self._headers = {
            "Accept-Encoding": "identity",
            "IBM-API-Version": credentials.api_version,
            "Service-CRN": credentials.crn,
            "User-Agent": APPLICATION,
            "X-Qx-Client-Application": APPLICATION,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.credentials.url})"

    def _build(self, operation: Operation[Any], path_id: object, values: dict[str, Any]) -> httpx.Request:
        return operation.build(self.credentials.url, self._headers, path_id=path_id, **values)

    def _seconds(self, request: httpx.Request) -> float:
        return transport.seconds_for(request, self.credentials)

    def _auth_for(self, operation: Operation[Any], request: httpx.Request) -> IAMAuth | None:
        if operation.authenticated:
            return self._auth
        request.extensions[SENT] = True
        return None


class IBMQuantumClient(_BaseClient):
    """
    IBM Quantum's sessions and jobs, blocking. Use it as a context manager, or call ``close()``.

    :param credentials: Whom to speak for, and where.
    :param retry: How long to try; see :class:`RetryPolicy`.
    :raises IBMQuantumError: Every method raises one of this tree, and nothing else.
    """

    def __init__(self, credentials: Credentials, retry: RetryPolicy | None = None) -> None:
        super().__init__(credentials, retry)
        options = transport.options(credentials)
        self._http = install_total_timeout(
            httpx.Client(**options, event_hooks={"response": [transport.bound]})
        )

    def create_session(
        self, backend: str, *, mode: str = SessionMode.DEDICATED, max_ttl: Any = DEFAULT_MAX_TTL
    ) -> Session:
        """
        Open a session. Sent once: see ``OutcomeUnknownError``.

        :param backend: Name of the QPU.
        :param mode: ``dedicated`` (billed while active) or ``batch``.
        :param max_ttl: Longest life from the first job's start: seconds, a timedelta or ``"2h 30m"``.
            IBM silently lowers it to the plan's limit: compare the session's.
        """
        return self._call(
            operations.CREATE_SESSION, backend=backend, mode=mode, max_ttl=to_seconds(max_ttl, "max_ttl")
        )

    def get_session(self, session_id: str) -> Session:
        """Read a session."""
        return self._call(operations.GET_SESSION, session_id)

    def update_session(self, session_id: str, *, accepting_jobs: bool) -> None:
        """Drain a session (False: queued jobs run, then it closes itself), or let it take jobs again."""
        self._call(operations.UPDATE_SESSION, session_id, accepting_jobs=accepting_jobs)

    def close_session(self, session_id: str) -> None:
        """Close a session now: queued jobs never run, running ones finish. Closing twice is fine."""
        self._call(operations.CLOSE_SESSION, session_id)

    def list_workloads(self, **filters: Any) -> Iterator[Workload]:
        """Walk through all pages of jobs, sessions and batches; see :class:`WorkloadFilter`."""
        pages = Paging(operations.checked(WorkloadFilter, filters))
        while pages.query:
            page = self._call(operations.LIST_WORKLOADS, **pages.query.model_dump(exclude_none=True))
            yield from page.workloads
            pages.advance(page)

    def submit_job(self, program_id: str, *, backend: str, params: Mapping[str, Any], **optional: Any) -> Job:
        """
        Submit a job. Sent once: see ``OutcomeUnknownError``, and :func:`submit_once` to be sure.

        :param program_id: ``sampler``, ``estimator``, ``executor``, ...
        :param backend: Name of the QPU; the session's, if there is one.
        :param params: The program's input as IBM's REST reference describes it.
        :param optional: The other fields of :class:`SubmitJob`: ``session_id``, ``tags``, ``cost``, ...
        """
        fields = {"program_id": program_id, "backend": backend, "params": params, **optional}
        return self._call(operations.SUBMIT_JOB, **fields)

    def get_job(self, job_id: str) -> Job:
        """Read a job, without the parameters it was given."""
        return self._call(operations.GET_JOB, job_id)

    def list_jobs(self, **filters: Any) -> Iterator[Job]:
        """Walk through all pages of jobs, oldest first; see :class:`JobFilter`."""
        pages = JobPaging(operations.checked(JobFilter, filters))
        while pages.query:
            page = self._call(operations.LIST_JOBS, **pages.query.model_dump(exclude_none=True))
            yield from page.jobs
            pages.advance(page)

    def job_results(self, job_id: str) -> Any:
        """
        A job's results as IBM sends them, or None if there are none; ``results.decode`` reads them.

        Those of a private job can be read once only.

        :raises JobFailedError: If the job failed, with the end of its traceback.
        """
        return self._call(operations.JOB_RESULTS, job_id)

    def job_metrics(self, job_id: str) -> JobMetrics:
        """When a job ran and what it used."""
        return self._call(operations.JOB_METRICS, job_id)

    def job_logs(self, job_id: str) -> str:
        """What a job has logged. A job that has not ended has no logs: ``NotFoundError``."""
        return self._call(operations.JOB_LOGS, job_id)

    def cancel_job(self, job_id: str) -> bool:
        """Cancel a job, queued or running; False if it had ended already."""
        try:
            self._call(operations.CANCEL_JOB, job_id)
        except ConflictError:
            return False
        return True

    def delete_job(self, job_id: str) -> bool:
        """Delete a job that has ended, and its results; False if IBM does not know it (any more)."""
        try:
            self._call(operations.DELETE_JOB, job_id)
        except NotFoundError:
            return False
        return True

    def list_versions(self) -> list[Version]:
        """The API versions that IBM serves. Needs no token."""
        return self._call(operations.LIST_VERSIONS).versions

    def list_backends(self) -> list[Backend]:
        """The QPUs of the instance."""
        return self._call(operations.LIST_BACKENDS).devices

    def run_flow(self, calls: Calls[ReplyT]) -> ReplyT:
        """Make calls one after another; returns what follows from their replies."""
        step = advanced(calls.send, None)
        while isinstance(step, Call):
            try:
                reply = self._call(step.operation, step.path_id, **step.values)
            except IBMQuantumError as error:
                step = advanced(calls.throw, error)
            else:
                step = advanced(calls.send, reply)
        return cast("ReplyT", step.value)

    def authorization(self) -> str:
        """The ``Authorization`` header for a request that somebody else sends (Qiskit does)."""
        header: str = Retrying(**self.retry.options(operations.LIST_BACKENDS))(self._authorize)
        return header

    def refuse(self, authorization: str) -> None:
        """Forget a token that IBM answered with 401, so that the next header holds a new one."""
        self._auth.discard(authorization.removeprefix("Bearer "))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, operation: Operation[ReplyT], path_id: object = None, **values: Any) -> ReplyT:
        return self.send(operation, self._build(operation, path_id, values))

    def send(self, operation: Operation[ReplyT], request: httpx.Request) -> ReplyT:
        """
        Send a request that was built elsewhere (Qiskit's) with all that holds for this client's own.

        :param operation: Its safety decides when the request is sent again; its reader reads the response.
        :raises OutcomeUnknownError: If the operation is not idempotent and may have been carried out.
        """
        with flag_unknown_outcome(operation):
            reply: ReplyT = Retrying(**self.retry.options(operation))(self._exchange, operation, request)
            return reply

    def _authorize(self) -> str:
        request = self._build(operations.LIST_BACKENDS, None, {})
        flow = self._auth.sync_auth_flow(request)
        with (
            transport.translate_errors(request, "Get a token"),
            within(self.credentials.timeout),
            closing(flow),
        ):
            step = next(flow)
            while step is not request:
                step = flow.send(self._http.send(step, auth=None))
        return request.headers["Authorization"]

    def _exchange(self, operation: Operation[ReplyT], request: httpx.Request) -> ReplyT:
        with (
            transport.translate_errors(request, operation.summary),
            within(self._seconds(request)) as restart,
        ):
            request.extensions[HAND_OVER] = restart
            return operation.read(self._http.send(request, auth=self._auth_for(operation, request)))


class AsyncIBMQuantumClient(_BaseClient):
    """
    The same as :class:`IBMQuantumClient`, for an event loop. One instance belongs to one loop.

    :param lanes: How many times ten requests may be in flight.
    """

    def __init__(
        self, credentials: Credentials, retry: RetryPolicy | None = None, *, pool_shards: int = POOL_SHARDS
    ) -> None:
        super().__init__(credentials, retry)
        self._options = transport.options(credentials)
        self._pool = ShardedPool(self._open, pool_shards)

    async def create_session(
        self, backend: str, *, mode: str = SessionMode.DEDICATED, max_ttl: Any = DEFAULT_MAX_TTL
    ) -> Session:
        """See :meth:`IBMQuantumClient.create_session`."""
        return await self._call(
            operations.CREATE_SESSION, backend=backend, mode=mode, max_ttl=to_seconds(max_ttl, "max_ttl")
        )

    async def get_session(self, session_id: str) -> Session:
        """See :meth:`IBMQuantumClient.get_session`."""
        return await self._call(operations.GET_SESSION, session_id)

    async def update_session(self, session_id: str, *, accepting_jobs: bool) -> None:
        """See :meth:`IBMQuantumClient.update_session`."""
        await self._call(operations.UPDATE_SESSION, session_id, accepting_jobs=accepting_jobs)

    async def close_session(self, session_id: str) -> None:
        """See :meth:`IBMQuantumClient.close_session`."""
        await self._call(operations.CLOSE_SESSION, session_id)

    async def list_workloads(self, **filters: Any) -> AsyncIterator[Workload]:
        """See :meth:`IBMQuantumClient.list_workloads`."""
        pages = Paging(operations.checked(WorkloadFilter, filters))
        while pages.query:
            page = await self._call(operations.LIST_WORKLOADS, **pages.query.model_dump(exclude_none=True))
            for workload in page.workloads:
                yield workload
            pages.advance(page)

    async def submit_job(
        self, program_id: str, *, backend: str, params: Mapping[str, Any], **optional: Any
    ) -> Job:
        """See :meth:`IBMQuantumClient.submit_job`."""
        fields = {"program_id": program_id, "backend": backend, "params": params, **optional}
        return await self._call(operations.SUBMIT_JOB, **fields)

    async def get_job(self, job_id: str) -> Job:
        """See :meth:`IBMQuantumClient.get_job`."""
        return await self._call(operations.GET_JOB, job_id)

    async def list_jobs(self, **filters: Any) -> AsyncIterator[Job]:
        """See :meth:`IBMQuantumClient.list_jobs`."""
        pages = JobPaging(operations.checked(JobFilter, filters))
        while pages.query:
            page = await self._call(operations.LIST_JOBS, **pages.query.model_dump(exclude_none=True))
            for job in page.jobs:
                yield job
            pages.advance(page)

    async def job_results(self, job_id: str) -> Any:
        """See :meth:`IBMQuantumClient.job_results`."""
        return await self._call(operations.JOB_RESULTS, job_id)

    async def job_metrics(self, job_id: str) -> JobMetrics:
        """See :meth:`IBMQuantumClient.job_metrics`."""
        return await self._call(operations.JOB_METRICS, job_id)

    async def job_logs(self, job_id: str) -> str:
        """See :meth:`IBMQuantumClient.job_logs`."""
        return await self._call(operations.JOB_LOGS, job_id)

    async def cancel_job(self, job_id: str) -> bool:
        """See :meth:`IBMQuantumClient.cancel_job`."""
        try:
            await self._call(operations.CANCEL_JOB, job_id)
        except ConflictError:
            return False
        return True

    async def delete_job(self, job_id: str) -> bool:
        """See :meth:`IBMQuantumClient.delete_job`."""
        try:
            await self._call(operations.DELETE_JOB, job_id)
        except NotFoundError:
            return False
        return True

    async def list_versions(self) -> list[Version]:
        """See :meth:`IBMQuantumClient.list_versions`."""
        return (await self._call(operations.LIST_VERSIONS)).versions

    async def list_backends(self) -> list[Backend]:
        """See :meth:`IBMQuantumClient.list_backends`."""
        return (await self._call(operations.LIST_BACKENDS)).devices

    async def run_flow(self, calls: Calls[ReplyT]) -> ReplyT:
        """See :meth:`IBMQuantumClient.follow`."""
        step = advanced(calls.send, None)
        while isinstance(step, Call):
            try:
                reply = await self._call(step.operation, step.path_id, **step.values)
            except IBMQuantumError as error:
                step = advanced(calls.throw, error)
            else:
                step = advanced(calls.send, reply)
        return cast("ReplyT", step.value)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, operation: Operation[ReplyT], path_id: object = None, **values: Any) -> ReplyT:
        request = self._build(operation, path_id, values)
        with flag_unknown_outcome(operation):
            return await AsyncRetrying(**self.retry.options(operation))(self._exchange, operation, request)

    async def _exchange(self, operation: Operation[ReplyT], request: httpx.Request) -> ReplyT:
        seconds, now = self._seconds(request), asyncio.get_running_loop().time
        with transport.translate_errors(request, operation.summary):
            async with asyncio.timeout(seconds) as time, self._pool.client() as http:
                request.extensions[HAND_OVER] = lambda: time.reschedule(now() + seconds)
                response = await http.send(request, auth=self._auth_for(operation, request))
            return operation.read(response)

    def _open(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._options, event_hooks={"response": [transport.alimit_response_size]})
