# SPDX-License-Identifier: Apache-2.0
"""TLS contexts, one for the process: reading a CA bundle takes as long as several requests."""

from __future__ import annotations

import os
import ssl
import stat
import threading
from functools import cache

import httpx

_lock = threading.Lock()
# A forked child must not inherit it while a thread of its parent holds it.
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))


def context(verify: bool | str) -> ssl.SSLContext:
    """
    Return the context for ``verify``: True, False, or the path of a file of CA certificates.

    Reads a file when it is first asked for, and when the file has changed: not for an event loop.

    :raises OSError: If the file cannot be read or holds no certificate.
    :raises ValueError: If it is no regular file, such as a named pipe, which would be waited for endlessly.
    """
    if isinstance(verify, str):
        facts = os.stat(verify)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"{verify} is no regular file")
    with _lock:  # so that threads which start together read it once
        return _default(verify) if isinstance(verify, bool) else _from_file(verify, facts.st_mtime_ns)


@cache
def _default(verify: bool) -> ssl.SSLContext:
    return httpx.create_ssl_context(verify=verify)


@cache
def _from_file(path: str, changed_at: int) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=path)
