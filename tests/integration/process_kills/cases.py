# SPDX-License-Identifier: Apache-2.0
"""
The scenarios.

Bounds: Airflow gives up a worker here after 15 s, by default after 300. To that come up to a minute for the
retry on a busy machine, and the time of the jobs.
"""

from __future__ import annotations

from functools import partial

from tests.integration.process_kills.scenario import (
    Blow,
    Scenario,
    at_end,
    deferred,
    replied,
    request,
    waiting,
)

SESSIONS, JOBS, ONE = "/v1/sessions", "/v1/jobs", "/v1/sessions/*"
CLOSE = "/v1/sessions/*/close"
RETRIED, USER, REVIVED = 90.0, 60.0, 90.0
TIMED_OUT = 120.0
"""The Dag's dagrun_timeout of 45 s, and as much for max_ttl; or its dagrun_timeout of 100 s."""
LONG = 25.0
"""Seconds that jobs run on while somebody dies."""
LONGER = 40.0
"""Seconds that jobs run on until a new scheduler is up and has seen that the old one is gone."""
NEVER = 3000.0
"""Jobs that would still run at the end of the tests: they must be cancelled."""
OF_3, OF_1 = {"Completed": 3}, {"Completed": 1}

CREATE = partial(
    Scenario, "create", dag="kills_session", task="create", bound=RETRIED, run="success", jobs=OF_1
)
RUN = partial(Scenario, "run-jobs", dag="kills_run", task="run", bound=RETRIED, run="success", jobs=OF_3)
RUN_DEFERRED = partial(
    Scenario, what="run-jobs", moment=deferred(3), dag="kills_run_deferred", task="run", bound=REVIVED
)
DECLINES = partial(
    Scenario, "run-jobs that declines", bound=USER + 25, task="run", run="failed", jobs=OF_3, job_seconds=LONG
)
CLOSING = partial(
    Scenario, "close", dag="kills_session", task="close", bound=RETRIED, run="success", jobs=OF_1
)
DRAIN = partial(
    Scenario, "close with drain", task="close", bound=RETRIED, run="success", jobs=OF_1, job_seconds=LONG
)
SUBMIT = partial(Scenario, "submit", task="submit", bound=RETRIED)
FUNCTION = partial(
    Scenario, "decorated function", replied("never", "inside of it"), task="work", jobs=OF_1, run="failed"
)

