# SPDX-License-Identifier: Apache-2.0
"""What a kill does to a task, whichever operator it is."""

from __future__ import annotations

import time
from threading import Lock
from types import SimpleNamespace

import pytest

from airflow_provider_ibm_sessions.exceptions import IBMQuantumTaskError, TaskSupersededError
from airflow_provider_ibm_sessions.lifecycle import kill
from airflow_provider_ibm_sessions.lifecycle.task_mixin import IBMQuantumTaskMixin


@pytest.fixture(autouse=True)
def running(monkeypatch):
    """Airflow is in ``execute()``."""
    monkeypatch.setattr(kill, "get_current_context", lambda: {"ti": SimpleNamespace()})


class Task(IBMQuantumTaskMixin):
    """Writes its last words under a lock, as Airflow's log does."""

    def __init__(self, lock):
        self.lock = lock
        self.ended = self.left = False

    def cleanup_on_kill(self, *, fast):
        with self.lock:
            self.ended = True

    def leave_to_retry(self):
        self.left = True


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
        task.raise_if_killed()
    assert task.ended


def test_the_answer_to_who_goes_on_may_take_until_the_interrupted_thread_lets_go_of_the_way_to_airflow(
    monkeypatch,
):
    way = Lock()

    def ask(context):
        with way:
            return True

    monkeypatch.setattr(kill, "another_try_is_active", ask)
    task = Task(Lock())
    with way:
        task.on_kill()
        time.sleep(0.3)  # the reply that the thread was waiting for
    with pytest.raises(TaskSupersededError):
        task.raise_if_killed()
    assert not task.ended


@pytest.mark.parametrize(("max_tries", "left"), [(3, True), (0, False)], ids=["retry follows", "last try"])
def test_while_airflow_does_not_answer_the_work_is_left_to_a_retry(monkeypatch, max_tries, left):
    def refused(context):
        raise ConnectionRefusedError

    monkeypatch.setattr(kill, "another_try_is_active", refused)
    task = Task(Lock())
    task.pre_execute({"ti": SimpleNamespace(try_number=1, max_tries=max_tries)})
    task.on_kill()
    with pytest.raises(IBMQuantumTaskError, match="its retry goes on" if left else "was ended"):
        task.raise_if_killed()
    assert (task.left, task.ended) == (left, not left)


def test_before_airflow_33_nobody_is_asked_who_goes_on(monkeypatch):
    monkeypatch.setattr(kill, "_states_of", lambda _: pytest.fail("asked"))
    assert not kill.another_try_is_active({"ti": SimpleNamespace(task_id="task"), "dag_run": None})
