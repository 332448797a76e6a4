# SPDX-License-Identifier: Apache-2.0
"""Inside of a task: wait, at a point that the fake IBM cannot see, until somebody kills this process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

END = "end"
"""Hold when the task is done and has not told so yet; else "METHOD /api/path": hold when that is answered."""


def before(context: Any) -> None:
    """Airflow's ``pre_execute``: in the first attempt, hold after the reply that the run's conf names."""
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
    """Airflow's ``post_execute``: hold before the outcome is told."""
    if _point(context) == END:
        hold(context)


def hold(context: Any) -> None:
    """Tell that the point is reached, and stay there."""
    Path(context["dag_run"].conf["mark"]).touch()
    while True:
        time.sleep(0.2)


def _point(context: Any) -> str | None:
    conf, ti = context["dag_run"].conf, context["ti"]
    mine = ti.task_id == conf["task"] and ti.try_number == 1
    return conf.get("hold") if mine else None
