# SPDX-License-Identifier: Apache-2.0
"""
The two clients, blocking and async, which differ in who moves the bytes.

What is sent and how responses are read stands in the table of operations, when to send again in the retry
policy, and the token in the authentication.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, Self, TypeVar, cast

import httpx
from tenacity import AsyncRetrying, Retrying

from airflow_provider_ibm_sessions import __version__
from airflow_provider_ibm_sessions.client import operations
from airflow_provider_ibm_sessions.client._http import tls, transport
from airflow_provider_ibm_sessions.client._http.pool import POOL_SHARDS, ExclusivePool, ShardedPool
from airflow_provider_ibm_sessions.client._http.proxies import proxy_url
from airflow_provider_ibm_sessions.client._http.timeouts import total_timeout
from airflow_provider_ibm_sessions.client.auth import IAMAuth
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.enums import SessionMode
from airflow_provider_ibm_sessions.client.errors import ConflictError, IBMQuantumError, NotFoundError
from airflow_provider_ibm_sessions.client.exchange import Exchange
from airflow_provider_ibm_sessions.client.models.instance import (
    Backend,
    InstanceUsage,
    Version,
    Workload,
    WorkloadFilter,
)
from airflow_provider_ibm_sessions.client.models.jobs import Job, JobFilter, JobMetrics
from airflow_provider_ibm_sessions.client.models.paging import JobPaging, WorkloadPaging
from airflow_provider_ibm_sessions.client.models.sessions import Session
from airflow_provider_ibm_sessions.client.operations import Flow, Operation, OperationCall
from airflow_provider_ibm_sessions.client.retries import RetryPolicy, flag_unknown_outcome
from airflow_provider_ibm_sessions.client.validation import (
    DEFAULT_MAX_TTL,
    to_seconds,
    validate_bool,
    validate_int,
)

APPLICATION = f"airflow-provider-ibm-sessions/{__version__}"

MAX_READ_IN_LOOP = 2**17
"""Bytes of a response that an event loop reads by itself: 25 ms at worst, where a session takes 0.1 ms."""

ResponseT = TypeVar("ResponseT")


class _BaseClient:
    """Credentials, retry policy and headers of both clients."""

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
        # A certificate file that is gone, or a proxy that cannot be used, is reported here.
        tls.context(credentials.verify)
        for url in (credentials.url, credentials.iam_url):
            proxy_url(credentials, url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.credentials.url})"

    def _build(self, call: OperationCall) -> tuple[httpx.Request, Exchange]:
        operation = call.operation
        request = operation.build(self.credentials.url, self._headers, path_id=call.path_id, **call.values)
        exchange = self._exchange(operation)
        return exchange.attach(request), exchange

    def _exchange(self, operation: Operation[Any]) -> Exchange:
        return Exchange(
            operation.summary,
            "the API",
            self.credentials,
            large_payload=operation.large_payload,
            max_bytes=operation.max_bytes,
        )


def _advance_flow(step: Callable[[Any], OperationCall], value: Any) -> tuple[OperationCall | None, Any]:
    """Return the flow's next call, or None and its result; ``step`` is its method ``send`` or ``throw``."""
    try:
        return step(value), None
    except StopIteration as end:
        return None, end.value


def _backend_fields(wait_times: bool) -> dict[str, str]:
    return {"fields": "wait_time_seconds"} if validate_bool(wait_times, "wait_times") else {}


