# SPDX-License-Identifier: Apache-2.0
"""
Fuzzes every way in which a response is read: ``python -m tests.client.fuzz [COUNT] [SEED]``.

A valid response is spoilt at random, on the level of JSON, of bytes and of headers, and is read by either
client through its whole stack but the socket. Either it gives a result or an error of our tree.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from typing import Any

import httpx
from pydantic import BaseModel

from airflow_provider_ibm_sessions.client import (
    AsyncIBMQuantumClient,
    Credentials,
    IBMQuantumClient,
    RetryPolicy,
    auth,
    client,
)
from airflow_provider_ibm_sessions.client._http import transport
from airflow_provider_ibm_sessions.client.backend_selection import BackendRequirements
from airflow_provider_ibm_sessions.client.errors import IBMQuantumError
from airflow_provider_ibm_sessions.client.flows import JobSet, close_and_cancel, list_session_jobs
from airflow_provider_ibm_sessions.client.recovery import PendingCreate
from airflow_provider_ibm_sessions.client.results import decode_results, raw_to_primitive_result
from testing.result_payloads import npy, one_register, strict

COUNT = 10_000
MAX_GROWTH_MB = 400
"""Of the process, over all responses: the longest have 5 MB."""
LONGEST_MESSAGE = 5000
LONGEST_REPEATED = 20_000
"""Bytes of a list that is repeated 300 times."""

CREDENTIALS = Credentials(
    api_key="the-api-key-0123456789",
    crn="crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:11111111-2222::",
    verify=False,
)
SECRETS = (CREDENTIALS.api_key.reveal(), "the-token-0123456789")
TOKEN = {"access_token": SECRETS[1], "expires_in": 3600, "token_type": "Bearer"}

SESSION = {
    "id": "x",
    "backend_name": "ibm_fez",
    "mode": "dedicated",
    "state": "open",
    "accepting_jobs": True,
    "max_ttl": 600,
    "active_ttl": 59,
    "started_at": "2026-11-01T12:00:00Z",
    "elapsed_time": 1.5,
    "timestamps": [{"status": "open", "timestamp": "2026-11-01T12:00:00Z"}],
}
USAGE = {"qpu_charge_time_seconds": 1.0, "status": "complete"}
JOB = {
    "id": "x",
    "state": {"status": "Failed", "reason": "no", "reasonCode": 1517, "reason_solution": "transpile"},
    "status": "Failed",
    "program": {"id": "sampler"},
    "session_id": "s",
    "created": "2026-11-01T12:00:00Z",
    "tags": ["a"],
    "usage": USAGE,
    "cost": 5,
}
WORKLOAD = {"id": "x", "mode": "session", "status": "pending", "created": "2026-11-01T12:00:00Z", "tags": []}
METRICS = {"timestamps": {"created": "2026-11-01T12:00:00Z"}, "usage": USAGE, "circuits_execution_time_ns": 7}
RESULTS = {"results": [{"data": {"c": {"samples": ["0x0", "0x3"], "num_bits": 2}}}], "metadata": {}}
BACKEND = {
    "name": "ibm_fez",
    "status": {"name": "online"},
    "qubits": 156,
    "queue_length": 3,
    "processor_type": {"family": "Heron", "revision": "2"},
    "clops": {"type": "hardware", "value": 195000},
    "performance_metrics": {"two_q_error_median": {"value": 0.002}, "readout_error_median": {"value": 0.01}},
    "wait_time_seconds": {"average": 60, "p50": 50, "p95": 90},
}
PROPERTIES = {
    "backend_name": "ibm_fez",
    "last_update_date": "2026-11-01T12:00:00Z",
    "qubits": [[{"name": "T1", "value": 120.5, "unit": "us", "date": "2026-11-01T12:00:00Z"}]],
    "gates": [{"gate": "cz", "qubits": [0, 1], "parameters": [{"name": "gate_error", "value": 0.002}]}],
}
INSTANCE_USAGE = {
    "usage_consumed_seconds": 30,
    "usage_limit_seconds": 600,
    "usage_limit_reached": False,
    "usage_period": {"start_time": "2026-11-01T00:00:00Z", "end_time": "2026-11-29T00:00:00Z"},
}
ENCODED = one_register(npy(bytes([1, 2, 3, 3])))
EXECUTED = {
    "schema_version": "v0.1",
    "data": [{"results": {"c": {"data": "AQ==", "shape": [1, 2], "dtype": "bool"}}, "metadata": {}}],
    "metadata": {},
}
ESTIMATED = {"results": [{"data": {"evs": [0.5, -1], "stds": [0.1, 0.2]}, "metadata": {"shots": 7}}]}
LEARNED = {
    "data": [{"__type__": "_json", "__value__": {"data": {"qubits": [3, 4], "error": None}}}],
    "metadata": {"backend": "ibm_fez"},
}
LEARNED_V3 = {
    "schema_version": "v0.1",
    "data": [
        {
            "generators_sparse": [[["XX", [0, 1]]]],
            "num_qubits": 2,
            "rates": {"data": "mpmZmZmZuT8=", "shape": [1], "dtype": "f64"},
            "metadata": {"learning_protocol": "trex"},
        }
    ],
}
CALIBRATED = {"schema_version": "v0.1", "start": "2026-11-01T10:00:00Z", "stop": "2026-11-01T11:00:00Z"}
POST_PROCESSED = {**EXECUTED, "semantic_role": "sampler_v2", "passthrough_data": {"post_processor": {}}}
POLLED = JOB | SESSION | {"jobs": [JOB], "count": 1}
PUBS = {"pubs": [["OPENQASM 3.0;"]]}
PRICE = Decimal("1.6")
SINCE = datetime(2026, 11, 1, tzinfo=UTC)

ERROR = {"errors": [{"code": 1217, "message": "closed", "solution": "open another"}], "trace": "t"}


def decoded(api: IBMQuantumClient) -> dict[str, Any]:
    """Return a job's results as a task does."""
    return decode_results(api.job_results("x"), detail="memory").to_json()


