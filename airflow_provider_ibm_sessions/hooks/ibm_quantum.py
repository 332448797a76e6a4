# SPDX-License-Identifier: Apache-2.0
"""The hook: an Airflow connection, and IBM Quantum's sessions and jobs on it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, IBMQuantumClient
from airflow_provider_ibm_sessions.client.credentials import ENV_API_KEY, ENV_CRN, Credentials
from airflow_provider_ibm_sessions.client.enums import PENDING_CLOSED, SessionMode
from airflow_provider_ibm_sessions.client.errors import (
    USER_ACTION_REQUIRED,
    BadResponseError,
    ConfigurationError,
    IBMQuantumError,
    NotFoundError,
    ServerError,
)
from airflow_provider_ibm_sessions.client.results import decode_results
from airflow_provider_ibm_sessions.client.retries import NO_RETRY, RetryPolicy
from airflow_provider_ibm_sessions.client.shared import shared_client
from airflow_provider_ibm_sessions.client.submission import submit_once
from airflow_provider_ibm_sessions.client.validation import DEFAULT_MAX_TTL
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.hooks.airflow_lookup import ensure_connection_absent, has_secrets_backend
from airflow_provider_ibm_sessions.hooks.connection import credentials_from_connection
from airflow_provider_ibm_sessions.hooks.connection_form import FIELD_BEHAVIOUR, connection_form_widgets
from airflow_provider_ibm_sessions.links import console_url

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime import Session as QiskitSession

    from airflow_provider_ibm_sessions.client.models.instance import Workload
    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.models.sessions import Session

_CLOSE_ATTEMPTS = 5
_CLOSE_PAUSE = 2.0
_LAST_SECONDS = 2.0
_TRIGGER_SECONDS = 5.0
_SHORT = RetryPolicy(max_elapsed=8.0)


class IBMQuantumHook(BaseHook):
    """
    Talks to IBM Quantum with the credentials of an Airflow connection.

    Without a connection ``ibm_quantum_default``, the environment variables ``IBM_CLOUD_API_KEY``,
    ``IBM_QUANTUM_CRN`` and ``IBM_QUANTUM_API_VERSION`` serve in its place. Another connection id that does
    not exist is an error: a typing mistake must not bill another account.

    Methods raise the errors of :mod:`airflow_provider_ibm_sessions.client.errors`.

    :param ibm_quantum_conn_id: Id of a connection of the type ``ibm_quantum``.
    """

    conn_name_attr = "ibm_quantum_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "ibm_quantum"
    hook_name = "IBM Quantum"

    def __init__(self, ibm_quantum_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ibm_quantum_conn_id = ibm_quantum_conn_id

    @cached_property
    def credentials(self) -> Credentials:
        """The connection's credentials; checked, nothing sent."""
        return self._read_credentials()

    async def aget_credentials(self) -> Credentials:
        """The connection's credentials, read inside of an event loop."""
        if "credentials" not in self.__dict__:
            try:
                # In a thread: a file of CA certificates may have to be read.
                read = asyncio.to_thread(credentials_from_connection, await self._aconnection())
            except AirflowNotFoundException:
                # In `dag.test()`, a trigger does not get it by awaiting it.
                read = asyncio.to_thread(self._read_credentials)
            self.__dict__["credentials"] = await read
        return self.credentials

    def client(self) -> IBMQuantumClient:
        """A client of one's own, to be closed by its user: ``with hook.client() as client: ...``."""
        return IBMQuantumClient(self.credentials)

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[AsyncIBMQuantumClient]:
        """Lend the event loop's shared client: ``async with hook.async_client() as client: ...``."""
        async with shared_client(await self.aget_credentials()) as client:
            yield client

    def short_lived_client(self, *, single_attempt: bool = True) -> IBMQuantumClient:
        """
        A client of one's own that gives up soon, for ending things: many calls, one after the other.

        :param single_attempt: For the last seconds of a task that is being killed: one short attempt for each
            request. The signal may have interrupted the hook's own client in the middle of one.
        """
        if single_attempt:
            return IBMQuantumClient(replace(self.credentials, timeout=_LAST_SECONDS), NO_RETRY)
        return IBMQuantumClient(self.credentials, _SHORT)

    @asynccontextmanager
    async def async_short_lived_client(self) -> AsyncIterator[AsyncIBMQuantumClient]:
        """The same in the triggerer, which gives a killed task's trigger 30 s."""
        credentials = replace(await self.aget_credentials(), timeout=_TRIGGER_SECONDS)
        async with AsyncIBMQuantumClient(credentials, _SHORT) as client:
            yield client

    def get_conn(self) -> IBMQuantumClient:
        """The client that this hook's own methods use."""
        return self._client

    def create_session(
        self, backend: str, *, mode: str = SessionMode.DEDICATED, max_ttl: Any = DEFAULT_MAX_TTL
    ) -> Session:
        """Open a session; see :meth:`IBMQuantumClient.create_session`."""
        return self._client.create_session(backend, mode=mode, max_ttl=max_ttl)

    def get_session(self, session_id: str) -> Session:
        """Read a session."""
        return self._client.get_session(session_id)

    def update_session(self, session_id: str, *, accepting_jobs: bool) -> None:
        """Drain a session (False), or let it take jobs again (True)."""
        self._client.update_session(session_id, accepting_jobs=accepting_jobs)

    def drain_session(self, session_id: str) -> None:
        """
        Let a session take no more jobs, and read it to be sure.

        :raises ServerError: If it takes jobs all the same.
        """
        self._client.update_session(session_id, accepting_jobs=False)
        if self._client.get_session(session_id).accepts_jobs:
            raise ServerError(f"Update a session: {session_id} takes jobs still")

    def close_session(self, session_id: str) -> Session | None:
        """
        Close a session for certain: send, read it, and send again until it is closed.

        One that cannot be closed is drained at least: without jobs, it then closes itself.

        :returns: The session as it is now, or None if IBM does not know it (any more).
        :raises IBMQuantumError: If it is not closed after several attempts, or may not be; names the session
            and its page in IBM's console.
        """
        try:
            return self._close_confirmed(session_id)
        except ConfigurationError:
            raise
        except IBMQuantumError as error:
            session = self._drained(session_id)
            if session is not None and session.is_closed:
                return session
            error.message += f". Session {session_id} may be open still: {console_url(session_id)}"
            raise

    def _close_confirmed(self, session_id: str) -> Session | None:
        trouble: IBMQuantumError | None = None
        for attempt in range(_CLOSE_ATTEMPTS):
            if attempt:
                time.sleep(_CLOSE_PAUSE)
            trouble = self._send_close(session_id)
            try:
                session = self._client.get_session(session_id)
            except NotFoundError:
                return None
            except BadResponseError as error:
                trouble = error
                continue
            # The state decides, not the answer to closing. Nor does a session that takes no jobs prove
            # anything: so does one that drains, with a queue that runs for hours.
            if session.is_closed or session.state == PENDING_CLOSED:
                return session
        last = f". {trouble}" if trouble else ""
        raise ServerError(
            f"Close a session: {session_id} is still not closed after {_CLOSE_ATTEMPTS} attempts{last}"
        ) from trouble

    def _drained(self, session_id: str) -> Session | None:
        """What becomes of a session that cannot be closed when it is told to take no more jobs."""
        try:
            self._client.update_session(session_id, accepting_jobs=False)
            return self._client.get_session(session_id)
        except IBMQuantumError as error:
            self.log.warning("%s", error)
            return None

    def _send_close(self, session_id: str) -> IBMQuantumError | None:
        """Send it once more; returns the trouble that another attempt may get past."""
        try:
            self._client.close_session(session_id)
        except USER_ACTION_REQUIRED:
            raise
        except IBMQuantumError as error:
            self.log.warning("%s", error)
            return error
        return None

    def submit_job(self, program_id: str, *, backend: str, params: Mapping[str, Any], **optional: Any) -> Job:
        """Submit a job; see :meth:`IBMQuantumClient.submit_job`, and :meth:`submit_job_once`."""
        return self._client.submit_job(program_id, backend=backend, params=params, **optional)

    def submit_job_once(self, tag: str, **job: Any) -> Job:
        """Submit a job, never twice; see :func:`submit_once`."""
        return submit_once(self._client, tag, **job)

    def get_job(self, job_id: str) -> Job:
        """Read a job."""
        return self._client.get_job(job_id)

    def list_jobs(self, **filters: Any) -> Iterator[Job]:
        """Walk through jobs; see :class:`JobFilter` for the filters."""
        return self._client.list_jobs(**filters)

    def job_results(self, job_id: str, *, raw: bool = False) -> Any:
        """
        A job's results in plain values, or None if there are none.

        See :func:`decode`; infinite numbers are texts, as JSON has none. Those of a private job can be read
        once only.

        :param raw: As IBM sends them.
        """
        results = self._client.job_results(job_id)
        return results if raw else decode_results(results).results

    def cancel_job(self, job_id: str) -> bool:
        """Cancel a job, queued or running; False if it had ended already."""
        return self._client.cancel_job(job_id)

    def list_workloads(self, **filters: Any) -> Iterator[Workload]:
        """Walk through jobs, sessions and batches; see :class:`WorkloadFilter` for the filters."""
        return self._client.list_workloads(**filters)

    def test_connection(self) -> tuple[bool, str]:
        """Make a real, authenticated call that costs nothing, and say what is wrong in plain words."""
        try:
            credentials = self.credentials
            with self.client() as client:
                backends = client.list_backends()
        except IBMQuantumError as error:
            return False, str(error)
        return True, (
            f"The key and the CRN are accepted: {len(backends)} QPU(s) in {credentials.region}. Whether the "
            "plan has dedicated sessions (Open has not) shows when the first one is created."
        )

    def qiskit_service(self) -> QiskitRuntimeService:
        """
        A ``QiskitRuntimeService`` on this connection. Needs the extra ``qiskit``.

        It gets its tokens from this package: the API key is not given to it.
        """
        from airflow_provider_ibm_sessions.hooks.qiskit import service

        return service(self.credentials)

    def qiskit_session(self, session_id: str, backend: str | None = None) -> QiskitSession:
        """
        A ``qiskit_ibm_runtime.Session`` (or ``Batch``) bound to an existing session. Needs ``[qiskit]``.

        Its ``close()`` drains the session; leave that to the Dag's teardown.

        :param session_id: A session that takes jobs.
        :param backend: The session's QPU; needed only while IBM does not tell it, before the first job.
        """
        from airflow_provider_ibm_sessions.hooks.qiskit import session

        return session(self.qiskit_service(), self.get_session(session_id), backend)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The form for Airflow before 3.2; newer ones read it from the provider's metadata."""
        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The same, for Airflow's own fields."""
        return {name.replace("-", "_"): value for name, value in FIELD_BEHAVIOUR.items()}

    @cached_property
    def _client(self) -> IBMQuantumClient:
        return self.client()

    async def _aconnection(self) -> Connection:
        if hasattr(BaseHook, "aget_connection"):  # Airflow 3.1+
            return await self.aget_connection(self.ibm_quantum_conn_id)
        from asgiref.sync import sync_to_async

        connection: Connection = await sync_to_async(self.get_connection)(self.ibm_quantum_conn_id)
        return connection

    def _read_credentials(self) -> Credentials:
        try:
            return credentials_from_connection(self.get_connection(self.ibm_quantum_conn_id))
        except AirflowNotFoundException:
            return self._credentials_from_env()

    def _credentials_from_env(self) -> Credentials:
        """
        What serves where there is no connection.

        :raises ConfigurationError: If the environment has nothing for this connection id, either.
        :raises AirflowApiUnavailableError: If the connection may only be out of reach.
        """
        ensure_connection_absent(self.ibm_quantum_conn_id)
        is_default = self.ibm_quantum_conn_id == self.default_conn_name
        if is_default and (os.environ.get(ENV_API_KEY) or os.environ.get(ENV_CRN)):
            mask(os.environ.get(ENV_API_KEY, ""))
            return Credentials.from_env()
        missing = f"There is no Airflow connection '{self.ibm_quantum_conn_id}'"
        if is_default:
            missing += f", and neither {ENV_API_KEY} nor {ENV_CRN} is set in the environment"
        if has_secrets_backend():
            raise AirflowApiUnavailableError(f"{missing}, or the secrets backend does not give it")
        raise ConfigurationError(missing, field="ibm_quantum_conn_id") from None


def mask(secret: str) -> None:
    """Let Airflow hide it in every log, as it does with a connection's password."""
    try:
        from airflow.sdk.log import mask_secret
    except ImportError:  # Airflow 3.0
        from airflow.sdk.execution_time.secrets_masker import mask_secret  # type: ignore[no-redef]
    mask_secret(secret)
