# SPDX-License-Identifier: Apache-2.0
"""
The scenarios.

Time limits: Airflow takes a worker for lost after 15 s here, by default after 300. To that come up to a
minute for the retry on a busy machine, and the time of the jobs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.integration.process_kills.scenario import (
    Failure,
    Scenario,
    at_end,
    deferred,
    request,
    responded,
    waiting,
)

SESSIONS, JOBS, ONE = "/v1/sessions", "/v1/jobs", "/v1/sessions/*"
CLOSE = "/v1/sessions/*/close"
RETRIED, USER, RESTARTED = 90.0, 60.0, 90.0
TIMED_OUT = 120.0
"""The Dag's dagrun_timeout of 45 s, and as much for max_ttl; or its dagrun_timeout of 100 s."""
LONG = 25.0
"""Seconds that jobs run on while a process is killed and replaced."""
LONGER = 40.0
"""Seconds that jobs run on until a new scheduler is up and has found that the old one is gone."""
NEVER = 3000.0
"""Jobs that would still run at the end of the tests: they must be cancelled."""
OF_3, OF_1 = {"Completed": 3}, {"Completed": 1}
COMPLETED_3: dict[str, Any] = {"run": "success", "jobs": OF_3, "job_seconds": LONG}
COMPLETED_1: dict[str, Any] = {**COMPLETED_3, "jobs": OF_1}
CANCELLED_3: dict[str, Any] = {"run": "failed", "jobs": {"Cancelled": 3}, "job_seconds": NEVER}
CANCELLED_1: dict[str, Any] = {**CANCELLED_3, "jobs": {"Cancelled": 1}}

CREATE = partial(
    Scenario, "create", dag="kills_session", task="create", time_limit=RETRIED, run="success", jobs=OF_1
)
RUN = partial(Scenario, "run-jobs", dag="kills_run", task="run", time_limit=RETRIED, run="success", jobs=OF_3)
RUN_DEFERRED = partial(
    Scenario,
    operation="run-jobs",
    moment=deferred(3),
    dag="kills_run_deferred",
    task="run",
    time_limit=RESTARTED,
)
DECLINES = partial(
    Scenario,
    "run-jobs that declines",
    time_limit=USER + 25,
    task="run",
    run="failed",
    jobs=OF_3,
    job_seconds=LONG,
)
CLOSING = partial(
    Scenario, "close", dag="kills_session", task="close", time_limit=RETRIED, run="success", jobs=OF_1
)
DRAIN = partial(
    Scenario, "close with drain", task="close", time_limit=RETRIED, run="success", jobs=OF_1, job_seconds=LONG
)
SUBMIT = partial(Scenario, "submit", task="submit", time_limit=RETRIED)
FUNCTION = partial(
    Scenario, "decorated function", responded("never", "inside of it"), task="work", jobs=OF_1, run="failed"
)

