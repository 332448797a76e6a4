# SPDX-License-Identifier: Apache-2.0
"""Runs the processes of the cluster, and starts again what exits, as systemd or Kubernetes do."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CHECK_SECONDS = 0.5
RESTART_SECONDS = 1.0
STOP_SECONDS = 20.0
MEMORY_SECONDS = 10.0


@dataclass
class Component:
    """
    A process that is kept running, with all that it starts.

    :param user: The user it runs as; None: the one who runs the tests.
    :param stop_signal: Asks it to end. All but the servers, which have data to put away, are killed.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGKILL
    process: subprocess.Popen[bytes] | None = None
    is_held: bool = False

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, in a session of its own; return its first process."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
            )
        return self.process

    def processes(self) -> list[psutil.Process]:
        """Return its processes: those of its session, and PostgreSQL's children, which lead their own."""
        if self.process is None:
            return []
        found = {process.pid: process for process in _of_session(self.process.pid)}
        with suppress(psutil.NoSuchProcess):
            if self.process.poll() is None:
                children = psutil.Process(self.process.pid).children(recursive=True)
                found |= {each.pid: each for each in children}
        return list(found.values())

    def kill(self) -> None:
        """Kill it and all that it has started, as when its machine dies."""
        doomed = self.processes()
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait(STOP_SECONDS)
        psutil.wait_procs(doomed, STOP_SECONDS)

    def stop(self) -> None:
        """Ask it to end, and kill what is left."""
        if self.process is not None and self.process.poll() is None and self.stop_signal != signal.SIGKILL:
            self.process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        self.kill()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Supervisor:
    """The components of a cluster, by name. The last that was added is the first to be stopped."""

    def __init__(self) -> None:
        self._components: dict[str, Component] = {}
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self.restarts: dict[str, int] = {}
        self.peak_memory = 0.0
        """The most that all processes have used at once so far, in bytes."""

    def add(self, component: Component) -> subprocess.Popen[bytes]:
        """Start a component, and keep it running from now on; return its process."""
        with self._lock:
            self._components[component.name] = component
            return component.start()

    def kill(self, name: str) -> None:
        """Kill a component; it is started again."""
        self._components[name].kill()

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Keep a component away for a while."""
        component = self._components[name]
        with self._lock:
            component.is_held = True
        try:
            component.stop()
            yield
        finally:
            with self._lock:
                component.is_held = False

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Stop a component with SIGSTOP for a while: it holds its connections, and does nothing."""
        component = self._components[name]
        component.send(signal.SIGSTOP)
        try:
            yield
        finally:
            component.send(signal.SIGCONT)

    def run(self) -> None:
        """Start again what exits, and measure, until :meth:`stop`."""
        measured = 0.0
        while not self._ending.wait(CHECK_SECONDS):
            for component in list(self._components.values()):
                self._restart(component)
            if time.monotonic() - measured > MEMORY_SECONDS:
                measured = time.monotonic()
                self.peak_memory = max(self.peak_memory, self.memory())

    def memory(self) -> float:
        """Return the bytes that all processes use, those that several share counted once."""
        components = list(self._components.values())
        everything = {each.pid for component in components for each in component.processes()}
        return sum(map(_proportional_bytes, {*everything, os.getpid()}))

    def stop(self) -> None:
        """End all components, and wait until they are gone."""
        self._ending.set()
        with self._lock:
            for component in reversed(self._components.values()):
                component.is_held = True
                with suppress(subprocess.TimeoutExpired):
                    component.stop()

    def _restart(self, component: Component) -> None:
        process = component.process
        if process is None or process.poll() is None or component.is_held:
            return
        component.kill()  # its children outlive it: a worker's tasks, a triggerer's runner
        if self._ending.wait(RESTART_SECONDS):
            return
        with self._lock:
            if not component.is_held:
                self.restarts[component.name] = self.restarts.get(component.name, 0) + 1
                component.start()


def _of_session(leader: int) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == leader:
                yield psutil.Process(pid)


def _proportional_bytes(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1]) * 1024
    return 0.0
