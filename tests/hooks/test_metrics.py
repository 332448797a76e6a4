# SPDX-License-Identifier: Apache-2.0
"""The metrics that a StatsD server receives through Airflow's ``Stats``."""

from __future__ import annotations

import re
import socket
from collections import defaultdict

import pytest
from airflow.sdk.observability import stats

from testing.airflow_runs import cleared
from testing.connections import connection_to
from testing.dag_tasks import run_jobs, sampler_job, submit, sweep
from testing.fake_ibm import Outcome

pytestmark = pytest.mark.usefixtures("quick", "short_jobs")

PRICE = 1.6


class Client:
    """A StatsD client over UDP, as far as counters go: Airflow's own needs the package ``statsd``."""

    def __init__(self, address):
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def incr(self, stat, count=1, rate=1):
        self._socket.sendto(f"{stat}:{count}|c".encode(), self._address)

    def _ignore(self, *args, **kwargs):
        """Send no other kind of metric."""

    gauge = timing = decr = _ignore


@pytest.fixture
def server(ibm, airflow_db, monkeypatch):
    """A StatsD server on loopback: ``server()`` returns the counters' sums by name, and checks their tags."""
    from airflow.sdk._shared.observability.metrics.statsd_logger import SafeStatsdLogger

    monkeypatch.setenv("AIRFLOW_CONN_IBM_QUANTUM_DEFAULT", connection_to(ibm, price_per_second=PRICE))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        client = Client(listener.getsockname())
        logger = SafeStatsdLogger(client, influxdb_tags_enabled=True, statsd_influxdb_enabled=True)
        stats.initialize(factory=lambda: logger, export_legacy_names=False)

        def received():
            sums = defaultdict(float)
            while True:
                try:
                    line = listener.recv(10_000).decode()
                except BlockingIOError:  # on loopback, what was sent has arrived
                    return dict(sums)
                if found := re.fullmatch(r"ibm_quantum\.(\w+),(.*):([\d.e-]+)\|c", line):
                    sums[found[1], found[2]] += float(found[3])

        yield received
        stats.initialize(factory=None, export_legacy_names=True)
        client._socket.close()


def tags(dag, mode):
    return f"conn_id=ibm_quantum_default,backend=ibm_fez,mode={mode},dag_id={dag.dag_id}"


def by_name(counters):
    sums = defaultdict(float)
    for (name, _), amount in counters.items():
        sums[name] += amount
    return sums


def test_a_session_is_counted_once_though_the_task_is_cleared(ibm, dag, run, server):
    ibm.next_jobs([Outcome(seconds=0.3)])
    run_jobs(mode="batch", jobs=[sampler_job(), sampler_job()])
    result = run(dag)
    assert result.state == "success"
    counters = server()
    billed = sum(ibm.bill.values())
    assert {mark for _, mark in counters} == {tags(dag, "batch")}
    counted = by_name(counters)
    assert counted["qpu_seconds"] == counted["billed_seconds"] == pytest.approx(billed)
    assert counted["cost"] == pytest.approx(billed * PRICE)
    assert counted["jobs"] == 2
    assert counted["queue_seconds"] >= 0
    cleared(result, dag, "run")
    assert server() == {}


def test_each_session_of_a_task_is_counted(ibm, dag, run, server):
    ibm.next_jobs([Outcome.failed(9999, seconds=0.2)])
    run_jobs(jobs=[sampler_job()], job_retries=1)
    assert run(dag).state == "success"
    counted = by_name(server())
    assert counted["billed_seconds"] == pytest.approx(sum(ibm.bill.values()))
    assert counted["jobs"] == 2


def test_a_job_without_a_session_is_counted_once(ibm, dag, run, server):
    submit()
    result = run(dag)
    counted = by_name(server())
    assert counted["billed_seconds"] == pytest.approx(sum(ibm.bill.values()))
    assert counted["jobs"] == 1
    cleared(result, dag, "run")
    assert server() == {}


def test_what_the_sweep_closes_is_counted(ibm, dag, run, server):
    ibm.add_session(age=7200)
    ibm.add_session(age=7200)
    sweep(scope="user")
    assert run(dag).state == "success"
    assert by_name(server())["sessions_swept"] == 2


def test_metrics_that_cannot_be_sent_fail_nothing(ibm, dag, run, server, output, monkeypatch):
    def incr(self, stat, *args):
        if stat.startswith("ibm_quantum"):  # else Airflow's own fail the task
            raise OSError("the network is down")

    monkeypatch.setattr(Client, "incr", incr)
    run_jobs()
    assert run(dag).state == "success"
    assert "was not sent" in output()