ALL = (
    FUNCTION(Failure.WORKER, dag="kills_function_last_try", time_limit=100, max_ttl=60),
    FUNCTION(
        Failure.WORKER,
        dag="kills_function",
        time_limit=100,
        max_ttl=60,
        run="success",
        jobs={"Completed": 2},
        sessions=2,
    ),
    FUNCTION(Failure.FAILED, dag="kills_function", time_limit=USER),
    SUBMIT(
        waiting(1, "waits in the worker; no teardown, max_ttl closes"),
        Failure.TIME,
        dag="kills_timeout",
        time_limit=TIMED_OUT,
        **CANCELLED_1,
    ),
    RUN(waiting(3), Failure.TIME, dag="kills_run_timeout", time_limit=TIMED_OUT, **CANCELLED_3),
    RUN_DEFERRED(failure=Failure.TIME, dag="kills_run_deferred_timeout", time_limit=TIMED_OUT, **CANCELLED_3),
    CREATE(request("POST", "/identity/token", "before", "asking for a token"), Failure.WORKER),
    CREATE(request("POST", SESSIONS, "before", "POST sent, not carried out"), Failure.WORKER),
    CREATE(request("POST", SESSIONS, "after", "POST carried out, no response"), Failure.WORKER),
    CREATE(responded("POST /api/v1/sessions", "response received, id not stored"), Failure.WORKER),
    CREATE(at_end(), Failure.WORKER),
    CREATE(request("POST", SESSIONS, "after", "POST carried out, no response"), Failure.TASK),
    CREATE(at_end(), Failure.FAILED, time_limit=USER, run="failed", jobs={}),
    RUN(request("POST", SESSIONS, "before", "opening, not carried out"), Failure.WORKER),
    RUN(request("POST", SESSIONS, "after", "opening, carried out"), Failure.WORKER),
    RUN(request("POST", JOBS, "before", "first job sent, not carried out"), Failure.WORKER),
    RUN(request("POST", JOBS, "after", "first job carried out"), Failure.WORKER),
    RUN(request("POST", JOBS, "after", "second job carried out", skip=1), Failure.TASK),
    RUN(request("POST", JOBS, "after", "last job carried out", skip=2), Failure.WORKER),
    RUN(request("PATCH", ONE, "before", "drain sent, not carried out"), Failure.WORKER),
    RUN(request("PATCH", ONE, "after", "drain carried out"), Failure.WORKER),
    RUN(waiting(3), Failure.WORKER, job_seconds=LONG),
    RUN(request("GET", "/v1/jobs/*/results", "after", "collecting results"), Failure.WORKER),
    RUN(at_end(), Failure.WORKER),
    RUN(waiting(3), Failure.FAILED, time_limit=USER, **CANCELLED_3),
    RUN(waiting(3), Failure.CLEAR, job_seconds=LONG),
    RUN_DEFERRED(failure=Failure.FAILED, time_limit=USER, **CANCELLED_3),
    RUN_DEFERRED(failure=Failure.CLEAR, **COMPLETED_3),
    DECLINES(deferred(3), Failure.FAILED, dag="kills_run_deferred_declines"),
    DECLINES(waiting(3), Failure.FAILED, dag="kills_run_declines"),
    CLOSING(request("DELETE", CLOSE, "before", "DELETE sent, not carried out"), Failure.WORKER),
    CLOSING(request("DELETE", CLOSE, "after", "DELETE carried out"), Failure.WORKER),
    CLOSING(request("GET", ONE, "after", "confirming", skip=1), Failure.WORKER),
    DRAIN(waiting(1), Failure.WORKER, dag="kills_drain"),
    DRAIN(deferred(1), Failure.FAILED, dag="kills_drain_deferred", run="failed"),
    SUBMIT(
        request("POST", JOBS, "after", "POST carried out"),
        Failure.WORKER,
        dag="kills_session",
        run="success",
        jobs=OF_1,
    ),
    SUBMIT(deferred(1), Failure.FAILED, dag="kills_submit_deferred", time_limit=USER, **CANCELLED_1),
    SUBMIT(deferred(1), Failure.RUN_FAILED, dag="kills_submit_deferred", time_limit=USER, **CANCELLED_1),
    SUBMIT(
        waiting(1, "waits in the worker, last try; the teardown closes"),
        Failure.WORKER,
        dag="kills_last_try",
        run="failed",
        jobs=OF_1,
        job_seconds=LONG,
    ),
    RUN_DEFERRED(failure=Failure.TRIGGERER, **COMPLETED_3),
    # The next triggerer may take the trigger over and end the jobs, or find it deleted: then the session,
    # which is drained, closes with its last job.
    RUN_DEFERRED(
        failure=Failure.TRIGGERER_THEN_FAILED,
        run="failed",
        jobs={"Cancelled": 3},
        or_jobs=OF_3,
        job_seconds=LONG,
    ),
    DRAIN(deferred(1), Failure.TRIGGERER, dag="kills_drain_deferred"),
    SUBMIT(deferred(1), Failure.TRIGGERER, dag="kills_submit_deferred", **COMPLETED_1),
    RUN_DEFERRED(failure=Failure.SCHEDULER, **COMPLETED_3),
    RUN(waiting(3), Failure.SCHEDULER, job_seconds=LONGER, time_limit=150),
    DRAIN(waiting(1), Failure.SCHEDULER, dag="kills_drain", job_seconds=LONGER, time_limit=150),
    CREATE(request("POST", SESSIONS, "after", "POST carried out, no response"), Failure.SCHEDULER),
    CREATE(at_end(), Failure.MACHINE),
    RUN(request("POST", JOBS, "after", "first job carried out"), Failure.MACHINE),
    RUN(waiting(3), Failure.MACHINE, job_seconds=LONG),
    RUN_DEFERRED(failure=Failure.MACHINE, **COMPLETED_3),
    CLOSING(request("DELETE", CLOSE, "before", "DELETE sent, not carried out"), Failure.MACHINE),
)
