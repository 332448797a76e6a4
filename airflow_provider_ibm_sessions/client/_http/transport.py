# SPDX-License-Identifier: Apache-2.0
"""How one exchange with IBM is made and bounded, and how its failures become errors of ours."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from typing import Any, Final, TypeVar, cast

import httpx

from airflow_provider_ibm_sessions.client._http import tls
from airflow_provider_ibm_sessions.client._http.proxies import proxy_url
from airflow_provider_ibm_sessions.client._http.timeouts import (
    BODY_READ,
    AsyncStream,
    install_small_steps,
    install_total_timeout,
)
from airflow_provider_ibm_sessions.client.auth import timeouts
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConfigurationError,
    IBMQuantumError,
    TransportError,
)
from airflow_provider_ibm_sessions.client.exchange import MAX_RESPONSE_BYTES, Exchange, exchange_of
from airflow_provider_ibm_sessions.client.models.base import single_line
from airflow_provider_ibm_sessions.client.responses import redact

LARGE_PAYLOAD_TIMEOUT_FACTOR: Final = 10
"""So many times the connection's timeout may be taken by an exchange that carries a user's data."""
KEEP_ALIVE: Final = 30.0
MAX_CONNECTIONS: Final = 20
"""
Of one HTTP client, which has at most ten exchanges at once, with the API and with IAM. There is always room
for another connection: httpcore never closes an idle one to make some, which might just have been assigned.
"""

PARTS_PER_TURN: Final = 64
"""Parts of a body that are read in an event loop before its other tasks have a turn."""

_NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
TransportT = TypeVar("TransportT", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


class LimitedStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """
    The bytes of a response, as long as they are not too many.

    In an event loop, a body that comes in many small parts leaves turns to other tasks.

    :param cut: Leave out what exceeds ``max_bytes``: of an error, the status tells enough.
    :raises BadResponseError: While they are read, when they exceed ``max_bytes`` and are not cut.
    """

    def __init__(self, response: httpx.Response, max_bytes: int, action: str, *, cut: bool) -> None:
        self._stream = cast("Any", response.stream)
        connection = response.extensions.get("network_stream")
        self._connection = connection if isinstance(connection, AsyncStream) else None
        self._max_bytes = self._left = max_bytes
        self._action = action
        self._cut = cut

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if self._exceeded_by(chunk):
                return
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = 0
        joined = bytearray()
        self._note_body()
        async for chunk in self._stream:
            if self._exceeded_by(chunk):
                break
            parts += 1
            if parts % PARTS_PER_TURN == 0:
                await asyncio.sleep(0)
            self._note_body()
            joined += chunk  # to join a million parts at the end would take a tenth of a second
            if len(joined) >= BODY_READ:
                yield bytes(joined)
                joined.clear()
        yield bytes(joined)

    def _note_body(self) -> None:
        if self._connection:
            self._connection.note_body()

    def _exceeded_by(self, chunk: bytes) -> bool:
        self._left -= len(chunk)
        if self._left < 0 and not self._cut:
            raise BadResponseError(f"{self._action}: the response is longer than {self._max_bytes:,} bytes")
        return self._left < 0

    def close(self) -> None:
        """Close the stream for a blocking httpx client."""
        self._stream.close()

    async def aclose(self) -> None:
        """Close the stream for an async httpx client."""
        await self._stream.aclose()


class NoCookies(CookieJar):
    """
    A cookie jar that stays empty.

    httpx keeps the cookies of all responses for as long as a client lives, and these requests send none.
    """

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep nothing of a response."""


def limit_response_size(response: httpx.Response) -> None:
    """
    Bound a response before it is read.

    :raises BadResponseError: If it is compressed, although it was asked for as it is: a few bytes may become
        gigabytes. Of an error response that is compressed, the status alone is used.
    """
    exchange = exchange_of(response.request)
    action, max_bytes = (exchange.action, exchange.max_bytes) if exchange else ("HTTP", MAX_RESPONSE_BYTES)
    codings = {coding.strip().lower() for coding in response.headers.get("content-encoding", "").split(",")}
    if codings <= {"", "identity"}:
        response.stream = LimitedStream(response, max_bytes, action, cut=not response.is_success)
    elif response.is_success:
        shown = redact(", ".join(sorted(codings)), response.request, 64)
        raise BadResponseError(
            f"{action}: the response is compressed ({shown}), although it was asked for uncompressed",
            status=response.status_code,
        )
    else:
        response.headers["content-encoding"] = "identity"
        response.headers["content-type"] = "application/octet-stream"
        response.stream = LimitedStream(response, MAX_RESPONSE_BYTES, action, cut=True)


async def alimit_response_size(response: httpx.Response) -> None:
    """Bound a response for an async httpx client."""
    limit_response_size(response)


def total_seconds(exchange: Exchange) -> float:
    """Return the seconds that an exchange may take; each wait for bytes is bounded by the timeout itself."""
    return exchange.credentials.timeout * (LARGE_PAYLOAD_TIMEOUT_FACTOR if exchange.large_payload else 1)


