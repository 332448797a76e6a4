# SPDX-License-Identifier: Apache-2.0
"""
One GET through our client, against the same GET through bare httpx.

Both keep their connection, send the same headers and read the reply's JSON. What ours adds: checking the id
and building the request, the token cache, the retry policy, bounds on the reply's time and size, checking
its status and content type, and reading the JSON into a model.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median

import httpx

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, Credentials, IBMQuantumClient
from airflow_provider_ibm_sessions.client.client import APPLICATION
from benchmarks.stub_server import SESSION, TOKEN
from testing.subprocesses import serving
from testing.tables import table, target

MAX_RATIO = 1.25
_WARM_UP = 50
_ID = str(SESSION["id"])
_CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:01234567-89ab::"

Medians = tuple[float, float]


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    with serving("benchmarks.stub_server") as server:
        url = server.about["url"]
        credentials = Credentials(api_key="benchmark", crn=_CRN, url=url, iam_url=url)
        figures = {
            "blocking": blocking(credentials, options.gets),
            "async": asyncio.run(on_a_loop(credentials, options.gets)),
        }
    print((__doc__ or "").strip().partition("\n\n")[2] + "\n")
    table(
        (f"median of {options.gets}, in turn", "bare httpx, µs", "ours, µs", "difference, µs", "ratio"),
        [
            (name, f"{bare:.0f}", f"{ours:.0f}", f"{ours - bare:.0f}", f"{ours / bare:.2f}")
            for name, (bare, ours) in figures.items()
        ],
    )
    print()
    for name, (bare, ours) in figures.items():
        ratio = ours / bare
        target(f"at most {MAX_RATIO} times bare httpx ({name})", f"{ratio:.2f}", met=ratio <= MAX_RATIO)


def blocking(credentials: Credentials, count: int) -> Medians:
    """Median times in µs: through ``httpx.Client``, and through our client."""
    url, headers = _request(credentials)
    with httpx.Client() as bare, IBMQuantumClient(credentials) as ours:
        calls: list[Callable[[], object]] = [
            lambda: bare.get(url, headers=headers).json(),
            lambda: ours.get_session(_ID),
        ]
        return _medians([[_timed(call) for call in calls] for _ in range(_WARM_UP + count)])


async def on_a_loop(credentials: Credentials, count: int) -> Medians:
    """Median times in µs: through ``httpx.AsyncClient``, and through our async client."""
    url, headers = _request(credentials)
    async with httpx.AsyncClient() as bare, AsyncIBMQuantumClient(credentials) as ours:

        async def bare_get() -> object:
            return (await bare.get(url, headers=headers)).json()

        calls: list[Callable[[], Awaitable[object]]] = [bare_get, lambda: ours.get_session(_ID)]
        return _medians([[await _atimed(call) for call in calls] for _ in range(_WARM_UP + count)])


def _request(credentials: Credentials) -> tuple[str, dict[str, str]]:
    """The URL, and the headers that our client sends."""
    return f"{credentials.url}/v1/sessions/{_ID}", {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Authorization": f"Bearer {TOKEN['access_token']}",
        "IBM-API-Version": credentials.api_version,
        "Service-CRN": credentials.crn,
        "User-Agent": APPLICATION,
        "X-Qx-Client-Application": APPLICATION,
    }


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


async def _atimed(call: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await call()
    return time.perf_counter() - start


def _medians(samples: Sequence[Sequence[float]]) -> Medians:
    bare, ours = (median(column) * 1e6 for column in zip(*samples[_WARM_UP:], strict=True))
    return bare, ours
