# SPDX-License-Identifier: Apache-2.0
"""Events that start Dags, by Airflow's own triggerer, asset store and scheduler tables."""

from __future__ import annotations

import asyncio
import json
import logging
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import DAG, Asset, AssetWatcher
from airflow.sdk.module_loading import import_string

from airflow_provider_ibm_sessions.client import instance_reader
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.triggers.event import (
    IBMQuantumBackendEventTrigger,
    IBMQuantumJobEventTrigger,
)
from testing.airflow_runs import serialize
from testing.fake_ibm import Fault
from testing.retry_policies import single_attempt
from testing.triggerer import watch

pytestmark = pytest.mark.usefixtures("connection", "airflow_db", "supervisor", "fresh")


@pytest.fixture
def fresh(monkeypatch):
    """Let each poll ask: what is shared for 30 s would hold up the test."""
    monkeypatch.setattr(instance_reader, "MAX_AGE", 0.05)


@pytest.fixture
def asset(request):
    """An asset that Airflow knows."""
    asset = Asset("".join(c if c.isalnum() else "_" for c in request.node.name))
    with DAG(f"on_{asset.name}", schedule=[asset]) as dag:
        serialize(dag)
    return asset


def job_trigger(*tags):
    return IBMQuantumJobEventTrigger(tags=tags, poll_interval=0.2)


def qpu_trigger(**kwargs):
    return IBMQuantumBackendEventTrigger(**{"backend": "ibm_fez", "poll_interval": 0.2, **kwargs})


def submit(*tags):
    pubs = [["OPENQASM 3.0; bit[2] c;"]]
    return (
        IBMQuantumHook().submit_job("sampler", backend="ibm_fez", params={"pubs": pubs}, tags=list(tags)).id
    )


def end(ibm, job_id):
    """Let a job of a long queue end at once."""
    ibm.script()
    assert IBMQuantumHook().cancel_job(job_id)


class Polls:
    """Counts polls: ``polls.more(2)`` is a condition that two more have been made."""

    def __init__(self, ibm, path):
        self.ibm, self.path = ibm, path

    def __len__(self):
        return len(self.ibm.requests("GET", self.path))

    def more(self, count):
        before = len(self)
        return lambda _: len(self) >= before + count


def ids(payloads):
    return sorted(job["id"] for payload in payloads for job in payload["jobs"])


def run(watchers, done):
    return asyncio.run(watch(watchers, done))


def test_each_job_with_the_tags_is_told_once_over_restarts_of_the_triggerer(ibm, asset, when):
    ibm.settings.job_seconds = 3600
    polls = Polls(ibm, "/v1/jobs")
    before, first, second, other = submit("a", "b"), submit("a", "b"), submit("a", "b", "c"), submit("a")
    end(ibm, before)
    started = polls.more(2)
    when(lambda: started(None), lambda: [end(ibm, other), end(ibm, first)])
    told = run([(job_trigger("a", "b"), asset)], lambda payloads: len(payloads) > 0)
    assert ids(told) == [first]
    [job] = told[0]["jobs"]
    assert (job["state"], job["tags"]) == ("Cancelled", ["a", "b"])

    # The triggerer is down; one job ends, another begins and ends.
    end(ibm, second)
    third = submit("b", "a")
    end(ibm, third)
    fourth = submit("a", "b")
    told = run([(job_trigger("a", "b"), asset)], lambda payloads: len(payloads) > 0)
    assert ids(told) == sorted([second, third])
    assert len(told) == 1, "Airflow may leave a second event at the same time without a run"

    assert run([(job_trigger("a", "b"), asset)], polls.more(6)) == []
    when(lambda: True, lambda: end(ibm, fourth))
    told = run([(job_trigger("a", "b"), asset)], lambda payloads: len(payloads) > 0)
    assert ids(told) == [fourth]


def test_triggers_of_a_connection_share_one_poll(ibm, asset, when):
    ibm.settings.job_seconds = 3600
    jobs = {f"tag{number}": submit(f"tag{number}") for number in range(20)}
    polls = Polls(ibm, "/v1/jobs")
    started = polls.more(4)
    when(lambda: started(None), lambda: [end(ibm, job) for job in jobs.values()])
    told = run([(job_trigger(tag), asset) for tag in jobs], lambda payloads: len(payloads) >= 20)
    assert ids(told) == sorted(jobs.values())
    lists = ibm.requests("GET", "/v1/jobs")
    assert all("tags" not in entry.query for entry in lists)
    pending = [entry for entry in lists if "pending" in entry.query]
    assert len(lists) - len(pending) <= len(pending) <= len(lists) - len(pending) + 1


def test_a_qpu_is_told_when_it_becomes_ready_and_not_twice(ibm, asset, when):
    fez = ibm.settings.backends["ibm_fez"]
    polls = Polls(ibm, "/v1/backends")
    watchers = [(qpu_trigger(max_queue_length=5), asset), (qpu_trigger(backend="ibm_torino"), asset)]
    fez.status, fez.queue_length = "offline", 50
    started = polls.more(2)
    when(lambda: started(None), lambda: setattr(fez, "status", "online"))
    later = polls.more(5)
    when(lambda: later(None), lambda: setattr(fez, "queue_length", 4))
    told = run(watchers, lambda payloads: len(payloads) > 0)
    assert [(payload["name"], payload["queue_length"]) for payload in told] == [("ibm_fez", 4)]

    again = [(qpu_trigger(max_queue_length=5), asset), (qpu_trigger(backend="ibm_torino"), asset)]
    assert run(again, polls.more(4)) == []

    fez.status = "paused"
    assert run([(qpu_trigger(max_queue_length=5), asset)], polls.more(3)) == []
    fez.status = "online"
    told = run([(qpu_trigger(max_queue_length=5), asset)], lambda payloads: len(payloads) > 0)
    assert [payload["name"] for payload in told] == ["ibm_fez"]


