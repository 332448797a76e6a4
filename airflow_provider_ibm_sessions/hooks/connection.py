# SPDX-License-Identifier: Apache-2.0
"""Credentials, looked up in an Airflow connection or in the environment, and Airflow's masking of secrets."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf

from airflow_provider_ibm_sessions.client.credentials import (
    DEFAULT_API_VERSION,
    DEFAULT_CURRENCY,
    DEFAULT_IAM_URL,
    DEFAULT_TIMEOUT,
    ENV_API_KEY,
    ENV_CRN,
    Credentials,
)
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import validate_bool
from airflow_provider_ibm_sessions.exceptions import AirflowApiUnavailableError
from airflow_provider_ibm_sessions.hooks import DEFAULT_CONN_ID
from airflow_provider_ibm_sessions.hooks.airflow_lookup import ensure_connection_absent, has_secrets_backend

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook, Connection

_FORM_NAMES: Final = {"api_key": "password", "url": "host"}

_LOOK_UP_SECONDS: Final = 30.0
"""Seconds for which all hooks of an event loop share one look-up of a connection."""

_look_ups: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Task[Credentials]] = {}


def look_up_credentials(hook: BaseHook, conn_id: str) -> Credentials:
    """
    Return the credentials of a connection, or else those that stand in for it.

    :param hook: Looks the connection up.
    :raises ConfigurationError: If there are none, or a field is wrong.
    :raises AirflowApiUnavailableError: If the connection may only be out of reach.
    """
    try:
        return credentials_from_connection(hook.get_connection(conn_id))
    except AirflowNotFoundException:
        return credentials_without_connection(conn_id)


async def alook_up_credentials(
    hook: BaseHook, conn_id: str, *, refused: Credentials | None = None
) -> Credentials:
    """
    Return the same inside of an event loop, whose hooks look a connection up together.

    :param refused: What an earlier look-up has found, and IBM refuses: that look-up is shared no more.
    """
    loop = asyncio.get_running_loop()
    key = loop, conn_id
    look_up = _look_ups.get(key)
    if refused and look_up and look_up.done() and not look_up.exception() and look_up.result() is refused:
        look_up = None
    if look_up is None:
        for old in [each for each in list(_look_ups) if each[0].is_closed()]:
            _look_ups.pop(old, None)
        look_up = _look_ups[key] = loop.create_task(_alook_up(hook, conn_id))
        forget = partial(_look_ups.pop, key, None)
        loop.call_later(_LOOK_UP_SECONDS, forget)
        # An error is not kept.
        look_up.add_done_callback(lambda done: (done.cancelled() or done.exception()) and forget())
    # Shielded: a caller that is cancelled leaves, and the others wait on.
    return await asyncio.shield(look_up)


async def _alook_up(hook: BaseHook, conn_id: str) -> Credentials:
    try:
        connection = await hook.aget_connection(conn_id)
    except AirflowNotFoundException:
        # In `dag.test()`, a trigger does not get it by awaiting it.
        return await asyncio.to_thread(look_up_credentials, hook, conn_id)
    # In a thread: a file of CA certificates may have to be read.
    return await asyncio.to_thread(credentials_from_connection, connection)


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


def mask_secret(secret: str) -> None:
    """Hide a string in every log of this process, as Airflow does with a connection's password."""
    from airflow.sdk.log import mask_secret as mask

    mask(secret)


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