def polled(api: IBMQuantumClient) -> str:
    """Return what a task logs of a session with jobs; what it pushes of them can be stored."""
    progress = api.run_flow(JobSet(("x",), "x").poll())
    strict([progress.usage.to_json(PRICE, "USD"), *(job.to_json() for job in progress.jobs)])
    return progress.describe(PRICE, "USD")


def killed(api: IBMQuantumClient) -> list[str]:
    """Return the errors of what ends a session with jobs; it raises none."""
    errors = api.run_flow(close_and_cancel("x", ["x"]))
    assert all(error.isprintable() for error in errors)
    assert not any(secret in f"{errors}" for secret in SECRETS)
    return errors


READS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "token": (TOKEN, lambda api: api.authorization()),
    "create-session": (SESSION, lambda api: api.create_session("ibm_fez", max_ttl=600)),
    "get-session": (SESSION, lambda api: api.get_session("x")),
    "update-session": ({}, lambda api: api.update_session("x", accepting_jobs=False)),
    "close-session": ({}, lambda api: api.close_session("x")),
    "list-versions": ({"versions": [{"version": "2026-04-15"}]}, lambda api: api.list_versions()),
    "list-backends": ({"devices": [BACKEND]}, lambda api: api.list_backends()),
    "QPU of a list with wait times": (
        {"devices": [BACKEND]},
        lambda api: (
            BackendRequirements.validate(max_wait=90).select(api.list_backends(wait_times=True)).to_json()
        ),
    ),
    "get-backend-properties": (PROPERTIES, lambda api: api.backend_properties("ibm_fez")),
    "get-instance-usage": (INSTANCE_USAGE, lambda api: api.instance_usage()),
    "usage that is left": (INSTANCE_USAGE, lambda api: api.instance_usage().shortage(600)),
    "create-job": (JOB, lambda api: api.submit_job("sampler", backend="ibm_fez", params=PUBS)),
    "get-job": (JOB, lambda api: api.get_job("x")),
    "get-job-results": (RESULTS, lambda api: api.job_results("x")),
    "decoded results": (RESULTS, decoded),
    "decoded results of Qiskit": (ENCODED, decoded),
    "decoded results of an estimator": (ESTIMATED, decoded),
    "decoded results of the executor": (EXECUTED, decoded),
    "decoded results of a primitive on the executor": (POST_PROCESSED, decoded),
    "decoded results of the noise learner": (LEARNED, decoded),
    "decoded results of the third noise learner": (LEARNED_V3, decoded),
    "decoded results of a calibration": (CALIBRATED, decoded),
    "results as Qiskit's object": (RESULTS, lambda api: raw_to_primitive_result(api.job_results("x"))),
    "results by Qiskit's decoder": (ENCODED, lambda api: raw_to_primitive_result(api.job_results("x"))),
    "get-job-metrics": (METRICS, lambda api: api.job_metrics("x")),
    "get-job-logs": ("a log\n", lambda api: api.job_logs("x")),
    "cancel-job": ({}, lambda api: api.cancel_job("x")),
    "delete-job": ({}, lambda api: api.delete_job("x")),
    "list-workloads": (
        {"workloads": [WORKLOAD], "total_count": 3, "limit": 1, "next": {"href": "?next=b"}},
        lambda api: list(api.list_workloads(limit=1)),
    ),
    "list-jobs": ({"jobs": [JOB], "count": 3}, lambda api: list(api.list_jobs(limit=1))),
    "jobs of a session": ({"jobs": [JOB], "count": 3}, lambda api: api.run_flow(list_session_jobs("s"))),
    "poll of a session with jobs": (POLLED, polled),
    "what a kill ends": (POLLED, killed),
    "lost session": (
        POLLED | {"workloads": [WORKLOAD]},
        lambda api: api.run_flow(PendingCreate("ibm_fez", "dedicated", 600, SINCE).candidates()),
    ),
    "list-jobs in an event loop": (
        {"jobs": [JOB], "count": 3},
        lambda api: everything(api.list_jobs(limit=1)),
    ),
    "get-job-results in an event loop": (RESULTS, lambda api: api.job_results("x")),
    "create-session in an event loop": (SESSION, lambda api: api.create_session("ibm_fez", max_ttl=600)),
}