def test_an_outage_ends_no_watcher(ibm, asset, monkeypatch, when, output):
    single_attempt(monkeypatch)
    fez = ibm.settings.backends["ibm_fez"]
    fez.status = "offline"
    ibm.script(
        Fault(path="/v1/backends", status=503, skip=1, times=2),
        Fault(path="/v1/backends", status=401, skip=1, times=4),
    )
    polls = Polls(ibm, "/v1/backends")
    started = polls.more(7)
    when(lambda: started(None), lambda: setattr(fez, "status", "online"))
    assert len(run([(qpu_trigger(), asset)], lambda payloads: len(payloads) > 0)) == 1
    assert "Polling again in 0 s" in output()


def test_events_wait_until_airflow_has_stored_them(ibm, asset, monkeypatch, when, output):
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    monkeypatch.setattr("airflow_provider_ibm_sessions.triggers.event._STORE_RETRY_DELAY", 0.1)
    aset, calls = AssetStateStoreAccessors.aset, []

    async def fail_twice(self, key, value):
        calls.append(value)
        if len(calls) in (2, 3):
            raise RuntimeError("as if Airflow's API were down")
        await aset(self, key, value)

    monkeypatch.setattr(AssetStateStoreAccessors, "aset", fail_twice)
    fez = ibm.settings.backends["ibm_fez"]
    fez.status = "offline"
    started = Polls(ibm, "/v1/backends").more(2)
    when(lambda: started(None), lambda: setattr(fez, "status", "online"))
    assert len(run([(qpu_trigger(), asset)], lambda payloads: len(payloads) > 0)) == 1
    assert calls == [{"ready": False}, {"ready": True}, {"ready": True}, {"ready": True}]
    assert "Airflow does not store the state of this watcher. Trying again" in output()


def test_an_event_queues_each_example_dag(ibm, when):
    """From the Dag file to the row for which the scheduler creates a run."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.asset import AssetDagRunQueue
    from airflow.models.dag import DagModel
    from airflow.models.trigger import Trigger
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select, update

    examples = Path(__file__).parents[2] / "example_dags" / "example_events.py"
    dags = DagBag(examples).dags
    assert set(dags) == {"ibm_quantum_on_qpu_ready", "ibm_quantum_on_job_final"}
    for _ in range(2):  # Airflow starts no watcher for a Dag that is paused
        for dag in dags.values():
            serialize(dag)
        with create_session() as session:
            session.execute(update(DagModel).values(is_paused=False))
    with create_session() as session:
        rows = session.scalars(select(Trigger).where(Trigger.classpath.contains("triggers.event"))).all()
        found = {}
        for row in rows:
            trigger = import_string(row.classpath)(**row.kwargs)
            found[type(trigger)] = trigger
            Trigger.submit_event(row.id, TriggerEvent({"id": "x"}), session=session)
    assert set(found) == {IBMQuantumBackendEventTrigger, IBMQuantumJobEventTrigger}
    assert found[IBMQuantumJobEventTrigger].tags == ["nightly"]
    with create_session() as session:
        assert set(session.scalars(select(AssetDagRunQueue.target_dag_id))) == set(dags)


def test_the_example_logs_a_qpu_whose_queue_is_not_known(caplog):
    from airflow.sdk.execution_time.comms import AssetEventResult

    example = runpy.run_path(str(Path(__file__).parents[2] / "example_dags" / "example_events.py"))
    qpu = {"name": "ibm_fez", "state": "online", "queue_length": None}
    event = AssetEventResult.model_construct(extra={"payload": qpu})
    log = logging.getLogger("airflow.task")
    log.addHandler(caplog.handler)
    try:
        example["report_qpu"].function({example["qpu_ready"]: [event]})
    finally:
        log.removeHandler(caplog.handler)
    assert "ibm_fez is online, jobs in its queue: None" in caplog.text


def test_serialized_forms_restore_them_and_hold_no_secret(ibm):
    for original in (job_trigger("a"), qpu_trigger(max_queue_length=3, max_wait="5m")):
        path, arguments = original.serialize()
        restored = import_string(path)(**json.loads(json.dumps(arguments)))
        assert restored.serialize() == original.serialize()
        assert restored.shared_stream_key() == original.shared_stream_key()
        assert ibm.api_key not in repr(original)


@pytest.mark.parametrize(
    ("make", "allowed"),
    [
        (lambda: job_trigger(), "tags must name at least one"),
        (lambda: qpu_trigger(backend="a/b"), "backend must be the name of a QPU"),
        (lambda: qpu_trigger(max_queue_length=-1), "max_queue_length must be a whole number from 0"),
        (lambda: qpu_trigger(poll_interval=0), "poll_interval must be a number of seconds"),
    ],
)
def test_wrong_arguments_are_named_when_the_dag_is_read(make, allowed):
    with pytest.raises(ConfigurationError, match=allowed):
        make()


def test_a_dag_file_with_a_watcher_pays_for_no_http_client():
    code = (
        "import sys\n"
        "from airflow_provider_ibm_sessions.triggers import event\n"
        "names = ('client.client', 'client.models', 'hooks.ibm_quantum')\n"
        "print([n for n in names if f'airflow_provider_ibm_sessions.{n}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_watcher_takes_them():
    AssetWatcher(name="jobs", trigger=job_trigger("a"))
    AssetWatcher(name="qpu", trigger=qpu_trigger())
