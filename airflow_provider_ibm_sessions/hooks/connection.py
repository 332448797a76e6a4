# SPDX-License-Identifier: Apache-2.0
"""Credentials from a connection or the environment, the connection test, and Airflow's masking of secrets."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
from airflow.providers.common.compat.sdk import conf

from airflow_provider_ibm_sessions.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.credentials import (
    DEFAULT_API_VERSION,
    DEFAULT_CURRENCY,
    DEFAULT_IAM_URL,
    DEFAULT_TIMEOUT,
    ENV_API_KEY,
    ENV_CRN,
    Credentials,
)
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError, TransportError
from airflow_provider_ibm_sessions.client.retries import NO_RETRY
from airflow_provider_ibm_sessions.client.validation import validate_bool
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.hooks.airflow_lookup import ensure_connection_absent, has_secrets_backend

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

CHECK_TIMEOUT: Final = 4.0
"""Seconds for each exchange of the connection test. One with IAM and one with the API fit its deadline."""
CHECK_DEADLINE: Final = 9.0
"""Seconds for the connection test as a whole, names that do not resolve included."""

_FORM_NAMES: Final = {"api_key": "password", "url": "host"}


def credentials_from_connection(connection: Connection) -> Credentials:
    """
    Read a connection of the type ``ibm_quantum``.

    :raises ConfigurationError: Naming the connection, the field that is wrong and what is allowed.
    """
    try:
        extra = _extra(connection)
        return Credentials(
            api_key=connection.password or "",
            crn=extra.get("crn", ""),
            api_version=extra.get("api_version", DEFAULT_API_VERSION),
            url=_url(connection),
            iam_url=extra.get("iam_url", DEFAULT_IAM_URL),
            private_endpoint=extra.get("private_endpoint", False),
            proxy=extra.get("proxy"),
            verify=_verify(extra.get("verify", True)),
            timeout=_number(extra.get("timeout", DEFAULT_TIMEOUT)),
            emulator=extra.get("emulator", False),
            price_per_second=extra.get("price_per_second"),
            currency=extra.get("currency", DEFAULT_CURRENCY),
        )
    except ConfigurationError as error:
        name = _FORM_NAMES.get(error.field or "")
        hint = f" (field {name} of the form)" if name else ""
        raise ConfigurationError(
            f"Connection '{connection.conn_id}'{hint}: {error.message}", field=error.field
        ) from None


def credentials_without_connection(conn_id: str) -> Credentials:
    """
    Return the environment's credentials, where Airflow has found no connection.

    They stand in for the default connection only. In an Airflow of several teams they stand in for none: all
    teams have the same environment, and one must not pay for another.

    :raises ConfigurationError: If the environment has nothing for this connection id, either.
    :raises AirflowApiUnavailableError: If the connection may only be out of reach.
    """
    ensure_connection_absent(conn_id)
    missing = f"There is no Airflow connection '{conn_id}'"
    if conn_id == DEFAULT_CONN_ID:
        has_env = bool(os.environ.get(ENV_API_KEY) or os.environ.get(ENV_CRN))
        if not has_env:
            missing += f", and neither {ENV_API_KEY} nor {ENV_CRN} is set in the environment"
        elif conf.getboolean("core", "multi_team", fallback=False):
            missing += f". Add it to the team: with [core] multi_team, {ENV_API_KEY} is used for no team"
        else:
            mask_secret(os.environ.get(ENV_API_KEY, ""))
            return Credentials.from_env()
    if has_secrets_backend():
        raise AirflowApiUnavailableError(f"{missing}, or the secrets backend does not answer")
    raise ConfigurationError(missing, field="ibm_quantum_conn_id") from None


def check_connection(credentials: Credentials) -> tuple[bool, str]:
    """
    Make a real, authenticated call that costs nothing, and describe its outcome.

    Answers within ten seconds: each exchange is sent once with a short timeout. Beside the call that needs a
    token, one that needs none is made, which tells an API that does not answer from an IAM that does not.

    :returns: True and what was found, or False and what is wrong: which of IAM, API and proxy does not
        answer, or what they refuse.
    """
    quick = replace(credentials, timeout=min(credentials.timeout, CHECK_TIMEOUT))
    authenticated, public = _Probe(quick, "list_backends"), _Probe(quick, "list_versions")
    for probe in (authenticated, public):
        probe.start()
    authenticated.join(CHECK_DEADLINE)
    if authenticated.error is None and authenticated.result is not None:
        names = sorted(backend.name for backend in authenticated.result)
        kind = "This is an emulator. " if credentials.emulator else ""
        return True, (
            f"{kind}The API key and the CRN are accepted. Region {credentials.region}, {len(names)} QPU(s)"
            f"{': ' if names else ''}{', '.join(names[:10])}"
        )
    public.join(CHECK_TIMEOUT / 4)
    return False, _describe_failure(credentials, authenticated, public)


def mask_secret(secret: str) -> None:
    """Hide a string in every log of this process, as Airflow does with a connection's password."""
    from airflow.sdk.log import mask_secret as mask

    mask(secret)


