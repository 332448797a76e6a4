# SPDX-License-Identifier: Apache-2.0
"""
Thousands of wrong arguments for each check of user input, and for each task.

Run ``python -m tests.client.fuzz_arguments 10000``.

Each is accepted or refused with a ``ConfigurationError`` of one line that names its field.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from airflow_provider_ibm_sessions.client import Credentials, SessionMode
from airflow_provider_ibm_sessions.client import validation as v
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:11111111-2222::"
KEY = "k" * 44

CHECKS: dict[str, Callable[[Any], Any]] = {
    "backend": v.validate_backend,
    "backends": lambda value: v.validate_backends(value, "backends"),
    "bool": lambda value: v.validate_bool(value, "bool"),
    "choice": lambda value: v.validate_choice(value, SessionMode, "choice"),
    "conn_id": lambda value: v.validate_conn_id(value, "conn_id"),
    "datetime": lambda value: v.validate_datetime(value, "datetime"),
    "id": lambda value: v.validate_id(value, "id"),
    "int": lambda value: v.validate_int(value, "int"),
    "jobs": v.validate_jobs,
    "max_ttl": v.to_seconds,
    "number": lambda value: v.validate_number(value, "number", at_most=1),
    "params": lambda value: v.validate_params(value, "params"),
    "path": lambda value: v.validate_path(value, "path"),
    "program_id": v.validate_program_id,
    "seconds": lambda value: v.validate_seconds(value, "seconds"),
    "states": lambda value: v.validate_states(value, "states"),
    "string": lambda value: v.validate_string(value, "string"),
    "tags": v.validate_tags,
}
FIELDS = (
    "api_key",
    "crn",
    "api_version",
    "url",
    "iam_url",
    "private_endpoint",
    "proxy",
    "verify",
    "timeout",
)


OF_TASKS = {"resume_data", "created_at", "requirements"}
"""Arguments of triggers that a task makes, of arguments that it has checked."""


class Odd:
    """An object whose methods fail."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