class IBMQuantumClient(_BaseClient):
    """
    IBM Quantum's sessions and jobs, blocking. Use it as a context manager, or call ``close()``.

    :param credentials: API key, instance, and how to reach IBM.
    :param retry: How long to try; see :class:`RetryPolicy`.
    :raises IBMQuantumError: Every method raises one of this tree, and nothing else.
    """

    def __init__(self, credentials: Credentials, retry: RetryPolicy | None = None) -> None:
        super().__init__(credentials, retry)
        self._pool = ExclusivePool(lambda: transport.open_client(credentials))

    def create_session(
        self, backend: str, *, mode: str = SessionMode.DEDICATED, max_ttl: Any = DEFAULT_MAX_TTL
    ) -> Session:
        """
        Open a session. Sent once: see ``OutcomeUnknownError``.

        :param backend: Name of the QPU.
        :param mode: ``dedicated`` (billed while active) or ``batch``.
        :param max_ttl: Longest life from the first job's start: seconds, a timedelta or ``"2h 30m"``.
            IBM silently lowers it to the plan's limit: compare the session's own.
        """
        return self._call(
            operations.CREATE_SESSION, backend=backend, mode=mode, max_ttl=to_seconds(max_ttl, "max_ttl")
        )

    def get_session(self, session_id: str) -> Session:
        """Read a session."""
        return self._call(operations.GET_SESSION, session_id)

    def update_session(self, session_id: str, *, accepting_jobs: bool) -> None:
        """Drain a session (False: queued jobs run, then it closes itself), or let it take jobs (True)."""
        self._call(operations.UPDATE_SESSION, session_id, accepting_jobs=accepting_jobs)

    def close_session(self, session_id: str) -> None:
        """Close a session now: queued jobs never run, running ones finish. Closing twice is fine."""
        self._call(operations.CLOSE_SESSION, session_id)

    def list_workloads(self, **filters: Any) -> Iterator[Workload]:
        """Iterate over all pages of jobs, sessions and batches; see :class:`WorkloadFilter`."""
        paging = WorkloadPaging(operations.validate(WorkloadFilter, filters))
        while paging.query:
            page = self._call(operations.LIST_WORKLOADS, **paging.parameters)
            yield from paging.take(page)

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
        """Iterate over all pages of jobs, oldest first; see :class:`JobFilter`."""
        paging = JobPaging(operations.validate(JobFilter, filters))
        while paging.query:
            page = self._call(operations.LIST_JOBS, **paging.parameters)
            yield from paging.take(page)

    def job_results(self, job_id: str) -> Any:
        """
        Return a job's results as IBM sends them, or None if there are none; see ``decode_results``.

        Those of a private job can be read once only.

        :raises JobFailedError: If the job failed, with the end of its traceback.
        """
        return self._call(operations.JOB_RESULTS, job_id)

    def job_metrics(self, job_id: str) -> JobMetrics:
        """Read when a job ran and what it used."""
        return self._call(operations.JOB_METRICS, job_id)

    def job_logs(self, job_id: str) -> str:
        """Read what a job has logged. A job that has not ended has no logs: ``NotFoundError``."""
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
        """List the API versions that IBM serves. Needs no token."""
        return self._call(operations.LIST_VERSIONS).versions

    def list_backends(self, *, wait_times: bool = False) -> list[Backend]:
        """
        List the QPUs of the instance.

        :param wait_times: Ask for wait times as well. The Open plan has none.
        """
        return self._call(operations.LIST_BACKENDS, **_backend_fields(wait_times)).devices

    def instance_usage(self) -> InstanceUsage:
        """Read what the instance has used of its limit."""
        return self._call(operations.INSTANCE_USAGE)

    def backend_properties(self, backend: str, **query: Any) -> Any:
        """
        Read a QPU's calibration data as IBM sends it.

        :param backend: Name of the QPU.
        :param query: ``calibration_id``; or ``updated_before``, a datetime: the last one before that.
        """
        return self._call(operations.BACKEND_PROPERTIES, backend, **query)

    def run_flow(self, flow: Flow[ResponseT]) -> ResponseT:
        """Make the calls of a flow one after another, and return its result."""
        call, result = _advance_flow(flow.send, None)
        while call is not None:
            try:
                response = self._run(call)
            except IBMQuantumError as error:
                call, result = _advance_flow(flow.throw, error)
            else:
                call, result = _advance_flow(flow.send, response)
        return cast("ResponseT", result)

    def authorization(self) -> str:
        """Return the ``Authorization`` header for a request that somebody else sends (Qiskit does)."""
        request, _ = self._build(operations.LIST_BACKENDS.call())
        header: str = Retrying(**self.retry.tenacity_options(operations.LIST_BACKENDS))(
            self._authorize, request
        )
        return header

    def invalidate_token(self, authorization: str) -> None:
        """Forget the token of a header that IBM answered with 401, so that the next one holds a new one."""
        self._auth.discard(authorization.removeprefix("Bearer "))

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, operation: Operation[ResponseT], path_id: object = None, **values: Any) -> ResponseT:
        response: ResponseT = self._run(operation.call(path_id, **values))
        return response

    def send(self, operation: Operation[ResponseT], request: httpx.Request) -> ResponseT:
        """
        Send a request that was built elsewhere (Qiskit's) with all that holds for this client's own.

        :param operation: Its safety decides when the request is sent again; its reader reads the response.
        :raises OutcomeUnknownError: If the operation is not idempotent and may have been carried out.
        """
        exchange = self._exchange(operation)
        response: ResponseT = self._retry(operation.call(), exchange.attach(request), exchange)
        return response

    def _run(self, call: OperationCall) -> Any:
        return self._retry(call, *self._build(call))

    def _retry(self, call: OperationCall, request: httpx.Request, exchange: Exchange) -> Any:
        retrying = Retrying(**self.retry.tenacity_options(call.operation))
        with flag_unknown_outcome(call.operation):
            return retrying(self._send, call, request, exchange)

    def _send(self, call: OperationCall, request: httpx.Request, exchange: Exchange) -> Any:
        operation = call.operation
        with (
            transport.translate_errors(request, operation.summary),
            self._pool.client(self.credentials.timeout) as http,
            total_timeout(transport.total_seconds(exchange)) as exchange.restart_timeout,
        ):
            exchange.sent = not operation.authenticated
            response = http.send(request, auth=self._auth if operation.authenticated else None)
            return operation.read(response, call.path_id)

    def _authorize(self, request: httpx.Request) -> str:
        flow = self._auth.sync_auth_flow(request)
        with (
            transport.translate_errors(request, "Get a token"),
            self._pool.client(self.credentials.timeout) as http,
            total_timeout(self.credentials.timeout),
            closing(flow),
        ):
            step = next(flow)
            while step is not request:
                step = flow.send(http.send(step, auth=None))
        return request.headers["Authorization"]


