# SPDX-License-Identifier: Apache-2.0
"""Jobs, handed to worker processes that compute them."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

from airflow_provider_ibm_sessions.emulator.service.reason_codes import INTERNAL_ERROR
from airflow_provider_ibm_sessions.emulator.service.records import Outcome

from .worker import READY

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.emulator.service.records import JobRecord

MAX_SECONDS = 600.0
WORKER = "airflow_provider_ibm_sessions.emulator.simulation.worker"
STOPPED = "The simulation took too long or too much memory: entangle fewer qubits, or use fewer gates"


class Simulator:
    """
    Computes jobs in the order of their submission.

    In processes, so that polls are answered while Aer computes, a job can be stopped, and one that takes all
    memory fails alone. They load Qiskit in the background.
    """

    def __init__(
        self, *, workers: int = 1, seed: int | None = None, max_seconds: float = MAX_SECONDS
    ) -> None:
        """
        Start the worker processes.

        :param seed: Seed of the simulations; None: other results each time.
        :param max_seconds: Real time after which a job fails that has not been computed.
        """
        self.on_outcome: Callable[[JobRecord, Outcome], None] = lambda job, outcome: None
        """Called, from any thread, with each job that was computed."""
        self._seed, self._max_seconds = seed, max_seconds
        self._jobs: deque[JobRecord] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._workers = [_Worker() for _ in range(workers)]
        self._threads = [
            threading.Thread(target=self._compute, args=(worker,), daemon=True) for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    def start(self, job: JobRecord) -> None:
        """Queue a job for computation; its outcome is passed to ``on_outcome``."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def cancel(self, job: JobRecord) -> None:
        """Stop computing a job, if it is being computed or still to be."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
        for worker in self._workers:
            worker.stop(job)

    def results(self, job: JobRecord) -> Any:
        """Return the body of GET results."""
        return job.outcome.results if job.outcome else None

    def close(self) -> None:
        """End the worker processes."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.close()

    def _compute(self, worker: _Worker) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs.popleft()
            overdue = threading.Timer(self._max_seconds, worker.stop, [job])
            overdue.daemon = True
            overdue.start()
            outcome = worker.compute(job, self._seed)
            overdue.cancel()
            if not (job.final or self._closed):
                self.on_outcome(job, outcome)


class _Worker:
    """One worker process, started again when it was stopped or has died."""

    def __init__(self) -> None:
        self.job: JobRecord | None = None
        """The job being computed."""
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._is_stopped = False
        self._process = subprocess.Popen(  # noqa: S603  # a module of our own
            [sys.executable, "-m", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)

    def compute(self, job: JobRecord, seed: int | None) -> Outcome:
        self.job = job
        try:
            pickle.dump((job.program_id, job.backend, job.params, seed), self._input)
            self._input.flush()
            outcome: Any = READY
            while outcome == READY:
                outcome = pickle.load(self._output)  # noqa: S301  # from a process of our own
        except (EOFError, OSError, pickle.UnpicklingError):
            outcome = None
        with self._lock:
            self.job = None
        if outcome is None or self._is_stopped:  # maybe stopped as it had just sent the outcome
            self.close()
            self._start()
        return Outcome.failed(INTERNAL_ERROR, STOPPED) if outcome is None else cast("Outcome", outcome)

    def stop(self, job: JobRecord | None = None) -> None:
        """Kill the process: whatever it does, or if it computes this job. ``compute`` starts another."""
        with self._lock:
            if job is None or self.job is job:
                self._is_stopped = True
                self._process.kill()

    def close(self) -> None:
        """Kill the process and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with suppress(OSError):  # what was not written yet has no reader any more
                pipe.close()
