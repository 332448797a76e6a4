# SPDX-License-Identifier: Apache-2.0
"""State of one request that the client, the authentication and the transport share."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

import httpx

from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import looks_like_secret

IAM: Final = "IAM"
MAX_RESPONSE_BYTES: Final = 2**20
"""A session or a job is described in a few KB, an IAM token in two."""
MAX_LIST_BYTES: Final = 4 * 2**20
"""20 KiB for each of the 200 jobs of a page, which take about 1 KB each."""
MAX_PAYLOAD_BYTES: Final = 512 * 2**20
"""A user's own data: circuits, results, logs. Results take 7 bytes for each shot."""

_EXTENSION: Final = "ibm_quantum"


def _no_timeout() -> None:
    """Do nothing: no timeout is running."""


@dataclass(slots=True)
class Exchange:
    """
    One request and its response, as carried in the request's extensions.

    :param action: What is being done, in a few words; begins every error message about it.
    :param service: Who is asked: ``the API`` or :data:`IAM`.
    :param credentials: Whose secrets must not stand in an error.
    :param large_payload: True if request or response carry a user's data, which may take long.
    :param max_bytes: Most bytes that the response may have.
    :param sent: Set when the request itself, not the one for a token, is handed to the network.
    :param refreshing_token: Set while a token is renewed that is still valid.
    :param restart_timeout: Called when the request is handed over: its own time begins, that of IAM is over.
    :param in_thread: Set while the response is read in a thread of its own, beside an event loop.
    """

    action: str
    service: str
    credentials: Credentials
    large_payload: bool = False
    max_bytes: int = MAX_RESPONSE_BYTES
    sent: bool = False
    refreshing_token: bool = False
    restart_timeout: Callable[[], None] = _no_timeout
    in_thread: bool = False

    def attach(self, request: httpx.Request) -> httpx.Request:
        """
        Return the request with this as its exchange.

        :raises ConfigurationError: If the API key stands in a request that does not go to IAM, as where it is
            given in place of a backend or a session id.
        """
        key = self.credentials.api_key.reveal()
        # A shorter one is an emulator's, and may be a word.
        if self.service != IAM and looks_like_secret(key):
            forms = {key, quote_plus(key), quote(key, safe="")}
            if any(form in str(request.url) or form.encode() in request.content for form in forms):
                raise ConfigurationError(
                    f"{self.action}: not sent, because the API key stands in an argument: it belongs "
                    "into the password of the connection only",
                    field="api_key",
                )
        request.extensions[_EXTENSION] = self
        return request

    @property
    def secrets(self) -> list[str]:
        """Return the API key and the proxy's credentials in all forms in which they are sent."""
        key = self.credentials.api_key.reveal()
        secrets: list[str] = []
        proxy = urlsplit(self.credentials.proxy.reveal() if self.credentials.proxy else "")
        if proxy.username is not None:
            user = unquote(proxy.username)
            password = unquote(proxy.password or "")
            secrets = [b64encode(f"{user}:{password}".encode()).decode(), proxy.password or proxy.username]
            secrets += [password or user]
        return [secret for secret in (key, quote_plus(key), quote(key, safe=""), *secrets) if secret]


def exchange_of(request: httpx.Request) -> Exchange | None:
    """Return the exchange that a request belongs to."""
    exchange: Exchange | None = request.extensions.get(_EXTENSION)
    return exchange
