# SPDX-License-Identifier: Apache-2.0
"""
Qiskit on an Airflow connection.

Qiskit's own client falls back to sending the raw API key to the API when IAM does not answer, and asks IBM
Cloud's global search which instances the key may use. Here it does neither: it is given a bearer token from
this package's cache for each request, never the key, and the instance is the connection's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpx
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

try:
    from qiskit_ibm_runtime import Batch, QiskitRuntimeService, Session
    from requests.auth import AuthBase
except ImportError as error:
    raise AirflowOptionalProviderFeatureException(
        "Qiskit is not installed: pip install 'airflow-provider-ibm-sessions[qiskit]'"
    ) from error

from airflow_provider_ibm_sessions.client import IBMQuantumClient, SessionMode
from airflow_provider_ibm_sessions.client.auth import CONNECT_TIMEOUT
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from requests import PreparedRequest, Response

    from airflow_provider_ibm_sessions.client import Session as IBMSession

PLACEHOLDER_API_KEY: Final = "the-api-key-stays-with-airflow"
"""What Qiskit is given in place of the key. Should its internals change, this is all it can leak."""


class BearerAuth(AuthBase):
    """Puts this process's token on Qiskit's requests, renewed ahead of time and once after a 401."""

    def __init__(self, credentials: Credentials) -> None:
        self._client = IBMQuantumClient(credentials)
        self._crn = credentials.crn

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Called by requests for each request."""
        self._authorize(request)
        request.register_hook("response", self._retry_after_401)
        return request

    def __deepcopy__(self, _memo: dict[int, Any]) -> BearerAuth:
        """Qiskit copies its parameters; the connections and the token are shared on purpose."""
        return self

    def _authorize(self, request: PreparedRequest) -> None:
        request.headers["Authorization"] = self._client.authorization()
        request.headers["Service-CRN"] = self._crn

    def _retry_after_401(self, response: Response, **options: Any) -> Response:
        """After a 401, which means that nothing was done, send the request again with a new token."""
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return response
        _ = response.content  # read to its end, so that the connection can be used again
        response.close()
        again = response.request.copy()
        self._client.invalidate_token(str(again.headers["Authorization"]))
        self._authorize(again)
        reply: Response = response.connection.send(again, **options)
        reply.history.append(response)
        return reply


class AirflowRuntimeService(QiskitRuntimeService):  # type: ignore[misc]
    """A ``QiskitRuntimeService`` for one instance, authenticated by this package."""

    def __init__(self, credentials: Credentials) -> None:
        self._bearer = BearerAuth(credentials)
        # Qiskit's own default waits for a reply for ever.
        self._timeout = (CONNECT_TIMEOUT, credentials.timeout)
        proxy = credentials.proxy
        super().__init__(
            channel="ibm_quantum_platform",
            token=PLACEHOLDER_API_KEY,
            instance=credentials.crn,
            verify=credentials.verify,
            private_endpoint=credentials.private_endpoint,
            proxies={"urls": {"http": proxy, "https": proxy}} if proxy else None,
            url_resolver=lambda *_: f"{credentials.url}/v1",
        )

    def instances(self) -> Sequence[dict[str, Any]]:
        """The connection's instance; there is nothing to search for."""
        crn = self._account.instance
        return [{"crn": crn, "plan": "unknown", "name": crn, "tags": [], "pricing_type": "unknown"}]

    @property
    def _client_params(self) -> Any:
        """Qiskit's connection parameters, made to authenticate by bearer token only."""
        return self.__dict__["_client_params"]

    @_client_params.setter
    def _client_params(self, parameters: Any) -> None:
        parameters.get_auth_handler = lambda: self._bearer
        asked = parameters.connection_parameters()
        parameters.connection_parameters = lambda: {**asked, "timeout": self._timeout}
        self.__dict__["_client_params"] = parameters


def service(credentials: Credentials) -> QiskitRuntimeService:
    """Return Qiskit's service for the instance of these credentials."""
    return AirflowRuntimeService(credentials)


def session(runtime: QiskitRuntimeService, details: IBMSession, backend: str | None = None) -> Session:
    """
    Bind Qiskit's ``Session`` or ``Batch`` to an existing session.

    ``Session.from_id`` is not used: it refuses a session whose ``backend_name`` IBM has not filled in yet.

    :raises ConfigurationError: If neither IBM nor the caller names the backend.
    """
    name = details.backend_name or backend
    if not name:
        raise ConfigurationError(
            f"backend must be given: IBM does not name that of {details.id} yet", field="backend"
        )
    kind = Batch if details.mode == SessionMode.BATCH else Session
    bound = kind(runtime.backend(name), create_new=False)
    bound._session_id = details.id
    bound._active = not details.is_closed
    return bound
