# SPDX-License-Identifier: Apache-2.0
"""The connection test: does IBM accept the credentials, and if not, what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from airflow_provider_ibm_sessions.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError, TransportError
from airflow_provider_ibm_sessions.client.retries import NO_RETRY

CHECK_TIMEOUT: Final = 4.0
"""Seconds for each exchange of the connection test. One with IAM and one with the API fit its deadline."""
CHECK_DEADLINE: Final = 9.0
"""Seconds for the connection test as a whole, names that do not resolve included."""


def check_connection(credentials: Credentials) -> tuple[bool, str]:
    """
    Make a real, authenticated call that costs nothing, and describe its outcome.

    Answers within ten seconds: each exchange is sent once with a short timeout. Beside the call that needs a
    token, one that needs none is made, which tells an API that does not answer from an IAM that does not.

    :returns: True and what was found, or False and what is wrong: which of IAM, API and proxy does not
        answer, or what they refuse.
    """
    quick = replace(credentials, timeout=min(credentials.timeout, CHECK_TIMEOUT))
    authenticated = _Probe(quick, "list_backends")
    public = _Probe(quick, "list_versions")
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