async def everything(rows: AsyncIterator[Any]) -> list[Any]:
    """Return all rows of a list."""
    return [row async for row in rows]


WITHOUT_TOKEN = ("token", "list-versions")
"""A server that is not sent the token does not know it."""
DECODED = tuple(name for name in READS if "decode" in name or "Qiskit" in name)
"""Results are data: what a server writes into them is handed on, in errors about them as well."""

RAISES_NOTHING = ("what a kill ends",)
"""Errors of several calls are returned together."""

ODD_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2**31,
    10**30,
    -(10**400),
    1e308,
    "",
    " ",
    "x",
    "x" * 5000,
]
ODD_VALUES += [
    float("nan"),
    float("inf"),
    -float("inf"),
    "\ud800",
    "\x00",
    "a\r\nb\x1b[31m",
    "\u202e",
    "0x3",
    "NaN",
]
ODD_VALUES += [
    "2026-13-45T99:99:99Z",
    "http://[",
    "?next=%ff%00",
    "?next=b",
    {"href": "?next=c"},
    {},
    [],
    [[]],
    [{}],
]
ODD_VALUES += ["closed", "Completed", {"status": None}, {"id": "x"}, "a/b", "..", SECRETS[0], SECRETS[1]]
ODD_NAMES = [
    "id",
    "new",
    "errors",
    "error",
    "message",
    "code",
    "trace",
    "next",
    "count",
    "state",
    "limit",
    "\ud800",
    "",
]
STATUSES = [200] * 12 + [
    201,
    204,
    206,
    299,
    301,
    304,
    400,
    401,
    403,
    404,
    408,
    409,
    418,
    423,
    429,
    500,
    503,
    599,
]
MEDIA_TYPES = ["application/json"] * 12 + [
    "application/problem+json",
    "text/plain",
    "text/html",
    "",
    "a/b; charset=zip",
]
MEDIA_TYPES += [
    "text/plain; charset=idna",
    "application/json; charset=undefined",
    "text/plain; charset=hex",
    "json",
]
CODINGS = [""] * 30 + ["identity", "gzip", "gzip, gzip", "deflate", "br", "zstd", "nonsense"]
RETRY_AFTERS = [""] * 10 + [
    "0",
    "5",
    "86400",
    "-1",
    "9" * 30,
    "soon",
    "Wed, 21 Oct 99999 07:28:00 GMT",
    "1e5",
]


