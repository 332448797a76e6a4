# SPDX-License-Identifier: Apache-2.0
"""Ends a command by the signals that ask for it as by Ctrl-C: what was opened is closed first."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from typing import Final

SETTLING: Final = "Ending; if a session was being opened it is closed first, which can take minutes"


def say(words: str) -> None:
    """Print on standard error, if anybody is there to read: the terminal may be what has gone."""
    with suppress(OSError, RuntimeError):
        print(words, file=sys.stderr, flush=True)


def heed(*names: str, words: str = "") -> None:
    """
    Let these signals cancel the task that calls, unless they are ignored, as by ``nohup``.

    :param words: Printed on standard error at the first one.
    """
    task = asyncio.current_task()
    if task is None or sys.platform == "win32":
        return
    loop = asyncio.get_running_loop()
    unsaid = [words] if words else []

    def cancel() -> None:
        task.cancel()
        while unsaid:
            say(unsaid.pop())

    for number in [signal.Signals[name] for name in names]:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, cancel)