class AsyncIBMQuantumClient(_BaseClient):
    """
    The same as :class:`IBMQuantumClient`, for an event loop. One instance belongs to one loop.

    :param pool_shards: How many times ten requests may be in flight.
    """

    def __init__(
        self, credentials: Credentials, retry: RetryPolicy | None = None, *, pool_shards: int = POOL_SHARDS
    ) -> None:
        super().__init__(credentials, retry)
        validate_int(pool_shards, "pool_shards", at_least=1)
        self._pool = ShardedPool(lambda: transport.open_async_client(credentials), pool_shards)

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
        paging = WorkloadPaging(operations.validate(WorkloadFilter, filters))
        while paging.query:
            page = await self._call(operations.LIST_WORKLOADS, **paging.parameters)
            for workload in paging.take(page):
                yield workload

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
        paging = JobPaging(operations.validate(JobFilter, filters))
        while paging.query:
            page = await self._call(operations.LIST_JOBS, **paging.parameters)
            for job in paging.take(page):
                yield job

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

    async def list_backends(self, *, wait_times: bool = False) -> list[Backend]:
        """See :meth:`IBMQuantumClient.list_backends`."""
        return (await self._call(operations.LIST_BACKENDS, **_backend_fields(wait_times))).devices

    async def instance_usage(self) -> InstanceUsage:
        """See :meth:`IBMQuantumClient.instance_usage`."""
        return await self._call(operations.INSTANCE_USAGE)

    async def backend_properties(self, backend: str, **query: Any) -> Any:
        """See :meth:`IBMQuantumClient.backend_properties`."""
        return await self._call(operations.BACKEND_PROPERTIES, backend, **query)

    async def run_flow(self, flow: Flow[ResponseT]) -> ResponseT:
        """See :meth:`IBMQuantumClient.run_flow`."""
        call, result = _advance_flow(flow.send, None)
        while call is not None:
            try:
                response = await self._run(call)
            except IBMQuantumError as error:
                call, result = _advance_flow(flow.throw, error)
            else:
                call, result = _advance_flow(flow.send, response)
        return cast("ResponseT", result)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(
        self, operation: Operation[ResponseT], path_id: object = None, **values: Any
    ) -> ResponseT:
        response: ResponseT = await self._run(operation.call(path_id, **values))
        return response

    async def _run(self, call: OperationCall) -> Any:
        request, exchange = self._build(call)
        retrying = AsyncRetrying(**self.retry.tenacity_options(call.operation))
        with flag_unknown_outcome(call.operation):
            return await retrying(self._send, call, request, exchange)

    async def _send(self, call: OperationCall, request: httpx.Request, exchange: Exchange) -> Any:
        operation = call.operation
        seconds = transport.total_seconds(exchange)
        now = asyncio.get_running_loop().time
        with transport.translate_errors(request, operation.summary):
            async with asyncio.timeout(seconds) as time, self._pool.client() as http:
                exchange.restart_timeout = lambda: time.reschedule(now() + seconds)
                exchange.sent = not operation.authenticated
                response = await http.send(request, auth=self._auth if operation.authenticated else None)
            exchange.in_thread = len(response.content) > MAX_READ_IN_LOOP
            if exchange.in_thread:
                return await asyncio.to_thread(operation.read, response, call.path_id)
            return operation.read(response, call.path_id)
