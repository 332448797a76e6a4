# SPDX-License-Identifier: Apache-2.0
"""Watches the memory of Airflow's processes: those that run tasks, and the triggerer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from benchmarks.memory import MB

_SECONDS = 0.25
_TASK = "airflow worker -- "
"""Airflow's title of a process that runs a task, followed by the task instance's id. Not on macOS."""


@dataclass
class Memory:
    """The largest sizes seen of one process, in MB: resident, and the part that it shares with no other."""

    resident: float = 0.0
    own: float = 0.0

    def grow(self, process: psutil.Process) -> None:
        """Take one more look."""
        sizes = process.memory_full_info()
        self.resident = max(self.resident, sizes.rss / MB)
        self.own = max(self.own, sizes.uss / MB)


class Watch:
    """Peak memory of each task's process, by its task instance's id, and of the triggerer."""

    def __init__(self, standalone: int) -> None:
        self._standalone = psutil.Process(standalone)
        self._ended = threading.Event()
        self.tasks: dict[str, Memory] = {}
        self.triggerer = Memory()

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Look every quarter of a second, in a thread."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_SECONDS):
            for process in self._standalone.children(recursive=True):
                try:
                    self._look_at(process)
                except psutil.Error:
                    continue  # it has ended meanwhile

    def _look_at(self, process: psutil.Process) -> None:
        title = " ".join(process.cmdline()).strip()
        if title.startswith(_TASK) and "LocalExecutor" not in title:
            self.tasks.setdefault(title.removeprefix(_TASK), Memory()).grow(process)
        elif title.endswith("triggerer") and not process.children():
            # The one that runs the triggers is the child of the one that supervises it.
            self.triggerer.grow(process)
