# SPDX-License-Identifier: Apache-2.0
"""From an Airflow connection to credentials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_ibm_sessions.client.credentials import (
    DEFAULT_API_VERSION,
    DEFAULT_IAM_URL,
    DEFAULT_TIMEOUT,
    Credentials,
)
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import validate_bool

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


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
            private_endpoint=validate_bool(extra.get("private_endpoint", False), "private_endpoint"),
            proxy=extra.get("proxy"),
            verify=_verify(extra.get("verify", True)),
            timeout=_number(extra.get("timeout", DEFAULT_TIMEOUT)),
        )
    except ConfigurationError as error:
        hint = " (the connection's password)" if error.field == "api_key" else ""
        raise ConfigurationError(
            f"Connection '{connection.conn_id}'{hint}: {error.message}", field=error.field
        ) from None


def _extra(connection: Connection) -> dict[str, Any]:
    """
    The extra fields that are filled in.

    Not ``extra_dejson``: it would call the supervisor, which must not be done inside an event loop.
    """
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, Mapping):
        raise ConfigurationError("extra must be a JSON object", field="extra")
    return {name: value for name, value in extra.items() if value is not None and value != ""}


def _url(connection: Connection) -> str:
    """The host field as a URL; the port and schema fields, which a connection URI fills, are added."""
    host = (connection.host or "").rstrip("/")
    if not host:
        return ""
    url = host if "://" in host else f"https://{host}"
    if connection.port and urlsplit(url).port is None:
        scheme, _, rest = url.partition("://")
        netloc, slash, path = rest.partition("/")
        url = f"{scheme}://{netloc}:{connection.port}{slash}{path}"
    return f"{url}/{connection.schema}" if connection.schema else url


def _verify(value: object) -> Any:
    """``true`` and ``false`` as text are booleans; other text is a path, which the credentials check."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return validate_bool(value, "verify")
    return value


def _number(value: object) -> Any:
    """A number that the form keeps as text; what is none is left for the credentials to refuse."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
