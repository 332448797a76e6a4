# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import time

import pytest
from airflow.sdk.module_loading import import_string

from airflow_provider_ibm_sessions.client import instance_reader
from airflow_provider_ibm_sessions.triggers.backend import IBMQuantumBackendTrigger
from airflow_provider_ibm_sessions.triggers.usage import IBMQuantumUsageTrigger

pytestmark = pytest.mark.usefixtures("connection", "airflow_db")

COUNT = 200


def waiting(poll_interval):
    return {
        "end_time": time.time() + 120,
        "poll_interval": poll_interval,
        "ibm_quantum_conn_id": "ibm_quantum_default",
    }


async def first_event(trigger):
    async for event in trigger.run():
        return event.payload
    return None


def test_serialized_forms_restore_them_and_hold_no_secret(ibm):
    for original in (
        IBMQuantumBackendTrigger({"among": ["ibm_fez"], "max_wait": 60}, **waiting(1)),
        IBMQuantumUsageTrigger(600, **waiting(1)),
    ):
        path, arguments = original.serialize()
        restored = import_string(path)(**json.loads(json.dumps(arguments)))
        assert restored.serialize() == original.serialize()
        assert ibm.api_key not in repr(original)


def test_many_triggers_of_a_connection_make_one_request_per_interval(ibm, when, supervisor, monkeypatch):
    """Each of them polls in each interval, and all share what the first one reads."""
    interval = 2.0
    monkeypatch.setattr(instance_reader, "MAX_AGE", interval)
    polls = []
    poll_once = IBMQuantumBackendTrigger.poll_once

    async def counted(self, client):
        polls.append(self)
        return await poll_once(self, client)

    monkeypatch.setattr(IBMQuantumBackendTrigger, "poll_once", counted)
    fez = ibm.settings.backends["ibm_fez"]
    fez.status = "offline"
    when(lambda: len(polls) >= 3 * COUNT, lambda: setattr(fez, "status", "online"))

    async def main():
        triggers = [
            IBMQuantumBackendTrigger({"among": ["ibm_fez"]}, **waiting(interval)) for _ in range(COUNT)
        ]
        return await asyncio.gather(*(first_event(trigger) for trigger in triggers))

    events = asyncio.run(main())
    assert [event["backend"]["name"] for event in events] == ["ibm_fez"] * COUNT
    asked = [entry.time for entry in ibm.requests("GET", "/v1/backends")]
    assert len(polls) >= 4 * COUNT
    assert len(asked) <= (asked[-1] - asked[0]) / interval + 2
    assert len(ibm.tokens) == 1
