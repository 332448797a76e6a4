# SPDX-License-Identifier: Apache-2.0
"""TLS contexts, one of each for the process: reading CA certificates takes as long as several requests."""

from __future__ import annotations

import os
import ssl
import stat
import threading
from functools import cache
from typing import Final

import httpx

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import short_repr

ENV_CA_FILE: Final = "SSL_CERT_FILE"
ENV_CA_FOLDER: Final = "SSL_CERT_DIR"
MAX_CA_BYTES: Final = 16 * 2**20
"""The largest file of CA certificates that is read; the bundle of all public ones has 0.3 MB."""

_from_files: dict[str, tuple[tuple[int, ...], ssl.SSLContext]] = {}
_locks: dict[str, threading.Lock] = {}
# A forked child must not inherit a lock that a thread of its parent holds.
os.register_at_fork(after_in_child=_locks.clear)


def context(verify: bool | str) -> ssl.SSLContext:
    """
    Return the TLS context for ``verify``: True, False, or the path of a file of CA certificates.

    Reads a file on the first call, and again after the file has changed: do not call it in an event loop.

    :raises ConfigurationError: If the file cannot be used, naming ``verify`` or the environment variable.
    """
    if isinstance(verify, str):
        return _context_from_file(verify, "verify", "true, false or ")
    if verify and (path := os.environ.get(ENV_CA_FILE)):
        return _context_from_file(path, ENV_CA_FILE, "")
    folder = os.environ.get(ENV_CA_FOLDER) if verify else None
    if folder and not os.path.isdir(folder):
        raise ConfigurationError(
            f"{ENV_CA_FOLDER} must be the path of a folder of CA certificates, got {short_repr(folder)}",
            field=ENV_CA_FOLDER,
        )
    with _lock_of(""):
        return _default(verify, folder)


@cache
def _default(verify: bool, _folder: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context(verify=verify)


def _lock_of(path: str) -> threading.Lock:
    """
    Return a lock per file: threads that start together read it once.

    It is not one for all, because a file on a drive that does not answer would hold up every connection.
    """
    return _locks.setdefault(path, threading.Lock())


def _context_from_file(path: str, field: str, others: str) -> ssl.SSLContext:
    try:
        with _lock_of(path):
            return _read(path)
    except OSError as error:  # ssl.SSLError is one
        problem = error.strerror or "it is none"
    except ValueError:  # no path at all, or no certificates
        problem = "it is none"
    # Outside of the handler: the path may be a key in the wrong field, and stands in the cause.
    raise ConfigurationError(
        f"{field} must be {others}the path of a readable file of CA certificates, got {short_repr(path)} "
        f"({problem})",
        field=field,
    )


def _read(path: str) -> ssl.SSLContext:
    # Opening a FIFO would wait for its writer; O_NONBLOCK is without effect on a regular file.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_CA_BYTES:
            raise ValueError
        identity = (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if (found := _from_files.get(path)) and found[0] == identity:
            return found[1]
        certificates = file.read(MAX_CA_BYTES).decode("ascii", "ignore")  # comments may hold names
    made = ssl.create_default_context(cadata=certificates)
    _from_files[path] = (identity, made)
    return made
