# SPDX-License-Identifier: Apache-2.0
"""Runs a service: on the loopback address, or behind a bearer token."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.server.security import Rules, validate_token
from airflow_provider_ibm_sessions.server.signals import SETTLING, say

ENV_TOKEN: Final = "IBM_QUANTUM_SESSIONS_TOKEN"  # noqa: S105 - the name of a variable
_GRACE_SECONDS: Final = 30


def rules_for(
    host: str, names: Iterable[str], token_file: str | None, environ: Mapping[str, str] = os.environ
) -> Rules:
    """
    The rules for a service that listens on this address.

    :param host: The address.
    :param names: Further host names that lead to it.
    :param token_file: File that holds the bearer token; else the environment may.
    :raises ConfigurationError: If the token is missing, though others can reach the address, or is no good.
    """
    token = _token(token_file, environ)
    try:
        return Rules(token=token, host=host, names=frozenset(name.lower() for name in names))
    except ConfigurationError as error:
        if error.field != "token":
            raise
        hint = f"{error.message}. Set {ENV_TOKEN}, or name a file with --token-file"
        raise ConfigurationError(hint, field="token") from error


def _token(file: str | None, environ: Mapping[str, str]) -> str | None:
    if file is None:
        token = environ.get(ENV_TOKEN)
        return None if token is None else validate_token(token, ENV_TOKEN)
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--token-file: cannot read {file}", field="token") from error
    return validate_token(text.strip(), file)


def serve(app: ASGIApp, host: str, port: int, path: str = "") -> None:
    """
    Serve until SIGINT, SIGTERM or SIGHUP; then finish what has begun. Prints the address on standard error.

    :param port: 0 takes any that is free.
    :param path: Printed with the address.
    :raises ConfigurationError: If the address cannot be listened on, or the service not be started.
    """
    server, listener = listening(app, host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"Serving on http://{shown}:{listener.getsockname()[1]}{path}", file=sys.stderr, flush=True)
    server.heed_hangup()
    server.run(sockets=[listener])
    if not server.started:
        raise ConfigurationError("The service could not start; what is above says why")


class Server(uvicorn.Server):
    """Ends in order, however often it is told to: uvicorn lets everything go at the second Ctrl-C."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called on each signal to end."""
        if self.should_exit:
            return
        super().handle_exit(sig, frame)
        say(SETTLING)

    def heed_hangup(self) -> None:
        """Let SIGHUP, of a terminal that is closed, end it as well, unless it is ignored, as by ``nohup``."""
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            signal.signal(hangup, self.handle_exit)


def listening(app: ASGIApp, host: str, port: int) -> tuple[Server, socket.socket]:
    """
    A server and the socket that it will serve. Callers can connect already, and wait until it runs.

    :raises ConfigurationError: If the address cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        # Unlike the faster parser, this one bounds the size of a request's head.
        http="h11",
        ws="none",
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    try:
        listener = config.bind_socket()
        listener.listen(config.backlog)
    except (SystemExit, OSError, OverflowError) as error:
        raise ConfigurationError(f"Cannot listen on {host}, port {port}", field="port") from error
    return Server(config), listener
