# SPDX-License-Identifier: Apache-2.0
"""
Qiskit on an Airflow connection.

Qiskit's own client repeats POSTs after errors of the server, which runs a job twice; waits without a timeout;
sends the raw API key to the API when IAM does not answer; and logs to stderr. Here it is given neither the
key nor a connection: each of its requests is sent by this package's client, whose token, timeouts, limits
and retries hold for it too. Its jobs are submitted exactly once, each under a tag of its own.

Only this module and ``qiskit_recorder`` use private parts of Qiskit. They are checked when a service is made.
"""

from __future__ import annotations

import io
import json
import logging
import re
import secrets
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, cast

import httpx
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

from airflow_provider_ibm_sessions.client import IBMQuantumClient, SessionMode, responses
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.errors import (
    SESSION_CLOSED_CODE,
    ConfigurationError,
    IBMQuantumError,
    RateLimitedError,
    RequestRejectedError,
)
from airflow_provider_ibm_sessions.client.exchange import MAX_PAYLOAD_BYTES
from airflow_provider_ibm_sessions.client.operations import SUBMIT_JOB, Operation, Safety
from airflow_provider_ibm_sessions.client.results import check_for_qiskit
from airflow_provider_ibm_sessions.client.submission import add_tag, post_once
from airflow_provider_ibm_sessions.hooks.qiskit_logs import quiet_chatty_loggers
from airflow_provider_ibm_sessions.links import console_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qiskit_ibm_runtime import IBMBackend
    from requests import PreparedRequest, Response

    from airflow_provider_ibm_sessions.client import Session as IBMSession
    from airflow_provider_ibm_sessions.client.models.jobs import Job

log = logging.getLogger(__name__)

quiet_chatty_loggers()
try:
    from qiskit.providers import JobError
    from qiskit_ibm_runtime import Batch, QiskitRuntimeService, Session
    from qiskit_ibm_runtime.exceptions import RuntimeInvalidStateError, RuntimeJobMaxTimeoutError
    from requests.adapters import BaseAdapter, HTTPAdapter
    from urllib3 import HTTPResponse
except ImportError as error:
    raise AirflowOptionalProviderFeatureException(
        "Qiskit is not installed: pip install 'airflow-provider-ibm-sessions[qiskit]'"
    ) from error

PLACEHOLDER_API_KEY: Final = "the-api-key-stays-with-airflow"
"""Given to Qiskit in place of the key. Should its internals change, this is all it can send."""

_SAFETY: Final = {
    "GET": Safety.SAFE,
    "HEAD": Safety.SAFE,
    "PUT": Safety.IDEMPOTENT,
    "PATCH": Safety.IDEMPOTENT,
    "DELETE": Safety.IDEMPOTENT,
}
# The client sets these itself; the authorization is Qiskit's placeholder, should there be one.
_OWN_HEADERS: Final = ("authorization", "service-crn", "accept-encoding", "connection", "content-length")

_ended_sessions: dict[str, set[str]] = {}
"""By session id, how Qiskit was asked to end it: PATCH by ``close()``, DELETE by ``cancel()``."""


def route_logs() -> None:
    """
    Let Qiskit log through Airflow, at its own levels.

    Qiskit attaches a handler that writes to stderr, all of which Airflow shows as errors.
    """
    logger = logging.getLogger("qiskit_ibm_runtime")
    for handler in list(logger.handlers):
        if type(handler) is logging.StreamHandler:
            logger.removeHandler(handler)
    logger.propagate = True
    # Each service would warn that it uses the connection, and no account that a user has saved.
    warning = "A saved account will not be used"
    logging.getLogger(f"{logger.name}.qiskit_runtime_service").addFilter(
        lambda record: warning not in str(record.msg)
    )


route_logs()