class Spoiler:
    """Makes random responses; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def response(self, valid: Any) -> httpx.Response:
        pick = self.random.choice
        status, coding = pick(STATUSES), pick(CODINGS)
        template = valid if self.random.random() < 0.8 else ERROR
        body = self._bytes(template)
        if coding.startswith("gzip"):
            for _ in coding.split(","):
                body = gzip.compress(body, 1)
        headers = {
            "Content-Type": pick(MEDIA_TYPES),
            "Content-Encoding": coding,
            "Retry-After": pick(RETRY_AFTERS),
        }
        if isinstance(valid, str) and self.random.random() < 0.7:
            headers["Content-Type"] = "text/plain; charset=utf-8"
        headers = {name: value for name, value in headers.items() if value}
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

    def _bytes(self, valid: Any) -> bytes:
        kind = self.random.random()
        if kind < 0.02:
            return self.random.randbytes(self.random.randrange(300))
        if kind < 0.03:
            return self._long()
        if kind < 0.05:
            depth = self.random.choice([90, 101, 250, 500, 990, 2000, 50_000])
            opening, closing = self.random.choice([("[", "]"), ('{"a":', "}")])
            return f'{{"id":"x","new":{opening * depth}0{closing * depth}}}'.encode()
        for _ in range(self.random.choice([0, 1, 1, 1, 2, 4])):
            valid = self._changed(valid)
        body = json.dumps(valid).encode() if not isinstance(valid, str) else valid.encode("utf-8", "replace")
        if kind < 0.1:
            body = body[: self.random.randrange(len(body) + 1)]
        elif kind < 0.15:
            body = bytes(byte ^ (self.random.random() < 0.02) * self.random.randrange(256) for byte in body)
        return body

    def _long(self) -> bytes:
        unit = self.random.choice(
            ["{}", "[]", "1", '"0x3"', '{"id":"x"}', '{"id":"y","tags":[1]}', '"\\u0000"']
        )
        name = self.random.choice(
            ["new", "jobs", "workloads", "devices", "versions", "timestamps", "tags", "results"]
        )
        size = self.random.choice([10_000, 10_000, 100_000, 600_000, 1_100_000, 4_500_000])
        return f'{{"id":"x","{name}":[{(unit + ",") * (size // (len(unit) + 1))}{unit}]}}'.encode()

    def _changed(self, value: Any) -> Any:
        """Return the value with one of its parts replaced, added or taken away."""
        pick = self.random.choice
        if isinstance(value, dict) and value and self.random.random() < 0.85:
            name, action = pick(list(value)), self.random.random()
            if action < 0.1:
                return {key: item for key, item in value.items() if key != name}
            if action < 0.2:
                return value | {pick(ODD_NAMES): pick(ODD_VALUES)}
            return value | {name: self._changed(value[name])}
        if isinstance(value, list) and value and self.random.random() < 0.7:
            changed = list(value)
            place = self.random.randrange(len(changed))
            changed[place] = self._changed(changed[place])
            times = pick([1, 1, 2, 300]) if len(changed) == 1 else 1
            # Lists in lists are repeated as well, but not to gigabytes.
            return changed * (times if len(json.dumps(changed)) < LONGEST_REPEATED else 1)
        return pick(ODD_VALUES)


def check(outcome: Any, secrets: tuple[str, ...]) -> None:
    """Raise AssertionError if an outcome cannot be logged or handed on, or tells one of the secrets."""
    if isinstance(outcome, IBMQuantumError):
        text = str(outcome)
        assert text.isprintable(), ascii(text)
        assert len(text) < LONGEST_MESSAGE, len(text)
        assert not any(secret in f"{text}{vars(outcome)}" for secret in secrets), text
        assert outcome.retry_after is None or outcome.retry_after >= 0
        return
    if isinstance(outcome, dict) and "format" in outcome:
        strict(outcome)
    for model in outcome if isinstance(outcome, list) else [outcome]:
        if isinstance(model, BaseModel) and hasattr(model, "to_json"):
            strict(model.to_json())


def fuzz(name: str, count: int, seed: int) -> Counter[str]:
    """
    Read so many responses in one way.

    :returns: How often which outcome came.
    :raises AssertionError: At the first outcome that is neither a good result nor an error of ours.
    """
    valid, call = READS[name]
    spoiler, answers = Spoiler(seed), [0]

    def answer(request: httpx.Request) -> httpx.Response:
        answers[0] += 1
        is_token = request.url.path.endswith("/identity/token")
        if is_token and name != "token":
            return httpx.Response(200, json=TOKEN)
        return spoiler.response(valid)

    def open_client(_credentials: Credentials) -> httpx.Client:
        hooks = {"response": [transport.limit_response_size]}
        return httpx.Client(transport=httpx.MockTransport(answer), event_hooks=hooks)

    def open_async_client(_credentials: Credentials) -> httpx.AsyncClient:
        hooks = {"response": [transport.alimit_response_size]}
        return httpx.AsyncClient(transport=httpx.MockTransport(answer), event_hooks=hooks)

    outcomes: Counter[str] = Counter()
    plain = transport.open_client, transport.open_async_client, client.MAX_READ_IN_LOOP
    transport.open_client, transport.open_async_client = open_client, open_async_client
    client.MAX_READ_IN_LOOP = 30  # all but the shortest are read in a thread
    is_async = name.endswith(" in an event loop")
    policy = RetryPolicy(max_elapsed=0)
    try:
        with IBMQuantumClient(CREDENTIALS, policy) as blocking, asyncio.Runner() as runner:
            api = AsyncIBMQuantumClient(CREDENTIALS, policy) if is_async else blocking
            for number in range(count):
                if name == "token":
                    auth.token_cache(CREDENTIALS).discard(auth.token_cache(CREDENTIALS).get() or "")
                try:
                    outcome = runner.run(call(api)) if is_async else call(api)
                except IBMQuantumError as error:
                    outcome = error
                except Exception as error:
                    raise AssertionError(f"{name}: {error!r} at response {number} of seed {seed}") from error
                known = SECRETS[:1] if name in WITHOUT_TOKEN else SECRETS
                check(outcome, () if name in DECODED else known)
                outcomes[type(outcome).__name__] += 1
    finally:
        transport.open_client, transport.open_async_client, client.MAX_READ_IN_LOOP = plain
        auth._caches.clear()
    return outcomes


def main(count: int = COUNT, seed: int | None = None) -> int:
    """Fuzz all ways of reading, and print what came out."""
    seed = random.randrange(2**32) if seed is None else seed
    print(f"seed {seed}, {count} responses for each of {len(READS)} ways of reading")
    import_module("qiskit_ibm_runtime")  # what a library takes is no growth
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in READS:
        began = time.process_time()
        outcomes = fuzz(name, count, seed)
        words = ", ".join(f"{kind} {times}" for kind, times in outcomes.most_common())
        print(f"{name:18} {time.process_time() - began:6.1f} s  {words}", flush=True)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"memory grew by {growth:.0f} MB at most")
    return int(growth > MAX_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
