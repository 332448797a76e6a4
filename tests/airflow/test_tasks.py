# SPDX-License-Identifier: Apache-2.0
"""What a kill does to a task, whichever operator it is."""

from __future__ import annotations

from threading import Lock

import pytest

from airflow_provider_ibm_sessions.failures import IBMQuantumTaskError
from airflow_provider_ibm_sessions.tasks import IBMQuantumTask


class Task(IBMQuantumTask):
    """Writes its last words under a lock, as Airflow's log does."""

    def __init__(self, lock):
        self.lock = lock
        self.ended = False

    def end_all(self):
        with self.lock:
            self.ended = True


def test_a_kill_ends_what_was_begun_before_the_handler_returns():
    task = Task(Lock())
    task.on_kill()
    assert task.ended


def test_a_kill_in_the_midst_of_writing_to_the_log_is_carried_out_all_the_same():
    # Airflow calls on_kill in the thread that was interrupted, and this one holds the lock of the log.
    task = Task(Lock())
    with task.lock:
        task.on_kill()
        assert not task.ended
    with pytest.raises(IBMQuantumTaskError, match="killed"):
        task.check_alive()
    assert task.ended
