# SPDX-License-Identifier: Apache-2.0
"""Breakpoints inside a task, at points that the fake IBM cannot see: wait until the process is killed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

END = "end"
"""Hold when the task is done and has not reported it; else "METHOD /api/path": hold after that response."""


def before(context: Any) -> None:
    """As ``pre_execute``: in the first try, hold after the response that the run's conf names."""
    point = _point(context)
    if point is None or point == END:
        return
    import httpx

    send = httpx.HTTPTransport.handle_request

    def send_and_hold(transport: Any, request: httpx.Request) -> httpx.Response:
        response = send(transport, request)
        if f"{request.method} {request.url.path}" == point:
            hold(context)
        return response

    httpx.HTTPTransport.handle_request = send_and_hold


def after(context: Any, _result: Any) -> None:
    """As ``post_execute``: hold before the outcome is reported."""
    if _point(context) == END:
        hold(context)


def hold(context: Any) -> None:
    """Leave a mark that the point is reached, and wait there."""
    Path(context["dag_run"].conf["mark"]).touch()
    while True:
        time.sleep(0.2)


def _point(context: Any) -> str | None:
    conf, ti = context["dag_run"].conf, context["ti"]
    is_first_try = ti.task_id == conf["task"] and ti.try_number == 1
    return conf.get("hold") if is_first_try else None