class ClientAdapter(BaseAdapter):
    """
    A transport of ``requests`` that sends through :class:`IBMQuantumClient`.

    What holds for the client's own requests holds for Qiskit's: the bearer token and its refresh, the timeout
    of each exchange, proxy and certificates, limits on the size of responses, no redirects, and the retry
    policy. A POST is sent again only if it was surely not carried out; a job is submitted exactly once.

    :param read_only: Refuse requests that change something at IBM.
    """

    def __init__(self, credentials: Credentials, *, read_only: bool = False) -> None:
        super().__init__()
        self._read_only = read_only
        self._console_url = partial(console_url, credentials=credentials)
        self._client = IBMQuantumClient(credentials)
        self._base_url = credentials.url
        self._crn = credentials.crn
        self._responses = HTTPAdapter()

    def __deepcopy__(self, _memo: dict[int, Any]) -> ClientAdapter:
        """Return itself: Qiskit copies what it holds, and connections are not copied."""
        return self

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:
        """
        Send one of Qiskit's requests. Timeout, certificates and proxies are the connection's, not Qiskit's.

        :raises OutcomeUnknownError: If it is a POST that may have been carried out, and, of a job, that IBM
            does not list.
        :raises IBMQuantumError: If there is no complete response, or one that can only be tried again.
        """
        method = request.method or "GET"
        url = request.url or ""
        if self._read_only and _SAFETY.get(method) is not Safety.SAFE:
            raise ConfigurationError(
                "Nothing is sent while a function of @task.ibm_quantum_jobs runs: give primitives "
                "mode=backend. The task itself opens the session or batch, and submits the jobs "
                f"(Qiskit's {method} {httpx.URL(url).path})"
            )
        if not url.startswith(f"{self._base_url}/"):
            raise ConfigurationError(
                f"Qiskit's request to {httpx.URL(url).host} is not sent: the connection is for "
                f"{self._base_url}",
                field="url",
            )
        path = url.removeprefix(self._base_url).partition("?")[0]
        if method in ("PATCH", "DELETE") and path.startswith("/v1/sessions/"):
            _ended_sessions.setdefault(path.split("/")[3], set()).add(method)
        operation = Operation[httpx.Response](
            name="qiskit",
            method=method,
            path=path,
            summary=f"Qiskit's {method} {path}",
            safety=_SAFETY.get(method, Safety.NON_IDEMPOTENT),
            reader=_read,
            large_payload=True,
            max_bytes=MAX_PAYLOAD_BYTES,
        )
        headers = {
            name: str(value) for name, value in request.headers.items() if name.lower() not in _OWN_HEADERS
        }
        if request.headers.get("Accept", "*/*") == "*/*":
            headers["Accept"] = "application/json"
        headers |= {"Service-CRN": self._crn, "Accept-Encoding": "identity"}

        message = httpx.Request(method, url, headers=headers, content=cast("Any", request.body))
        if (method, path) == (SUBMIT_JOB.method, SUBMIT_JOB.path):
            response = self._submit_once(operation, message)
        else:
            response = self._client.send(operation, message)
        if "/jobs/" in path:  # results, and the parameters of a job, which are encoded alike
            check_for_qiskit(response.content)
        answer: Response = self._responses.build_response(
            request,
            HTTPResponse(
                io.BytesIO(response.content),
                headers=dict(response.headers),
                status=response.status_code,
                reason=response.reason_phrase,
                preload_content=False,
                decode_content=False,
                request_method=method,
            ),
        )
        return answer

    def _submit_once(self, operation: Operation[Any], message: httpx.Request) -> httpx.Response:
        """
        Submit a job exactly once, under one more tag, by which it is found if the response is lost.

        :returns: IBM's response if the job is refused, since Qiskit has errors of its own for that; else one
            with the fields that the response to a submission has.
        """
        fields = json.loads(message.content)
        tag = f"airflow-{secrets.token_hex(10)}-qiskit"
        fields["tags"] = add_tag(fields.get("tags"), tag, "job_tags")
        headers = {name: value for name, value in message.headers.items() if name != "content-length"}
        content = json.dumps(fields).encode()
        received = list[httpx.Response]()

        def read(response: httpx.Response, action: str) -> Job:
            received.append(response)
            return replace(SUBMIT_JOB, summary=action).read(response)

        def post() -> Job:
            received.clear()
            request = httpx.Request(message.method, message.url, headers=headers, content=content)
            job: Job = self._client.send(replace(operation, reader=read), request)
            return job

        try:
            job = post_once(self._client, tag, post)
        except RateLimitedError:
            raise
        except RequestRejectedError:
            if not received:  # it was IAM that refused
                raise
            return received[-1]
        log.info("Submitted job %s: %s", job.id, self._console_url(job.id))
        fields = job.model_dump(mode="json", include={"id", "backend", "session_id", "private"})
        return httpx.Response(httpx.codes.OK, json=fields)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AirflowRuntimeService(QiskitRuntimeService):  # type: ignore[misc]
    """
    A ``QiskitRuntimeService`` for one instance, whose requests this package sends.

    :param backend_options: Defaults of :meth:`backend`.
    """

    read_only = False

    def __init__(self, credentials: Credentials, **backend_options: Any) -> None:
        self._credentials = credentials
        self._backend_options = backend_options
        super().__init__(
            channel="ibm_quantum_platform",
            token=PLACEHOLDER_API_KEY,
            instance=credentials.crn,
            private_endpoint=credentials.private_endpoint,
            url_resolver=lambda *_: f"{credentials.url}/v1",
        )
        for part in ("_client_params", "_active_api_client"):
            if part not in self.__dict__:
                raise incompatible(f"QiskitRuntimeService.{part}")

    def backend(self, name: str, instance: str | None = None, **options: Any) -> IBMBackend:
        """Return the backend as every primitive of this service's session uses it."""
        return super().backend(name, instance, **{**self._backend_options, **options})

    def instances(self) -> Sequence[dict[str, Any]]:
        """Return the connection's instance; there is nothing to search for."""
        crn = self._account.instance
        return [{"crn": crn, "plan": "unknown", "name": crn, "tags": [], "pricing_type": "unknown"}]

    @property
    def _client_params(self) -> Any:
        """Return Qiskit's connection parameters, changed so that it never authenticates by itself."""
        return self.__dict__["_client_params"]

    @_client_params.setter
    def _client_params(self, parameters: Any) -> None:
        if not hasattr(parameters, "get_auth_handler"):
            raise incompatible("ClientParameters.get_auth_handler")
        parameters.get_auth_handler = lambda: _unchanged
        self.__dict__["_client_params"] = parameters

    @property
    def _active_api_client(self) -> Any:
        """Return Qiskit's REST client, changed so that its requests go through this package's client."""
        return self.__dict__["_active_api_client"]

    @_active_api_client.setter
    def _active_api_client(self, client: Any) -> None:
        # Qiskit sets each client that it makes here before it uses it.
        session: Any = getattr(client, "_session", None)
        if not hasattr(session, "mount") or not hasattr(session, "adapters"):
            raise incompatible("RuntimeClient._session")
        if not isinstance(session.adapters.get(""), ClientAdapter):
            session.adapters.clear()
            session.mount("", ClientAdapter(self._credentials, read_only=self.read_only))
        self.__dict__["_active_api_client"] = client


