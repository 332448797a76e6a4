# SPDX-License-Identifier: Apache-2.0
"""TLS contexts, one for the process: reading a CA bundle takes as long as several requests."""

from __future__ import annotations

import os
import ssl
import threading
from functools import cache

import httpx

_lock = threading.Lock()
# A forked child must not inherit it while a thread of its parent holds it.
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))


def context(verify: bool | str) -> ssl.SSLContext:
    """
    The context for ``verify``: True, False, or the path of a file of CA certificates.

    Reads a file when it is first asked for, and when the file has changed: not for an event loop.

    :raises OSError: If the file cannot be read or holds no certificate.
    :raises ValueError: If it can be no path at all.
    """
    with _lock:  # threads that start together shall not read it each for itself
        if isinstance(verify, bool):
            return _default(verify)
        return _from_file(verify, os.stat(verify).st_mtime_ns)


@cache
def _default(verify: bool) -> ssl.SSLContext:
    return httpx.create_ssl_context(verify=verify)


@cache
def _from_file(path: str, changed: int) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=path)