ALL = (
    FUNCTION(Blow.WORKER, dag="kills_function_last_try", bound=100, max_ttl=60),
    FUNCTION(
        Blow.WORKER,
        dag="kills_function",
        bound=100,
        max_ttl=60,
        run="success",
        jobs={"Completed": 2},
        sessions=2,
    ),
    FUNCTION(Blow.FAILED, dag="kills_function", bound=USER),
    SUBMIT(
        waiting(1, "waits in the worker; no teardown, max_ttl closes"),
        Blow.TIME,
        dag="kills_timeout",
        bound=TIMED_OUT,
        run="failed",
        jobs={"Cancelled": 1},
        job_seconds=NEVER,
    ),
    RUN(
        waiting(3),
        Blow.TIME,
        dag="kills_run_timeout",
        bound=TIMED_OUT,
        run="failed",
        jobs={"Cancelled": 3},
        job_seconds=NEVER,
    ),
    RUN_DEFERRED(
        blow=Blow.TIME,
        dag="kills_run_deferred_timeout",
        bound=TIMED_OUT,
        run="failed",
        jobs={"Cancelled": 3},
        job_seconds=NEVER,
    ),
    CREATE(request("POST", "/identity/token", "before", "asking for a token"), Blow.WORKER),
    CREATE(request("POST", SESSIONS, "before", "POST sent, not carried out"), Blow.WORKER),
    CREATE(request("POST", SESSIONS, "after", "POST carried out, no reply"), Blow.WORKER),
    CREATE(replied("POST /api/v1/sessions", "POST replied, id not stored"), Blow.WORKER),
    CREATE(at_end(), Blow.WORKER),
    CREATE(request("POST", SESSIONS, "after", "POST carried out, no reply"), Blow.TASK),
    CREATE(at_end(), Blow.FAILED, bound=USER, run="failed", jobs={}),
    RUN(request("POST", SESSIONS, "before", "opening, not carried out"), Blow.WORKER),
    RUN(request("POST", SESSIONS, "after", "opening, carried out"), Blow.WORKER),
    RUN(request("POST", JOBS, "before", "first job sent, not carried out"), Blow.WORKER),
    RUN(request("POST", JOBS, "after", "first job carried out"), Blow.WORKER),
    RUN(request("POST", JOBS, "after", "second job carried out", skip=1), Blow.TASK),
    RUN(request("POST", JOBS, "after", "last job carried out", skip=2), Blow.WORKER),
    RUN(request("PATCH", ONE, "before", "drain sent, not carried out"), Blow.WORKER),
    RUN(request("PATCH", ONE, "after", "drain carried out"), Blow.WORKER),
    RUN(waiting(3), Blow.WORKER, job_seconds=LONG),
    RUN(request("GET", "/v1/jobs/*/results", "after", "collecting results"), Blow.WORKER),
    RUN(at_end(), Blow.WORKER),
    RUN(waiting(3), Blow.FAILED, bound=USER, run="failed", jobs={"Cancelled": 3}, job_seconds=NEVER),
    RUN(waiting(3), Blow.CLEAR, job_seconds=LONG),
    RUN_DEFERRED(blow=Blow.FAILED, bound=USER, run="failed", jobs={"Cancelled": 3}, job_seconds=NEVER),
    RUN_DEFERRED(blow=Blow.CLEAR, run="success", jobs=OF_3, job_seconds=LONG),
    DECLINES(deferred(3), Blow.FAILED, dag="kills_run_deferred_declines"),
    DECLINES(waiting(3), Blow.FAILED, dag="kills_run_declines"),
    CLOSING(request("DELETE", CLOSE, "before", "DELETE sent, not carried out"), Blow.WORKER),
    CLOSING(request("DELETE", CLOSE, "after", "DELETE carried out"), Blow.WORKER),
    CLOSING(request("GET", ONE, "after", "confirming", skip=1), Blow.WORKER),
    DRAIN(waiting(1), Blow.WORKER, dag="kills_drain"),
    DRAIN(deferred(1), Blow.FAILED, dag="kills_drain_deferred", run="failed"),
    SUBMIT(
        request("POST", JOBS, "after", "POST carried out"),
        Blow.WORKER,
        dag="kills_session",
        run="success",
        jobs=OF_1,
    ),
    SUBMIT(
        deferred(1),
        Blow.FAILED,
        dag="kills_submit_deferred",
        bound=USER,
        run="failed",
        jobs={"Cancelled": 1},
        job_seconds=NEVER,
    ),
    SUBMIT(
        deferred(1),
        Blow.RUN_FAILED,
        dag="kills_submit_deferred",
        bound=USER,
        run="failed",
        jobs={"Cancelled": 1},
        job_seconds=NEVER,
    ),
    SUBMIT(
        waiting(1, "waits in the worker, last try; the teardown closes"),
        Blow.WORKER,
        dag="kills_last_try",
        run="failed",
        jobs=OF_1,
        job_seconds=LONG,
    ),
    RUN_DEFERRED(blow=Blow.TRIGGERER, run="success", jobs=OF_3, job_seconds=LONG),
    # The next triggerer may take the trigger over and end the jobs, or find it struck out: then the session,
    # which is drained, closes with its last job.
    RUN_DEFERRED(
        blow=Blow.TRIGGERER_THEN_FAILED, run="failed", jobs={"Cancelled": 3}, or_jobs=OF_3, job_seconds=LONG
    ),
    DRAIN(deferred(1), Blow.TRIGGERER, dag="kills_drain_deferred"),
    SUBMIT(
        deferred(1), Blow.TRIGGERER, dag="kills_submit_deferred", run="success", jobs=OF_1, job_seconds=LONG
    ),
    RUN_DEFERRED(blow=Blow.SCHEDULER, run="success", jobs=OF_3, job_seconds=LONG),
    RUN(waiting(3), Blow.SCHEDULER, job_seconds=LONGER, bound=150),
    DRAIN(waiting(1), Blow.SCHEDULER, dag="kills_drain", job_seconds=LONGER, bound=150),
    CREATE(request("POST", SESSIONS, "after", "POST carried out, no reply"), Blow.SCHEDULER),
    CREATE(at_end(), Blow.MACHINE),
    RUN(request("POST", JOBS, "after", "first job carried out"), Blow.MACHINE),
    RUN(waiting(3), Blow.MACHINE, job_seconds=LONG),
    RUN_DEFERRED(blow=Blow.MACHINE, run="success", jobs=OF_3, job_seconds=LONG),
    CLOSING(request("DELETE", CLOSE, "before", "DELETE sent, not carried out"), Blow.MACHINE),
)