def service(credentials: Credentials, **backend_options: Any) -> QiskitRuntimeService:
    """
    Return Qiskit's service for the instance of these credentials.

    :param backend_options: Defaults of its ``backend()``: ``use_fractional_gates``, ``calibration_id``.
    """
    return AirflowRuntimeService(credentials, **backend_options)


def session(runtime: QiskitRuntimeService, details: IBMSession, backend: str | None = None) -> Session:
    """
    Bind Qiskit's ``Session`` or ``Batch`` to an existing session.

    ``Session.from_id`` is not used: it refuses a session whose ``backend_name`` IBM has not filled in yet.

    :raises ConfigurationError: If neither IBM nor the caller names the backend.
    """
    name = details.backend_name or backend
    if not name:
        raise ConfigurationError(
            f"backend must be given: IBM does not name that of session {details.id} before its first job",
            field="backend",
        )
    kind = Batch if details.mode == SessionMode.BATCH else Session
    bound = kind(runtime.backend(name), create_new=False)
    for part in ("_session_id", "_active"):
        if not hasattr(bound, part):
            raise incompatible(f"Session.{part}")
    bound._session_id = details.id
    bound._active = not details.is_closed
    return bound


def has_ended_session(session_id: str, *, by_cancel: bool) -> bool:
    """
    Return True if the program itself has ended a session through Qiskit, in this process.

    :param by_cancel: Count ``Session.cancel()`` only. After ``close()``, which ``with session:`` calls,
        queued jobs run: it is no cause of IBM's code 1217.
    """
    methods = _ended_sessions.get(session_id, set())
    return "DELETE" in methods if by_cancel else bool(methods)


def is_job_failure(error: BaseException) -> bool:
    """Return True if an error is Qiskit's of a job that failed, was cancelled, or took too long."""
    return isinstance(error, JobError | RuntimeJobMaxTimeoutError | RuntimeInvalidStateError)


def says_session_closed(error: BaseException) -> bool:
    """Return True if an error of Qiskit or of this package has IBM's code of a closed session."""
    if isinstance(error, IBMQuantumError):
        return error.code == SESSION_CLOSED_CODE
    # Qiskit has the code of a job in the text alone, and of a submission IBM's response.
    return re.search(rf"code[ \"':]+{SESSION_CLOSED_CODE}\b", str(error)) is not None


def _read(response: httpx.Response, action: str) -> httpx.Response:
    """Return a response for Qiskit to read; raise the errors that the retry policy is about."""
    retryable = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
    if response.is_redirect or response.is_server_error or response.status_code in retryable:
        responses.raise_for_status(response, action)
    return response


def _unchanged(request: PreparedRequest) -> PreparedRequest:
    """Authenticate nothing: the client does, after this."""
    return request


def incompatible(part: str) -> AirflowOptionalProviderFeatureException:
    """Return the error for a release of Qiskit without a part that is used here."""
    return AirflowOptionalProviderFeatureException(
        f"qiskit-ibm-runtime {version('qiskit-ibm-runtime')} has no {part}: this release of "
        "airflow-provider-ibm-sessions does not work with it. Upgrade the provider, or downgrade Qiskit"
    )
