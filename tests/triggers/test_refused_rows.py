# SPDX-License-Identifier: Apache-2.0
"""What becomes of a trigger in Airflow's database whose arguments this version of the provider refuses."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time

import pytest

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.triggers.backend import IBMQuantumBackendTrigger
from airflow_provider_ibm_sessions.triggers.event import (
    IBMQuantumBackendEventTrigger,
    IBMQuantumJobEventTrigger,
)
from airflow_provider_ibm_sessions.triggers.job import IBMQuantumJobTrigger
from airflow_provider_ibm_sessions.triggers.session import IBMQuantumSessionTrigger
from airflow_provider_ibm_sessions.triggers.usage import IBMQuantumUsageTrigger

WAIT = {"end_time": time.time() + 60, "poll_interval": 10.0, "ibm_quantum_conn_id": "ibm_quantum_default"}
SESSION = {"session_id": "s-1", "target_states": ["closed"], **WAIT}
JOBS = {"job_ids": ["j-1"], **WAIT}

COMPLETE = {
    IBMQuantumSessionTrigger: {**SESSION, "created_at": 0.0},
    IBMQuantumJobTrigger: {
        **JOBS,
        "session_id": "s-1",
        "cancel_on_kill": True,
        "owns_session": True,
        "settle_seconds": 1.0,
        "resume_data": None,
    },
    IBMQuantumBackendTrigger: {"requirements": {"min_qubits": 5}, **WAIT},
    IBMQuantumUsageTrigger: {"least": 1.0, **WAIT},
    IBMQuantumBackendEventTrigger: {"backend": "ibm_x", "max_queue_length": 1, "max_wait": 60},
    IBMQuantumJobEventTrigger: {"tags": ["a"], "ibm_quantum_conn_id": "c", "poll_interval": 60},
}

REFUSED = {
    "no connection": (IBMQuantumSessionTrigger, {**SESSION, "ibm_quantum_conn_id": ""}),
    "no end": (IBMQuantumSessionTrigger, {**SESSION, "end_time": -1}),
    "no id": (IBMQuantumSessionTrigger, {**SESSION, "session_id": "../jobs"}),
    "an unknown state": (IBMQuantumSessionTrigger, {**SESSION, "target_states": ["melted"]}),
    "an unknown argument": (IBMQuantumSessionTrigger, {**SESSION, "of_another_version": True}),
    "no jobs": (IBMQuantumJobTrigger, {**JOBS, "job_ids": []}),
    "text for a flag": (IBMQuantumJobTrigger, {**JOBS, "cancel_on_kill": "yes"}),
    "an unknown requirement": (IBMQuantumBackendTrigger, {"requirements": {"min_color": 1}, **WAIT}),
    "a requirement of another type": (
        IBMQuantumBackendTrigger,
        {"requirements": {"min_qubits": "x"}, **WAIT},
    ),
    "no seconds": (IBMQuantumUsageTrigger, {"least": "many", **WAIT}),
    "a watcher without an interval": (
        IBMQuantumBackendEventTrigger,
        {"backend": "ibm_x", "poll_interval": 0},
    ),
    "a watcher of no tags": (IBMQuantumJobEventTrigger, {"tags": []}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_fails_its_own_task_and_the_triggerer_goes_on(case):
    """Airflow's triggerer ends at any error of a trigger's arguments but a TypeError, with all that wait."""
    from airflow.executors.workloads import RunTrigger
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger

    cls, refused = REFUSED[case]
    rows = [(cls, refused), (IBMQuantumSessionTrigger, SESSION)]

    async def triggerer() -> TriggerRunner:
        runner = TriggerRunner()
        for number, (each, kwargs) in enumerate(rows, 1):
            classpath = f"{each.__module__}.{each.__qualname__}"
            encrypted = Trigger.encrypt_kwargs(kwargs)
            runner.to_create.append(RunTrigger(id=number, classpath=classpath, encrypted_kwargs=encrypted))
        await runner.create_triggers()
        for trigger in runner.triggers.values():
            trigger["task"].cancel()
        return runner

    runner = asyncio.run(triggerer())
    assert [number for number, _ in runner.failed_triggers] == [1]
    assert list(runner.triggers) == [2]


ODD_VALUES = [
    None,
    "",
    "x",
    -1,
    0,
    math.nan,
    math.inf,
    10**400,
    True,
    [],
    [None],
    [[]],
    {},
    {"x": None},
    {"x": []},
]


@pytest.mark.parametrize("cls, name", [(cls, name) for cls, kwargs in COMPLETE.items() for name in kwargs])
def test_whatever_the_value_of_an_argument_no_other_error_is_raised(cls, name):
    for odd in ODD_VALUES:
        with contextlib.suppress(TypeError):
            cls(**COMPLETE[cls] | {name: odd})


def test_a_refused_argument_is_an_error_of_value_too():
    with pytest.raises(ConfigurationError) as raised:
        IBMQuantumUsageTrigger(least="many", **WAIT)
    assert isinstance(raised.value, ValueError)
