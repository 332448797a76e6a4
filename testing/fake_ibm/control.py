# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.emulator.service.responses import Response, bad_request, not_found, ok

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_ibm_sessions.emulator.service.requests import Request

    from .fake import FakeIBM


def answer(fake: FakeIBM, request: Request) -> Response:
    """Answer a test in another process: no authentication, not in the journal."""
    action = _ACTIONS.get(f"{request.method} {request.path}")
    if action is None:
        return not_found(f"the control API has {', '.join(_ACTIONS)}")
    try:
        return ok(action(fake, json.loads(request.body or b"null")))
    except (ValueError, TypeError, KeyError, AttributeError) as wrong:
        return bad_request(f"{type(wrong).__name__}: {wrong}")


def _state(fake: FakeIBM, body: Any) -> Any:
    return fake.state()


def _sessions(fake: FakeIBM, body: Any) -> Any:
    return [dataclasses.asdict(session) for session in fake.sessions.values()]


def _jobs(fake: FakeIBM, body: Any) -> Any:
    return [dataclasses.asdict(job) for job in fake.jobs.values()]


def _journal(fake: FakeIBM, body: Any) -> Any:
    """Leave headers and bodies out: they hold secrets."""
    names = ("method", "path", "query", "operation", "status", "fault", "time", "client_port")
    return [{name: getattr(entry, name) for name in names} for entry in list(fake.journal)]


def _advance(fake: FakeIBM, body: Any) -> Any:
    """Take {"seconds": n}."""
    fake.clock.advance(float(body["seconds"]))
    fake.service.catch_up()
    return {"now": fake.clock.now()}


def _script(fake: FakeIBM, body: Any) -> Any:
    """Take a list of mappings with a fault's fields."""
    fake.script(*body)
    return {"left": len(fake.faults.left)}


def _clear(fake: FakeIBM, body: Any) -> Any:
    fake.clear_faults()
    return {"left": 0}


def _next_jobs(fake: FakeIBM, body: Any) -> Any:
    """Take a list of mappings with an outcome's fields."""
    fake.next_jobs(body)
    return {"waiting": len(fake.planned.outcomes)}


def _add_session(fake: FakeIBM, body: Any) -> Any:
    """Take a mapping with the arguments of `add_session`."""
    return dataclasses.asdict(fake.add_session(**body))


def _settings(fake: FakeIBM, body: Any) -> Any:
    """Take a mapping with settings to change."""
    for name, value in body.items():
        getattr(fake.settings, name)
        setattr(fake.settings, name, value)
    return sorted(body)


def _revoke(fake: FakeIBM, body: Any) -> Any:
    fake.revoke_tokens()
    return {"revoked": len(fake.tokens)}


_ACTIONS: dict[str, Callable[[FakeIBM, Any], Any]] = {
    "GET /_fake/state": _state,
    "GET /_fake/sessions": _sessions,
    "GET /_fake/jobs": _jobs,
    "GET /_fake/journal": _journal,
    "POST /_fake/advance": _advance,
    "POST /_fake/script": _script,
    "POST /_fake/clear": _clear,
    "POST /_fake/jobs": _next_jobs,
    "POST /_fake/session": _add_session,
    "POST /_fake/settings": _settings,
    "POST /_fake/revoke": _revoke,
}
