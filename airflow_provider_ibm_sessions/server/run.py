# SPDX-License-Identifier: Apache-2.0
"""Runs a service with uvicorn: access, connections, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import stat
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_ibm_sessions.client.credentials import is_loopback
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.server.security import AccessPolicy, validate_token

ENV_TOKEN: Final = "IBM_QUANTUM_SESSIONS_TOKEN"  # noqa: S105 - the name of a variable
SHUTTING_DOWN: Final = "Shutting down; a session that is being opened is closed first, which can take minutes"
GRACE_SECONDS: Final = 30
MAX_CONNECTIONS: Final = 512
"""Beyond this many, the connection that has kept us waiting for its request for longest is closed."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds in which a client must send the head of a request."""
BACKLOG: Final = 128
"""Connections that are accepted at once. More would take file descriptors before any is closed."""
_MAX_TOKEN_FILE: Final = 4096

log = logging.getLogger(__name__)


def access_policy_from_options(
    host: str,
    names: Iterable[str],
    token_file: str | None,
    *,
    no_token: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> tuple[AccessPolicy, str | None]:
    """
    Return the policy of a service, and its token if that was made for this run.

    :param host: The address that it listens on.
    :param names: Further host names of the service.
    :param token_file: File with the bearer token; otherwise the environment may contain one.
    :param no_token: Let in all that reach the loopback address.
    :raises ConfigurationError: If the token is unsuitable, or missing where other machines can reach us.
    """
    token = _configured_token(token_file, environ)
    made = None
    if no_token and token is not None:
        raise ConfigurationError(f"--no-token contradicts --token-file and {ENV_TOKEN}", field="no_token")
    if token is None and not no_token and is_loopback(host):
        token = made = secrets.token_urlsafe(32)
    try:
        return AccessPolicy(token=token, host=host, names=frozenset(name.lower() for name in names)), made
    except ConfigurationError as error:
        if error.field != "token":
            raise
        hint = f"{error.message}. Set {ENV_TOKEN}, or name a file with --token-file"
        raise ConfigurationError(hint, field="token") from error


def _configured_token(file: str | None, environ: Mapping[str, str]) -> str | None:
    if file is None:
        token = environ.get(ENV_TOKEN)
        return None if token is None else validate_token(token, ENV_TOKEN)
    try:
        with open(file, encoding="utf-8") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            token = stream.read(_MAX_TOKEN_FILE).strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--token-file: cannot read {file}", field="token") from error
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("Other users of this machine can use %s. Restrict it: chmod 600 %s", file, file)
    return validate_token(token, file)


def serve(app: ASGIApp, host: str, port: int, path: str = "", made_token: str | None = None) -> None:
    """
    Serve until SIGINT, SIGTERM or SIGHUP; then finish what has started. Prints the address on standard error.

    :param port: 0 takes a free one.
    :param path: Printed with the address.
    :param made_token: A token that nobody knows yet; printed with the address.
    :raises ConfigurationError: If the address is not available, or the service cannot start.
    """
    server, listener = bind(app, host, port)
    shown = f"[{host}]" if ":" in host else host
    print_stderr(f"Serving on http://{shown}:{listener.getsockname()[1]}{path}")
    if made_token is not None:
        print_stderr(f"Clients of this run send: Authorization: Bearer {made_token}")
    server.install_sighup_handler()
    server.run(sockets=[listener])
    if not server.started:
        raise ConfigurationError("The service could not start; the messages above say why")


class Server(uvicorn.Server):
    """A uvicorn server that finishes its work on a second signal as well, where uvicorn would drop it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down; called on each signal."""
        if self.should_exit:
            return
        super().handle_exit(sig, frame)
        print_stderr(SHUTTING_DOWN)

    def install_sighup_handler(self) -> None:
        """Shut down on SIGHUP, which a closed terminal sends, unless it is ignored, as by ``nohup``."""
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            signal.signal(hangup, self.handle_exit)


class BoundedH11Protocol(H11Protocol):
    """
    uvicorn's HTTP protocol, for connections that send nothing, or half a request, and are many.

    uvicorn's own limit answers 503 to everybody while others hold the connections. Here the one that has kept
    us waiting for longest makes room, so that a client that sends its request is always served.
    """

    waiting_since = 0.0
    head_timer: asyncio.TimerHandle | None = None

    @property
    def waits_for_client(self) -> bool:
        """Return True unless a whole request is in work."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close the connection that waits for longest if there are too many."""
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > MAX_CONNECTIONS:
            others = [each for each in self.connections if isinstance(each, BoundedH11Protocol)]
            waiting = [each for each in others if each.waits_for_client and not each.transport.is_closing()]
            min(waiting, key=lambda each: each.waiting_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        super().connection_lost(exc)
        self._stop_timer()

    def handle_events(self) -> None:
        """Read what has arrived; a complete head stops the timer."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_timer()

    def on_response_complete(self) -> None:
        """Allow the next request the same time as the first."""
        self._wait_for_head()
        super().on_response_complete()

    def _wait_for_head(self) -> None:
        self._stop_timer()
        self.waiting_since = self.loop.time()
        self.head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.abort)

    def _stop_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


def bind(app: ASGIApp, host: str, port: int) -> tuple[Server, socket.socket]:
    """
    Return a server and the socket that it will serve. Clients can connect already, and wait until it runs.

    :raises ConfigurationError: If the address is not available.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        # Unlike the faster parser, h11 bounds the size of a request's head.
        http=BoundedH11Protocol,
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        server_header=False,
        proxy_headers=False,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    try:
        listener = config.bind_socket()
        listener.listen(config.backlog)
    except (SystemExit, OSError, OverflowError, ValueError) as error:
        raise ConfigurationError(f"Cannot listen on {host}, port {port}", field="port") from error
    return Server(config), listener


def print_stderr(text: str) -> None:
    """Print on standard error, if it is open: the terminal may have gone."""
    with suppress(OSError, RuntimeError):
        print(text, file=sys.stderr, flush=True)


def cancel_on_signals(*names: str, message: str = "") -> None:
    """
    Cancel the calling task on these signals, unless they are ignored, as by ``nohup``.

    :param message: Printed on standard error at the first one.
    """
    task = asyncio.current_task()
    if task is None or sys.platform == "win32":
        return
    messages = [message] if message else []

    def cancel() -> None:
        task.cancel()
        while messages:
            print_stderr(messages.pop())

    for number in [signal.Signals[name] for name in names]:
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, cancel)