class _Probe(threading.Thread):
    """One call of the connection test. A daemon: a name that does not resolve must not delay the exit."""

    def __init__(self, credentials: Credentials, method: str) -> None:
        super().__init__(daemon=True, name=f"ibm-quantum-test-{method}")
        self._credentials = credentials
        self._method = method
        self.result: Any = None
        self.error: IBMQuantumError | None = None

    def run(self) -> None:
        """Make the call, and keep its result or its error."""
        try:
            with IBMQuantumClient(self._credentials, NO_RETRY) as client:
                call: Callable[[], Any] = getattr(client, self._method)
                self.result = call()
        except IBMQuantumError as error:
            self.error = error


def _describe_failure(credentials: Credentials, authenticated: _Probe, public: _Probe) -> str:
    """Say which of IAM, API and proxy does not answer, or what was refused."""
    error = authenticated.error
    if error is not None and not isinstance(error, TransportError):
        return str(error)
    api, iam = (urlsplit(url).netloc for url in (credentials.url, credentials.iam_url))
    proxy = urlsplit(credentials.proxy.reveal()) if credentials.proxy else None
    if proxy and error and isinstance(error.__context__, httpx.ProxyError | httpx.ConnectError):
        place = f"The proxy {proxy.hostname}:{proxy.port or 80}"
        advice = "check proxy"
    elif public.result is None:
        place, advice = f"The API at {api}", "check host and crn, and that this machine may reach it"
    else:
        place, advice = f"IAM at {iam}", "check iam_url, and that this machine may reach it"
    reason = f". {error.message}" if error else ""
    return f"{place} does not answer: {advice}{reason}"


def _extra(connection: Connection) -> dict[str, Any]:
    """
    Return the extra fields that are filled in.

    Not ``extra_dejson``: it would call the supervisor, which must not be done inside an event loop.
    """
    try:
        extra = json.loads(connection.extra or "{}")
    except (ValueError, RecursionError):
        extra = None
    if not isinstance(extra, Mapping):
        raise ConfigurationError("extra must be a JSON object", field="extra")
    return {name: value for name, value in extra.items() if value is not None and value != ""}


def _url(connection: Connection) -> str:
    """Return the host field as a URL, with the port and schema fields, which a connection URI fills."""
    host = (connection.host or "").rstrip("/")
    if not host:
        return ""
    url = host if "://" in host else f"https://{host}"
    try:
        has_port = urlsplit(url).port is not None
    except ValueError:  # the credentials say what is wrong with it
        return url
    if connection.port and not has_port:
        scheme, _, rest = url.partition("://")
        netloc, slash, path = rest.partition("/")
        url = f"{scheme}://{netloc}:{connection.port}{slash}{path}"
    return f"{url}/{connection.schema}" if connection.schema else url


def _verify(value: object) -> Any:
    """Return ``"true"`` and ``"false"`` as booleans; other strings are paths, which the credentials check."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return validate_bool(value, "verify")
    return value


def _number(value: object) -> Any:
    """Return a number that the form keeps as a string; the credentials refuse what is none."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