def nested(depth: int) -> list[Any]:
    """Return lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


GOOD = [
    CRN,
    "ibm_fez",
    "https://host.example:8443/api",
    "http://[::1]:80/api",
    "2026-04-15",
    "2026-04-15T12:00:00+00:00",
    "2h 30m",
    "true",
    "None",
    '{"pubs": [["OPENQASM 3.0;"]]}',
    "s3://conn@bucket/folder",
    "/etc/hostname",
    "dedicated",
    KEY,
]
ODD_CHARACTERS = (
    "\x00\n\r\t\x1b\x7f\u200b\ufeff\u2028\ud800\u0663é☃\U0001f600 '\"`\\/:@[]{}()%#?&=~.-_*$|<>;,"
)


def string(rng: random.Random) -> str:
    """Return a string: random, or a good one with something changed."""
    if rng.random() < 0.4:
        return "".join(rng.choice(ODD_CHARACTERS + "aZ09") for _ in range(rng.choice((0, 1, 2, 8, 60, 600))))
    text = list(rng.choice(GOOD))
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(text) + 1)
        text[place : place + rng.randrange(3)] = rng.choice(ODD_CHARACTERS) * rng.randrange(3)
    return "".join(text)


def value(rng: random.Random, depth: int = 0) -> Any:
    """Return anything that a person, a template or another task could hand over."""
    plain: list[Callable[[], Any]] = [
        lambda: string(rng),
        lambda: string(rng),
        lambda: string(rng).encode("utf-8", "replace"),
        lambda: rng.choice((None, True, False, Ellipsis, NotImplemented, object(), Odd(), int, len)),
        lambda: rng.choice((0, 1, -1, 2**31, 2**64, -(2**64), 10**400, 10**5000)),
        lambda: rng.uniform(-10, 10) * 10 ** rng.randrange(-5, 300),
        lambda: rng.choice(
            (float("nan"), float("inf"), -0.0, 1j, Decimal("NaN"), Decimal("1e400"), Fraction(1, 3))
        ),
        lambda: rng.choice(
            (
                timedelta.max,
                timedelta.min,
                timedelta(0),
                date.min,
                datetime.max.replace(tzinfo=UTC),
                datetime.min.replace(tzinfo=UTC),
            )
        ),
        lambda: rng.choice(
            (np.int64(5), np.float64("nan"), np.bool_(True), np.array(3), np.zeros((2, 2)), np.array(["a"]))
        ),
        lambda: rng.choice(
            (np.array([Odd()], dtype=object), np.datetime64("NaT"), np.complex128(1), np.float16(2))
        ),
        lambda: rng.choice((Path("/"), Path("None"), nested(50), nested(5000), range(3), iter(()), slice(1))),
    ]
    if depth > 3 or rng.random() < 0.7:
        return rng.choice(plain)()
    items = [value(rng, depth + 1) for _ in range(rng.randrange(5))]
    if rng.random() < 0.5:
        return rng.choice((list, tuple))(items)
    return {string(rng) if rng.random() < 0.8 else rng.choice((1, None, (1,))): item for item in items}


def refused(call: Callable[[Any], Any], argument: Any) -> bool:
    """Return True if the argument is refused as it must be, False if it is accepted."""
    try:
        call(argument)
    except ConfigurationError as error:
        text = str(error)
        assert error.field, text
        assert "\n" not in text, text
        assert len(text) < 600, text
        return True
    return False


def fuzz_tasks(count: int, seed: int = 0) -> dict[str, int]:
    """
    Try ``count`` arguments on each operator, sensor and decorated task; return what was refused.

    What is no template is checked when the task is made; a job, a session and a connection as in a worker.
    """
    from airflow.sdk import BaseOperator

    from airflow_provider_ibm_sessions.lifecycle.session import validate_session_args
    from airflow_provider_ibm_sessions.operators.base import SessionOwnerOperator
    from testing.signatures import classes, make, own_arguments

    def call(cls: type, name: str, argument: Any) -> None:
        try:
            task = make(cls, **{name: argument})
        except RecursionError:  # Airflow's own, where a template is nested too deep
            raise ConfigurationError("nested too deep", field=name) from None
        _ = task.hook
        for check in ("validate_job", "validate_jobs", "validate_paths"):
            if hasattr(task, check):
                getattr(task, check)()
        if isinstance(task, SessionOwnerOperator):
            context: Any = {"dag": SimpleNamespace(dagrun_timeout=None)}
            max_ttl = 60 if task.max_ttl is None else task.max_ttl
            validate_session_args(context, backend=task.backend, mode=task.mode, max_ttl=max_ttl)

    found = {}
    for cls in classes(BaseOperator, "operators", "sensors", "decorators"):
        names = list(own_arguments(cls))
        rng = random.Random(f"{seed} {cls.__name__}")
        found[cls.__name__] = 0
        for name in [rng.choice(names) for _ in range(count)]:
            found[cls.__name__] += refused(partial(call, cls, name), value(rng))
    return found


def fuzz_triggers(count: int, seed: int = 0) -> dict[str, int]:
    """Try ``count`` arguments on each trigger; return what was refused when it was made."""
    from airflow.triggers.base import BaseTrigger

    from testing.bad_values import GOOD_TRIGGER_ARGUMENTS
    from testing.signatures import classes, own_arguments

    found = {}
    for cls in classes(BaseTrigger, "triggers"):
        arguments = own_arguments(cls)
        names = [name for name in arguments if name not in OF_TASKS]
        good = {name: each for name, each in GOOD_TRIGGER_ARGUMENTS.items() if name in arguments}
        rng = random.Random(f"{seed} {cls.__name__}")
        found[cls.__name__] = 0
        for name in [rng.choice(names) for _ in range(count)]:
            found[cls.__name__] += refused(
                lambda argument, cls=cls, good=good, name=name: cls(**{**good, name: argument}), value(rng)
            )
    return found


def fuzz_calls(count: int, seed: int = 0) -> dict[str, int]:
    """Try ``count`` arguments on the methods of the client and of the hook; IBM knows nothing."""
    import httpx

    from airflow_provider_ibm_sessions.client import IBMQuantumClient, RetryPolicy
    from airflow_provider_ibm_sessions.client._http import transport
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from testing.signatures import INTERNAL, methods

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/identity/token"):
            return httpx.Response(200, json={"access_token": "a-token", "expires_in": 3600})
        return httpx.Response(404, json={"errors": [{"code": "not_found", "message": "unknown"}]})

    def call(owner: object, name: str, arguments: dict[str, Any]) -> None:
        try:
            outcome = getattr(owner, name)(**arguments)
            if isinstance(outcome, Iterator):
                next(outcome, None)
        except ConfigurationError as error:
            if not error.sent:
                raise
        except IBMQuantumError:
            pass
        except Exception as error:
            # Of a QPU that it does not find, Qiskit has an error of its own.
            if not type(error).__module__.startswith("qiskit"):
                raise

    def open_client(_credentials: Credentials) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(answer))

    plain, transport.open_client = transport.open_client, open_client
    os.environ["AIRFLOW_CONN_FUZZED"] = json.dumps(
        {"conn_type": "ibm_quantum", "password": KEY, "extra": {"crn": CRN}}
    )
    found = {}
    try:
        credentials = Credentials(api_key=KEY, crn=CRN)
        for owner in (IBMQuantumClient(credentials, RetryPolicy(max_elapsed=0)), IBMQuantumHook("fuzzed")):
            each = type(owner).__name__
            choices = [
                (name, field, good)
                for name, fields, good in methods(type(owner))
                for field in sorted(fields - INTERNAL)
            ]
            rng, found[each] = random.Random(f"{seed} {each}"), 0
            for name, field, good in [rng.choice(choices) for _ in range(count)]:
                found[each] += refused(
                    lambda argument, owner=owner, name=name, field=field, good=good: call(
                        owner, name, {**good, field: argument}
                    ),
                    value(rng),
                )
    finally:
        transport.open_client = plain
        del os.environ["AIRFLOW_CONN_FUZZED"]
    return found


def fuzz(count: int, seed: int = 0) -> dict[str, int]:
    """Try ``count`` arguments on each check and on each field of the credentials; return what was refused."""
    calls = dict(CHECKS)
    for field in FIELDS:
        calls[f"credentials.{field}"] = lambda value, field=field: Credentials(
            **{"api_key": KEY, "crn": CRN, field: value}
        )
    found = {}
    for name, call in calls.items():
        rng = random.Random(f"{seed} {name}")
        found[name] = sum(refused(call, value(rng)) for _ in range(count))
    return found


def main() -> None:
    """Print how many arguments were refused; the count is the first argument, the seed the second."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for each in (fuzz, fuzz_tasks, fuzz_triggers, fuzz_calls):
        for name, number in each(count, seed).items():
            print(f"{name:34} {number} of {count} refused, the others accepted", flush=True)


if __name__ == "__main__":
    main()
