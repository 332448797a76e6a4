# SPDX-License-Identifier: Apache-2.0
"""Ends a command by the signals that ask for it as by Ctrl-C: what was opened is closed first."""

from __future__ import annotations

import asyncio
import signal
import sys


def heed(*names: str) -> None:
    """Let these signals cancel the task that calls, unless they are ignored, as by ``nohup``."""
    task = asyncio.current_task()
    if task is None or sys.platform == "win32":
        return
    loop = asyncio.get_running_loop()
    for number in [signal.Signals[name] for name in names]:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, task.cancel)
