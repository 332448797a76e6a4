# SPDX-License-Identifier: Apache-2.0
"""
IBM as the page asks it, and all policy of that: the API server also serves the workers, and must not wait.

Requests are async, time out after five seconds, and at most four are made at once for a connection. What
several people ask is asked once. Responses are kept as long as they are fresh, refusals too; a connection
that does not answer is left alone for a while. For a page with 25 sessions, of which one is unfolded, that
makes at most 60 requests a minute on average. Five such pages make at most a fifth more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_ibm_sessions.cli.metastore import hook_from_database
from airflow_provider_ibm_sessions.client.enums import JobState
from airflow_provider_ibm_sessions.client.errors import (
    ConflictError,
    IBMQuantumError,
    NotFoundError,
    PermissionDeniedError,
)
from airflow_provider_ibm_sessions.client.flows import list_session_jobs
from airflow_provider_ibm_sessions.client.usage import USAGE_COMPLETE
from airflow_provider_ibm_sessions.links import console_url
from airflow_provider_ibm_sessions.plugins._page.details import counts_json, job_json, session_json

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient
    from airflow_provider_ibm_sessions.client.models.instance import Workload
    from airflow_provider_ibm_sessions.client.models.jobs import Job, JobMetrics
    from airflow_provider_ibm_sessions.client.models.sessions import Session
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

log = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
ROUTE_SECONDS = 6.0
"""Seconds after which a route answers with what it has; what is on its way is kept for the next request."""
LANES = 4
FRESH_SECONDS = 10.0
CLICKED_SECONDS = 3.0
"""What a person has just unfolded, or is about to end, is fresh for less long."""
SECONDS_PER_SESSION = 2.4
"""With many sessions, each is read less often: at most one request in so many seconds for all of them."""
COUNTED = 25
SECONDS_PER_COUNT = 4.8
"""Jobs of folded sessions are counted for the first 25, and less often."""
SECONDS_PER_METRICS = 8.0
"""Times and usage of jobs are read again until they are final: one request in so many seconds for all."""
INSTANCE_SECONDS = 300.0
BREAKER_SECONDS = 15.0
CREDENTIALS_SECONDS = 60.0
END_SECONDS = 15.0
MAX_JOBS = 200
MAX_METRICS = 60
MAX_WORKLOADS = 500

_MAX_KEPT = 5_000
_FOREVER = float("inf")
_NO_ANSWER = "IBM does not answer"


@dataclass(slots=True)
class Answer:
    """
    IBM's last answer, and the error since, if there is one.

    :param at: When it was read, in seconds since the epoch.
    :param refused_at: When IBM answered with the error, such as 404; 0 if it did not answer at all.
    """

    value: Any = None
    at: float = 0.0
    error: str | None = None
    refused_at: float = 0.0


class LiveSessions:
    """Sessions, jobs and workloads as IBM describes them now, for all who look at the page."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """
        Start without an answer or a connection.

        :param clock: Returns the seconds since the epoch.
        """
        self._clock = clock
        self._kept: OrderedDict[tuple[str, ...], Answer] = OrderedDict()
        self._flights: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._broken_until: dict[str, float] = {}
        self._hooks: dict[str, tuple[float, IBMQuantumHook]] = {}
        # Not the API server's own threads: a secrets backend or IBM may take its time.
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="ibm-quantum-connection")
        self._enders = ThreadPoolExecutor(2, thread_name_prefix="ibm-quantum-end")

    @staticmethod
    def is_enabled() -> bool:
        """Return False if Airflow's configuration forbids the API server to ask IBM."""
        return bool(conf.getboolean("ibm_quantum", "ui_live", fallback=True))

    async def sessions(self, wanted: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
        """Return sessions by id, each with when it was read and what went wrong since."""
        pairs = list(wanted)
        return await self._sessions(pairs, max(FRESH_SECONDS, SECONDS_PER_SESSION * len(pairs)))

    async def session(self, conn_id: str, session_id: str, *, clicked: bool = False) -> dict[str, Any]:
        """
        Return the session that a person has unfolded.

        :param clicked: True if it was unfolded just now; False if the page polls it.
        """
        return (await self._sessions([(conn_id, session_id)], _fresh_seconds(clicked)))[session_id]

    async def _sessions(self, pairs: list[tuple[str, str]], fresh: float) -> dict[str, dict[str, Any]]:
        answers = await self._get_all(
            [(conn_id, _session_key(conn_id, session_id), fresh) for conn_id, session_id in pairs],
            [_read_session(session_id) for _, session_id in pairs],
        )
        return {
            session_id: _shown(answer, session_json)
            for (_, session_id), answer in zip(pairs, answers, strict=True)
        }

    async def job_counts(self, wanted: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
        """Return how many jobs of each session are done, failed, queued and running, and their QPU time."""
        pairs = list(wanted)[:COUNTED]
        fresh = max(FRESH_SECONDS, SECONDS_PER_COUNT * len(pairs))
        answers = await self._get_all(
            [(conn_id, _jobs_key(conn_id, session_id), fresh) for conn_id, session_id in pairs],
            [_read_jobs(session_id) for _, session_id in pairs],
        )
        return {
            session_id: _shown(answer, counts_json)
            for (_, session_id), answer in zip(pairs, answers, strict=True)
            if answer.value is not None
        }

    async def job_counts_now(self, conn_id: str, session_id: str) -> dict[str, Any]:
        """Return the counts of the jobs of a session that a person is about to end, and the error since."""
        key = _jobs_key(conn_id, session_id)
        [answer] = await self._get_all([(conn_id, key, CLICKED_SECONDS)], [_read_jobs(session_id)])
        return _shown(answer, counts_json)

    async def jobs(
        self, conn_id: str, session_id: str, *, is_job: bool = False, clicked: bool = False
    ) -> dict[str, Any]:
        """
        Return the newest jobs of a session, with the times of those that have started.

        :param is_job: True if it is a single job, and the id its own.
        :param clicked: True if the session was unfolded just now; False if the page polls it.
        """
        key, read = _jobs_key(conn_id, session_id), _read_job if is_job else _read_jobs
        [listed] = await self._get_all([(conn_id, key, _fresh_seconds(clicked))], [read(session_id)])
        jobs: list[Job] = (listed.value or [])[-MAX_JOBS:]
        started = [job for job in jobs if job.final_status != JobState.QUEUED][-MAX_METRICS:]
        keys = [(conn_id, "metrics", job.id, str(job.final_status)) for job in started]
        # By its state: what was read before the job was final does not have its end.
        final = [
            job.is_final and _is_final(self._kept.get(key, Answer()).value)
            for job, key in zip(started, keys, strict=True)
        ]
        soon = max(FRESH_SECONDS, SECONDS_PER_METRICS * final.count(False))
        metrics = await self._get_all(
            [
                (conn_id, key, _FOREVER if is_final else soon)
                for key, is_final in zip(keys, final, strict=True)
            ],
            [_read_metrics(job.id) for job in started],
        )
        times = {job.id: answer.value for job, answer in zip(started, metrics, strict=True)}
        return {
            "jobs": [job_json(job, times.get(job.id)) for job in jobs],
            "counts": None if listed.value is None else counts_json(listed.value),
            "jobs_left_out": len(listed.value or []) - len(jobs),
            "jobs_error": listed.error,
        }

    async def connection(self, conn_id: str) -> dict[str, Any]:
        """Return the price of a connection's seconds, and what is left of its instance's budget."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                credentials: Any = (await self._hook(conn_id)).credentials
        except (IBMQuantumError, TimeoutError) as error:
            return {"error": _text(error)}
        price = getattr(credentials, "price_per_second", None)
        about: dict[str, Any] = {
            "price": None if price is None else float(price),
            "currency": getattr(credentials, "currency", None),
        }
        if self.is_enabled():
            key = (conn_id, "instance")
            [answer] = await self._get_all([(conn_id, key, INSTANCE_SECONDS)], [_read_instance])
            about["seconds_left"] = getattr(answer.value, "remaining", None)
        return about

    async def workloads(self, conn_id: str) -> tuple[list[Workload], str | None]:
        """Return the open sessions and batches of the API key's user, and the error if they are not known."""
        key = (conn_id, "workloads")
        [answer] = await self._get_all([(conn_id, key, FRESH_SECONDS)], [_read_workloads])
        return answer.value or [], answer.error

    async def end(self, conn_id: str, session_id: str, action: str) -> dict[str, Any]:
        """
        Drain or close a session, and confirm it by reading the session.

        :returns: With ``confirmed``: False if IBM has not answered yet, or with an ``error``.
        """
        loop = asyncio.get_running_loop()
        key = (conn_id, "end", session_id, action)
        if key not in self._flights:
            self._start(key, self._end(loop, conn_id, session_id, action))
        await asyncio.wait({self._flights[key]}, timeout=END_SECONDS)
        if key in self._flights and not self._flights[key].done():
            return {"confirmed": False, "error": None}
        answer = self._kept.pop(key, Answer(error=_NO_ANSWER))
        if answer.error:
            return {"confirmed": False, "error": answer.error}
        return {"confirmed": True, **_shown(answer, session_json)}

    async def _end(self, loop: asyncio.AbstractEventLoop, conn_id: str, session_id: str, action: str) -> None:
        key = (conn_id, "end", session_id, action)
        try:
            session = await loop.run_in_executor(self._enders, _end_now, conn_id, session_id, action)
        except IBMQuantumError as error:
            self._keep(key, Answer(error=error.message))
        except Exception as error:  # whatever failed, the page says so
            log.exception("Session %s could not be ended (%s). End it in IBM's console", session_id, action)
            self._keep(key, Answer(error=type(error).__name__))
        else:
            self._keep(key, Answer(session, self._clock()))
            self._keep(_session_key(conn_id, session_id), Answer(session, self._clock()))
            self._kept.pop(_jobs_key(conn_id, session_id), None)
            self._kept.pop((conn_id, "workloads"), None)

    async def _get_all(
        self,
        wanted: list[tuple[str, tuple[str, ...], float]],
        reads: list[Callable[[AsyncIBMQuantumClient], Awaitable[Any]]],
    ) -> list[Answer]:
        """Return what is kept, after reading what is not fresh, as far as that is possible in time."""
        if self.is_enabled():
            for (conn_id, key, fresh), read in zip(wanted, reads, strict=True):
                if key not in self._flights and not self._is_fresh(key, fresh):
                    self._start(key, self._read(conn_id, key, read))
            if flights := {self._flights[key] for _, key, _ in wanted if key in self._flights}:
                await asyncio.wait(flights, timeout=ROUTE_SECONDS)
        return [self._kept.get(key, Answer()) for _, key, _ in wanted]

    def _is_fresh(self, key: tuple[str, ...], seconds: float) -> bool:
        answer = self._kept.get(key)
        if answer is None:
            return False
        if answer.error:
            return self._clock() - answer.refused_at < seconds
        is_final = getattr(answer.value, "is_closed", False)
        return is_final or self._clock() - answer.at < seconds

    def _start(self, key: tuple[str, ...], work: Any) -> None:
        self._flights[key] = task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._flights.pop(key, None))

    async def _read(
        self,
        conn_id: str,
        key: tuple[str, ...],
        read: Callable[[AsyncIBMQuantumClient], Awaitable[Any]],
    ) -> None:
        """Make one request and keep its outcome; an error leaves the last answer beside it."""
        error, refused_at = _NO_ANSWER, 0.0
        async with self._lanes.setdefault(conn_id, asyncio.Semaphore(LANES)):
            if time.monotonic() >= self._broken_until.get(conn_id, 0.0):
                try:
                    async with asyncio.timeout(REQUEST_SECONDS):
                        hook = await self._hook(conn_id)
                        async with hook.async_client() as client:
                            self._keep(key, Answer(await read(client), self._clock()))
                            return
                except (NotFoundError, PermissionDeniedError, ConflictError) as refusal:
                    error, refused_at = _text(refusal), self._clock()
                except (IBMQuantumError, TimeoutError) as failure:
                    error = _text(failure)
                    self._broken_until[conn_id] = time.monotonic() + BREAKER_SECONDS
        last = self._kept.get(key, Answer())
        self._keep(key, Answer(last.value, last.at, error, refused_at))

    async def _hook(self, conn_id: str) -> IBMQuantumHook:
        """Return the hook on a connection, which is read again after a minute."""
        read_at, hook = self._hooks.get(conn_id, (0.0, None))
        if hook is None or time.monotonic() - read_at > CREDENTIALS_SECONDS:
            loop = asyncio.get_running_loop()
            hook = await loop.run_in_executor(self._readers, _hook_now, conn_id)
            self._hooks[conn_id] = time.monotonic(), hook
        return hook

    async def console(self, conn_id: str) -> Callable[[str], str]:
        """Return a function from a session's id to its page at IBM, or at the connection's emulator."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return (await self._hook(conn_id)).console_url
        except (IBMQuantumError, TimeoutError):
            return console_url

    def _keep(self, key: tuple[str, ...], answer: Answer) -> None:
        self._kept[key] = answer
        self._kept.move_to_end(key)
        while len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)


def _is_final(metrics: JobMetrics | None) -> bool:
    return bool(metrics and metrics.usage and metrics.usage.status == USAGE_COMPLETE)


def _shown(answer: Answer, to_json: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    shown = {} if answer.value is None else {**to_json(answer.value), "at": answer.at}
    return {**shown, "error": answer.error} if answer.error else shown


def _fresh_seconds(clicked: bool) -> float:
    return CLICKED_SECONDS if clicked else FRESH_SECONDS


def _session_key(conn_id: str, session_id: str) -> tuple[str, ...]:
    return conn_id, "session", session_id


def _jobs_key(conn_id: str, session_id: str) -> tuple[str, ...]:
    return conn_id, "jobs", session_id


def _read_session(session_id: str) -> Callable[[AsyncIBMQuantumClient], Awaitable[Any]]:
    return lambda client: client.get_session(session_id)


def _read_jobs(session_id: str) -> Callable[[AsyncIBMQuantumClient], Awaitable[Any]]:
    return lambda client: client.run_flow(list_session_jobs(session_id))


def _read_job(job_id: str) -> Callable[[AsyncIBMQuantumClient], Awaitable[Any]]:
    async def read(client: AsyncIBMQuantumClient) -> Any:
        return [await client.get_job(job_id)]

    return read


def _read_metrics(job_id: str) -> Callable[[AsyncIBMQuantumClient], Awaitable[Any]]:
    return lambda client: client.job_metrics(job_id)


async def _read_instance(client: AsyncIBMQuantumClient) -> Any:
    # A key may lack the right to read the instance's usage: then there is no such card, and no error.
    read = getattr(client, "instance_usage", None)
    try:
        return await read() if read else None
    except (NotFoundError, PermissionDeniedError):
        return None


async def _read_workloads(client: AsyncIBMQuantumClient) -> list[Workload]:
    found: list[Workload] = []
    for mode in ("session", "batch"):
        async for workload in client.list_workloads(mode=mode, status=["pending", "in_progress"], user="me"):
            found.append(workload)
            if len(found) >= MAX_WORKLOADS:
                break
    return found


def _hook_now(conn_id: str) -> IBMQuantumHook:
    hook = hook_from_database(conn_id, closed_by="the page in Airflow")
    hook.credentials  # noqa: B018 - read here, in a thread
    return hook


def _end_now(conn_id: str, session_id: str, action: str) -> Session:
    """
    End a session through the hook, which repeats, confirms and unregisters.

    :raises IBMQuantumError: If it is not confirmed; names the session.
    """
    hook = _hook_now(conn_id)
    try:
        if action == "drain":
            return hook.drain_session(session_id)
        session = hook.close_session(session_id)
        if session is None:
            raise NotFoundError(f"IBM does not know session {session_id}; it may be too recent to be listed")
        return session
    finally:
        hook.get_conn().close()


def _text(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"{_NO_ANSWER} within {REQUEST_SECONDS:g} s"
    return str(getattr(error, "message", error))[:300]