def open_client(credentials: Credentials) -> httpx.Client:
    """Return a blocking HTTP client, for one thread at a time."""
    options = client_options(credentials, httpx.HTTPTransport)
    for transport in (options["transport"], *options["mounts"].values()):
        install_total_timeout(transport)
    return httpx.Client(**options, event_hooks={"response": [limit_response_size]})


def open_async_client(credentials: Credentials) -> httpx.AsyncClient:
    """Return an async HTTP client."""
    options = client_options(credentials, httpx.AsyncHTTPTransport)
    for transport in (options["transport"], *options["mounts"].values()):
        install_small_steps(transport)
    return httpx.AsyncClient(**options, event_hooks={"response": [alimit_response_size]})


def client_options(credentials: Credentials, transport_type: type[TransportT]) -> dict[str, Any]:
    """
    Return arguments for ``httpx.Client`` or ``httpx.AsyncClient``.

    :raises ConfigurationError: If the CA certificates cannot be read, or a proxy cannot be used.
    """
    context = tls.context(credentials.verify)
    limits = httpx.Limits(
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=MAX_CONNECTIONS,
        keepalive_expiry=KEEP_ALIVE,
    )

    def transport_to(url: str) -> TransportT:
        address = proxy_url(credentials, url)
        # The TLS context holds for a proxy that is spoken to by TLS as well.
        ssl_context = context if address and address.startswith("https") else None
        proxy = httpx.Proxy(address, ssl_context=ssl_context) if address else None
        return transport_type(verify=context, proxy=proxy, limits=limits, trust_env=False)

    iam = httpx.URL(credentials.iam_url)
    mounts = {}
    if proxy_url(credentials, credentials.url) != proxy_url(credentials, credentials.iam_url):
        host = f"[{iam.host}]" if ":" in iam.host else iam.host
        mounts = {f"all://{host}": transport_to(credentials.iam_url)}
    return {
        "transport": transport_to(credentials.url),
        "mounts": mounts,
        "timeout": timeouts(credentials),
        "cookies": NoCookies(),
        "trust_env": False,
        "follow_redirects": False,
    }


@contextmanager
def translate_errors(request: httpx.Request, action: str) -> Iterator[None]:
    """
    Send the request in this context.

    :raises TransportError: For every failure to exchange bytes, with ``sent`` as exact as can be known.
    """
    exchange = exchange_of(request)
    if exchange:
        exchange.sent = exchange.refreshing_token = False
    try:
        with _only_our_errors(request, action):
            yield
    except IBMQuantumError as error:
        if exchange:
            error.sent = error.sent and exchange.sent
            error.retry_immediately = exchange.refreshing_token
        raise


@contextmanager
def _only_our_errors(request: httpx.Request, action: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        text = redact(str(error), request).rstrip(".")
        # What a server wrote in place of HTTP is in the text of the cause, which a traceback shows.
        is_shown = redact(str(error), request, None) == single_line(str(error))
        translated = TransportError(
            f"{action}: {type(error).__name__} at {_place_of(error, request)}{': ' + text if text else ''}",
            sent=not isinstance(error, _NEVER_SENT),
        )
        translated.retryable = not _is_bad_certificate(error)
        raise translated from (error if is_shown else None)
    except TimeoutError as error:
        place = _place_of(error, request)
        raise TransportError(f"{action}: no complete response in time from {place}") from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigurationError(f"{action}: {type(error).__name__} in the URL", field="url") from error


def _place_of(error: Exception, request: httpx.Request) -> str:
    """Return who failed in words: IAM, the API or the proxy, with the host."""
    exchange = exchange_of(request)
    url = request.url
    if exchange is None:
        return url.host
    credentials, service = exchange.credentials, exchange.service
    # The request for a token is not the caller's, and httpx tells which one has failed where it knows.
    failed = _request_of(error)
    if (failed is not None and failed is not request) or (failed is None and not exchange.sent):
        url = httpx.URL(credentials.iam_url)
        service = "IAM"
    proxy = httpx.URL(proxy_url(credentials, str(url)) or "")
    if not proxy.host:
        return f"{service} ({url.host})"
    proxy_place = f"the proxy ({proxy.host}:{proxy.port or {'http': 80, 'https': 443}.get(proxy.scheme)})"
    is_connect_error = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    # TLS with the service begins when the proxy has opened its tunnel.
    is_tls_with_service = proxy.scheme == "http" and _ssl_error(error) is not None
    if isinstance(error, httpx.ProxyError) or (is_connect_error and not is_tls_with_service):
        return proxy_place
    return f"{service} ({url.host}) through {proxy_place}"


def _request_of(error: Exception) -> httpx.Request | None:
    try:
        return error.request if isinstance(error, httpx.RequestError) else None
    except RuntimeError:  # httpx's way to say that it does not know
        return None


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _is_bad_certificate(error: BaseException) -> bool:
    return isinstance(_ssl_error(error), ssl.SSLCertVerificationError)
