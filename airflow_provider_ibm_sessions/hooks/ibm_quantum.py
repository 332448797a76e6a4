# SPDX-License-Identifier: Apache-2.0
"""The hook: an Airflow connection, and IBM Quantum's sessions and jobs on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook, get_current_context

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, IBMQuantumClient
from airflow_provider_ibm_sessions.client.auth import on_new_token
from airflow_provider_ibm_sessions.client.backend_selection import BackendRequirements
from airflow_provider_ibm_sessions.client.closing import close_and_confirm, drain_and_read
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.enums import SessionMode
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    NotFoundError,
    OutcomeUnknownError,
    ServerError,
)
from airflow_provider_ibm_sessions.client.estimate import UsageEstimate, estimate_usage
from airflow_provider_ibm_sessions.client.instance_reader import instance_reader
from airflow_provider_ibm_sessions.client.recovery import PendingCreate
from airflow_provider_ibm_sessions.client.results import decode_results, raw_to_primitive_result
from airflow_provider_ibm_sessions.client.retries import NO_RETRY, RetryPolicy
from airflow_provider_ibm_sessions.client.shared import shared_client
from airflow_provider_ibm_sessions.client.submission import submit_once
from airflow_provider_ibm_sessions.client.usage import UsageReport
from airflow_provider_ibm_sessions.client.validation import (
    DEFAULT_MAX_TTL,
    to_seconds,
    validate_backend,
    validate_bool,
    validate_calibration_id,
    validate_choice,
    validate_conn_id,
    validate_fractional_gates,
    validate_id,
    validate_jobs,
)
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.hooks.connection import (
    alook_up_credentials,
    look_up_credentials,
    mask_secret,
)
from airflow_provider_ibm_sessions.hooks.connection_check import check_connection
from airflow_provider_ibm_sessions.hooks.connection_form import FIELD_BEHAVIOUR, connection_form_widgets
from airflow_provider_ibm_sessions.hooks.fingerprint import max_ttl_with_fingerprint
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_record import (
    RECORD_PREFIX,
    SessionRecord,
    write_to_task_state,
)
from airflow_provider_ibm_sessions.hooks.session_registry import (
    SessionRegistry,
    VariableSessionRegistry,
    raise_if_other_connection,
)
from airflow_provider_ibm_sessions.links import console_url

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from qiskit.primitives import PrimitiveResult
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime import Session as QiskitSession

    from airflow_provider_ibm_sessions.client.models.instance import Backend, InstanceUsage, Workload
    from airflow_provider_ibm_sessions.client.models.jobs import Job
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.hooks.qiskit_recorder import RecordingRuntimeService

on_new_token(mask_secret)

_WORKER_KILL_TIMEOUT = 2.0
_TRIGGER_KILL_TIMEOUT = 5.0
_USAGE_TIMEOUT = 10.0
_SHORT_RETRIES = RetryPolicy(max_elapsed=8.0)


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
        self.ibm_quantum_conn_id = validate_conn_id(ibm_quantum_conn_id)
        self._registry: SessionRegistry | None = None
        self._usage_of_closed: dict[str, UsageReport] = {}

    @cached_property
    def credentials(self) -> Credentials:
        """Return the connection's credentials; checked, nothing sent."""
        return look_up_credentials(self, self.ibm_quantum_conn_id)

    async def aget_credentials(self) -> Credentials:
        """Return the connection's credentials inside of an event loop, whose hooks look it up together."""
        if "credentials" not in self.__dict__:
            self.credentials = await alook_up_credentials(self, self.ibm_quantum_conn_id)
        return self.credentials

    async def arenew_credentials(self) -> bool:
        """Look the connection up again inside of an event loop; return True if it has changed."""
        refused = await self.aget_credentials()
        self.credentials = await alook_up_credentials(self, self.ibm_quantum_conn_id, refused=refused)
        return self.credentials != refused

    @property
    def registry(self) -> SessionRegistry:
        """Return the registry of open sessions: by default the running task's view of Airflow's variables."""
        return self._registry or VariableSessionRegistry(_current_context())

    @registry.setter
    def registry(self, registry: SessionRegistry) -> None:
        self._registry = registry

    # -- clients ---------------------------------------------------------------------------------

    def client(self) -> IBMQuantumClient:
        """Return a new client, to be closed by its user: ``with hook.client() as client: ...``."""
        return IBMQuantumClient(self.credentials)

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[AsyncIBMQuantumClient]:
        """Lend the event loop's shared client: ``async with hook.async_client() as client: ...``."""
        async with shared_client(await self.aget_credentials()) as client:
            yield client

    def short_lived_client(self, *, single_attempt: bool = True) -> IBMQuantumClient:
        """
        Return a new client that gives up soon, for cleaning up: many calls, one after the other.

        :param single_attempt: For the last seconds of a task that is being killed: one short attempt for each
            request. The signal may have interrupted the hook's own client in the middle of one.
        """
        if single_attempt:
            return IBMQuantumClient(replace(self.credentials, timeout=_WORKER_KILL_TIMEOUT), NO_RETRY)
        return IBMQuantumClient(self.credentials, _SHORT_RETRIES)

    @asynccontextmanager
    async def async_short_lived_client(self) -> AsyncIterator[AsyncIBMQuantumClient]:
        """Lend a new client that gives up soon: a triggerer gives a killed task's trigger 30 s."""
        credentials = replace(await self.aget_credentials(), timeout=_TRIGGER_KILL_TIMEOUT)
        async with AsyncIBMQuantumClient(credentials, _SHORT_RETRIES) as client:
            yield client

    def get_conn(self) -> IBMQuantumClient:
        """Return the client that this hook's own methods use."""
        return self._client

    # -- sessions --------------------------------------------------------------------------------

    def create_session(
        self,
        backend: str,
        *,
        mode: str = SessionMode.DEDICATED,
        max_ttl: Any = DEFAULT_MAX_TTL,
        dag_run_scoped: bool = True,
    ) -> Session:
        """
        Open a session, and register it for the running task.

        If the response is lost, the session is looked for and found again by its fingerprint.

        :param backend: Name of the QPU, such as ``ibm_fez``.
        :param mode: ``dedicated`` (billed while active) or ``batch`` (billed for the jobs' QPU time).
        :param max_ttl: Longest life from the first job's start: seconds, a timedelta or ``"2h 30m"``. IBM
            gets 1 to 256 s less, a sixteenth at most, as the fingerprint, and lowers it to the plan's limit.
        :param dag_run_scoped: True if the session may be used as long as the Dag run is active; else the
            sweep takes it for orphaned once the task has finished.
        :raises OutcomeUnknownError: If IBM does not tell whether it has opened one; names the candidates.
        """
        validate_bool(dag_run_scoped, "dag_run_scoped")
        pending = self.prepare_session(backend, mode=mode, max_ttl=max_ttl)
        return self.create_pending_session(pending, dag_run_scoped=dag_run_scoped)

    def prepare_session(
        self, backend: str, *, mode: str = SessionMode.DEDICATED, max_ttl: Any = DEFAULT_MAX_TTL
    ) -> PendingCreate:
        """
        Return the request that :meth:`create_pending_session` sends, to be stored before it is sent.

        :raises ConfigurationError: Naming the argument that is wrong.
        """
        seconds = to_seconds(max_ttl, "max_ttl")
        has_fingerprint = False
        if context := _current_context():
            seconds, has_fingerprint = max_ttl_with_fingerprint(context, seconds)
        return PendingCreate(
            backend=validate_backend(backend),
            mode=validate_choice(mode, SessionMode, "mode"),
            max_ttl=seconds,
            created_after=datetime.now(UTC),
            has_fingerprint=has_fingerprint,
        )

    def create_pending_session(self, pending: PendingCreate, *, dag_run_scoped: bool = True) -> Session:
        """Send the request, and register its session; see :meth:`create_session`."""
        session = pending.create(self._client, self._is_taken)
        self.register_session(session.id, dag_run_scoped=dag_run_scoped)
        return session

    def find_pending_session(self, pending: PendingCreate, *, dag_run_scoped: bool = True) -> Session | None:
        """
        Return the session that an earlier try's request has created, if IBM lists one, and register it.

        :raises OutcomeUnknownError: If it may be another's, or one of several.
        """
        unknown = OutcomeUnknownError("Create a session: an earlier try may have opened one")
        session = pending.wait_and_find(self._client, self._is_taken, unknown)
        if session is not None:
            self.register_session(session.id, dag_run_scoped=dag_run_scoped)
        return session

    def register_session(self, session_id: str, *, dag_run_scoped: bool = True) -> None:
        """Register an open session for the running task, so that a sweep knows whose it is."""
        session_id = validate_id(session_id)
        dag_run_scoped = validate_bool(dag_run_scoped, "dag_run_scoped")
        if context := _current_context():
            owner = SessionOwner.of(context, self.ibm_quantum_conn_id, dag_run_scoped=dag_run_scoped)
            signed = owner.signed(session_id, self.credentials.api_key.reveal())
            VariableSessionRegistry(context).register(session_id, signed, self.console_url(session_id))

    def get_session(self, session_id: str) -> Session:
        """Read a session."""
        return self._client.get_session(session_id)

    def update_session(self, session_id: str, *, accepting_jobs: bool) -> None:
        """Drain a session (False), or let it accept jobs again (True)."""
        self._client.update_session(session_id, accepting_jobs=accepting_jobs)

    def drain_session(self, session_id: str) -> Session:
        """
        Let a session accept no more jobs, and confirm it by reading the session.

        One that has nothing queued closes itself at once, and is unregistered then.

        :raises ServerError: If it still accepts jobs.
        """
        self._client.update_session(session_id, accepting_jobs=False)
        session = self._client.get_session(session_id)
        if session.accepts_jobs:
            raise ServerError(f"Update a session: {session_id} still accepts jobs")
        if session.is_closed:
            self.unregister_session(session_id, session)
        return session

    def close_session(self, session_id: str) -> Session | None:
        """
        Close a session, confirm it by reading the session, and unregister it.

        The request is repeated until the session is closed. One that cannot be closed is drained at least:
        without jobs, it then closes itself.

        :returns: The session as it is now, or None if it is registered and IBM does not know it (yet).
        :raises ConfigurationError: If it was opened with another connection.
        :raises NotFoundError: If neither IBM nor the registry knows it.
        :raises IBMQuantumError: If it is not closed after several attempts, or may not be; names the session
            and its page in IBM's console.
        """
        try:
            session = close_and_confirm(self._client, session_id)
        except ConfigurationError:
            raise
        except IBMQuantumError as error:
            session = drain_and_read(self._client, session_id)
            if session is None or not session.is_closed:
                error.message += f". Session {session_id} may still be open: {self.console_url(session_id)}"
                raise
        if session is not None:
            self.unregister_session(session_id, session)
        elif not raise_if_other_connection(self.registry, session_id, self.ibm_quantum_conn_id):
            raise NotFoundError(
                f"session_id {session_id} is unknown, to IBM at connection '{self.ibm_quantum_conn_id}' "
                "and to this Airflow. Check the id, such as the task id of an xcom_pull",
                status=404,
            )
        return session

    def ensure_session_closed(self, session_id: str, session: Session | None = None) -> Session | None:
        """
        Return a session that has closed itself; close one that has not.

        :param session: The session as it was last read.
        """
        session_id = validate_id(session_id)
        if session is None or not session.is_closed:
            try:
                session = self.get_session(session_id)
            except IBMQuantumError as error:
                self.log.warning("%s", error)
        if session is None or not session.is_closed:
            return self.close_session(session_id)
        self.unregister_session(session_id, session)
        return session

    def unregister_session(self, session_id: str, session: Session | None) -> None:
        """
        Keep a record of a session that has ended, and unregister it. Errors are logged.

        Where the record cannot be kept, the session stays registered, and the next sweep does it.

        :param session: As it was last read; None if IBM does not know it.
        """
        registry = self.registry
        try:
            owner = registry.get_owner(session_id)
        except AirflowApiUnavailableError as error:
            self.log.warning("%s. The next sweep keeps the record of session %s", error, session_id)
            return
        except ValueError:
            self.log.warning(
                "The registry's entry of session %s is unreadable: no record is kept", session_id
            )
            registry.unregister(session_id, None)
            return
        if owner is None:  # recorded before, or not opened by this Airflow
            return
        jobs = None if session is None else self._list_session_jobs(session_id)
        if session is not None:
            self._usage_of_closed[session_id] = UsageReport.of_session(session, jobs)
        record = SessionRecord.of_session(session_id, owner, self.credentials, session, jobs)
        registry.unregister(session_id, record)

    def session_usage(self, session: Session) -> UsageReport:
        """Return what a session and its jobs have used: as it was when this hook unregistered it, or now."""
        if session.id not in self._usage_of_closed:
            return UsageReport.of_session(session, self._list_session_jobs(session.id))
        return self._usage_of_closed[session.id]

    def settle_session(self, session_id: str) -> Session:
        """
        Read a closed session's usage again, update the record that this task keeps, and return the session.

        Errors of Airflow are logged. Where the jobs cannot be listed, the record stays as it is.
        """
        session = self.get_session(session_id)
        jobs = self._list_session_jobs(session_id)
        if jobs is None:
            return session
        usage = self._usage_of_closed[session_id] = UsageReport.of_session(session, jobs)
        context = _current_context()
        store: Any = context.get("task_state_store") if context else None
        try:
            if store is not None and (kept := store.get(RECORD_PREFIX + session_id)):
                write_to_task_state(store, SessionRecord.parse(kept).with_usage(usage, jobs))
        except Exception:  # whatever failed, the session is closed
            self.log.warning(
                "The record of session %s was not updated; airflow ibm-quantum usage --settle does it",
                session_id,
                exc_info=True,
            )
        return session

    def estimate_usage(self, jobs: Iterable[Mapping[str, Any]]) -> UsageEstimate:
        """
        Return what jobs use at least, and its price, before they are submitted. Asks IBM nothing.

        :param jobs: Their fields: ``program_id`` and ``params``, as run-jobs takes them.
        """
        credentials = self.credentials
        return estimate_usage(validate_jobs(jobs), credentials.price_per_second, credentials.currency)

    def usage_to_json(self, usage: UsageReport) -> dict[str, Any]:
        """Return a usage as tasks leave it in the XCom ``usage``, priced by the connection."""
        return usage.to_json(self.credentials.price_per_second, self.credentials.currency)

    def _list_session_jobs(self, session_id: str) -> list[Job] | None:
        # The session is closed: what is only good to know does not delay its task for long.
        credentials = replace(self.credentials, timeout=min(self.credentials.timeout, _USAGE_TIMEOUT))
        try:
            with IBMQuantumClient(credentials, _SHORT_RETRIES) as client:
                return list(client.list_jobs(session_id=session_id))
        except IBMQuantumError as error:
            self.log.warning("The usage of the jobs of session %s is not known: %s", session_id, error)
            return None

    def _is_taken(self, session_id: str) -> bool:
        registry = self.registry
        return isinstance(registry, VariableSessionRegistry) and registry.belongs_to_other_task(session_id)

    # -- the instance ----------------------------------------------------------------------------

    def list_backends(self, max_age: float | None = None) -> list[Backend]:
        """
        List the QPUs of the instance, with wait times where the plan has them.

        All who ask in this process share one request.

        :param max_age: Seconds that the response may be old; by default 30.
        """
        return instance_reader(self.credentials).backends(self._client, max_age)

    def select_backend(self, **requirements: Any) -> str:
        """
        Return the name of the best QPU that meets the requirements, and log what it was chosen by.

        :param requirements: See :class:`BackendRequirements`: ``min_qubits``, ``order_by``, ...
        :raises NoBackendError: If none meets them; it names each, and why not.
        """
        selection = BackendRequirements.validate(**requirements).select(self.list_backends())
        self.log.info("%s", selection)
        return selection.backend.name

    def instance_usage(self, max_age: float | None = None) -> InstanceUsage:
        """
        Return what the instance has used of its limit. All who ask in this process share one request.

        :param max_age: Seconds that the response may be old; by default 30.
        :raises PermissionDeniedError: Naming the IAM action, if the key may not read it.
        """
        return instance_reader(self.credentials).usage(self._client, max_age)

    # -- jobs ------------------------------------------------------------------------------------

    def submit_job(self, program_id: str, *, backend: str, params: Mapping[str, Any], **optional: Any) -> Job:
        """Submit a job; see :meth:`IBMQuantumClient.submit_job`, and :meth:`submit_job_once`."""
        return self._client.submit_job(program_id, backend=backend, params=params, **optional)

    def submit_job_once(self, tag: str, **job: Any) -> Job:
        """Submit a job exactly once; see :func:`submit_once`."""
        return submit_once(self._client, tag, **job)

    def get_job(self, job_id: str) -> Job:
        """Read a job."""
        return self._client.get_job(job_id)

    def list_jobs(self, **filters: Any) -> Iterator[Job]:
        """Iterate over jobs, oldest first; see :class:`JobFilter` for the filters."""
        return self._client.list_jobs(**filters)

    def job_results(self, job_id: str, *, raw: bool = False) -> Any:
        """
        Return a job's results in plain values, or None if there are none.

        See :func:`decode_results`; infinite numbers are strings, as JSON has none. Those of a private job
        can be read once only.

        :param raw: Return them as IBM sends them.
        """
        raw = validate_bool(raw, "raw")
        results = self._client.job_results(job_id)
        return results if raw else decode_results(results).results

    def primitive_result(self, job_id: str) -> PrimitiveResult:
        """
        Return the results of a sampler's or an estimator's job as Qiskit's own object. Needs ``[qiskit]``.

        :raises BadResponseError: If there are none, or they are another program's.
        """
        return raw_to_primitive_result(self._client.job_results(job_id))

    def cancel_job(self, job_id: str) -> bool:
        """Cancel a job, queued or running; return False if it was final already."""
        return self._client.cancel_job(job_id)

    def list_workloads(self, **filters: Any) -> Iterator[Workload]:
        """Iterate over jobs, sessions and batches; see :class:`WorkloadFilter` for the filters."""
        return self._client.list_workloads(**filters)

    def backend_properties(self, backend: str, **query: Any) -> Any:
        """Read a QPU's calibration data; see :meth:`IBMQuantumClient.backend_properties`."""
        return self._client.backend_properties(backend, **query)

    # -- Airflow and Qiskit ----------------------------------------------------------------------

    def console_url(self, workload_id: str = "") -> str:
        """
        Return the page of a session or job, without an id that of all: IBM's console, or the emulator's.

        It is IBM's console where the connection cannot be read: the URL is wanted in messages about errors.
        """
        try:
            return console_url(workload_id, self.credentials)
        except Exception:  # noqa: BLE001  # of Airflow, and of its secrets backend, of any kind
            return console_url(workload_id)

    def test_connection(self) -> tuple[bool, str]:
        """Make a real, authenticated call that costs nothing, and describe its outcome."""
        try:
            return check_connection(self.credentials)
        except IBMQuantumError as error:
            # Airflow's form tests under a random connection id, which nobody has typed.
            return False, str(error).removeprefix(f"Connection '{self.ibm_quantum_conn_id}'").lstrip(": ")

    def qiskit_service(self) -> QiskitRuntimeService:
        """
        Return a ``QiskitRuntimeService`` on this connection. Needs the extra ``qiskit``.

        It gets its tokens from this package: the API key is not given to it. Jobs that are submitted by it
        are submitted exactly once.
        """
        from airflow_provider_ibm_sessions.hooks.qiskit import service

        return service(self.credentials)

    def qiskit_recorder(
        self, backend: str, *, use_fractional_gates: bool | None = False, calibration_id: str | None = None
    ) -> RecordingRuntimeService:
        """
        Return a ``QiskitRuntimeService`` that records the runs of primitives, and sends none.

        Its ``live_backend`` is what primitives take as ``mode``; its ``recorded_jobs`` are the jobs. Needs
        the extra ``qiskit``.

        :param backend: Name of the QPU that the jobs are for.
        :param use_fractional_gates: As for ``QiskitRuntimeService.backend``.
        :param calibration_id: As for ``QiskitRuntimeService.backend``.
        """
        from airflow_provider_ibm_sessions.hooks.qiskit_recorder import RecordingRuntimeService

        return RecordingRuntimeService(
            self.credentials,
            validate_backend(backend),
            use_fractional_gates=validate_fractional_gates(use_fractional_gates),
            calibration_id=validate_calibration_id(calibration_id),
        )

    def require_qiskit(self) -> None:
        """
        Import Qiskit, before a session is opened for it.

        :raises AirflowOptionalProviderFeatureException: If the extra ``qiskit`` is not installed.
        """
        from airflow_provider_ibm_sessions.hooks import qiskit  # noqa: F401

    def qiskit_session(
        self,
        session_id: str,
        backend: str | None = None,
        *,
        use_fractional_gates: bool | None = False,
        calibration_id: str | None = None,
    ) -> QiskitSession:
        """
        Return a ``qiskit_ibm_runtime.Session`` (or ``Batch``) bound to an existing session. Needs
        ``[qiskit]``.

        Its ``close()`` drains the session; leave that to the Dag's teardown.

        :param session_id: A session that accepts jobs.
        :param backend: The session's QPU; needed only while IBM does not name it, before the first job.
        :param use_fractional_gates: As in ``QiskitRuntimeService.backend``; also the default of the session's
            own ``service.backend()``.
        :param calibration_id: The same; the session's jobs run with it.
        """
        from airflow_provider_ibm_sessions.hooks.qiskit import service, session

        session_id = validate_id(session_id)
        backend = None if backend is None else validate_backend(backend)
        runtime = service(
            self.credentials,
            use_fractional_gates=validate_fractional_gates(use_fractional_gates),
            calibration_id=validate_calibration_id(calibration_id),
        )
        return session(runtime, self.get_session(session_id), backend)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form for Airflow before 3.2; newer ones read it from the provider's metadata."""
        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how Airflow's own fields are shown, for Airflow before 3.2."""
        return {name.replace("-", "_"): value for name, value in FIELD_BEHAVIOUR.items()}

    @cached_property
    def _client(self) -> IBMQuantumClient:
        return self.client()


def _current_context() -> Context | None:
    """Return the context of the running task, or None outside of one."""
    try:
        return get_current_context()
    except RuntimeError:
        return None
