# SPDX-License-Identifier: Apache-2.0
"""
``python -m tests.integration.fault_matrix.mutation_check``: check that the matrix sees mistakes.

One mistake after another is made between the client and its connections, or between a task and Airflow's
variables: a request is sent twice, not at all, or its response is changed. The right column of a cell must
show it. No internals of the package are replaced, so the check survives a refactoring.
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import httpx
from airflow.sdk import Variable

from testing.airflow_home import AIRFLOW_HOME

from .cells import cells
from .runner import prepare, run_cell

Send = Callable[[httpx.Request], httpx.Response]
log = logging.getLogger(__name__)


def _is(request: httpx.Request, method: str, path: str) -> bool:
    return request.method == method and fnmatchcase(request.url.path, f"*{path}")


def _respond(request: httpx.Request, status: int, body: Any = None) -> httpx.Response:
    content = {} if body is None else {"json": body}
    return httpx.Response(status, request=request, **content)


def _body(response: httpx.Response) -> Any:
    response.read()
    return response.json()


def _request_like(request: httpx.Request, method: str, path: str) -> httpx.Request:
    """Return another request to the same service, with the same credentials."""
    root = request.url.path.partition("/v1/")[0]
    headers = {k: v for k, v in request.headers.items() if not k.lower().startswith("content-")}
    url = request.url.copy_with(path=f"{root}/v1/{path}", query=None)
    return httpx.Request(method, url, headers=headers, extensions=request.extensions)


def _send_posts_again(send: Send, request: httpx.Request) -> httpx.Response:
    """As a client does that takes every operation for one that may be repeated."""
    content = request.content
    response = send(request)
    if request.method == "POST" and response.is_server_error:
        response.close()
        again = httpx.Request("POST", request.url, headers=request.headers, content=content)
        again.extensions = request.extensions
        return send(again)
    return response


def _find_no_job(send: Send, request: httpx.Request) -> httpx.Response:
    """A job whose response was lost is never found by its tag."""
    if _is(request, "GET", "/v1/jobs"):
        return _respond(request, 200, {"jobs": [], "count": 0, "limit": 200, "offset": 0})
    return send(request)


def _find_no_session(send: Send, request: httpx.Request) -> httpx.Response:
    """A session whose response was lost is never found in the list."""
    if _is(request, "GET", "/v1/workloads"):
        return _respond(request, 200, {"workloads": []})
    return send(request)


class _FindAnothersSession:
    """A session whose response was lost is taken for another one, which belongs to somebody else."""

    def __init__(self) -> None:
        self.own = self.others = ""

    def __call__(self, send: Send, request: httpx.Request) -> httpx.Response:
        if _is(request, "GET", "/v1/workloads"):
            page = _body(send(request))
            rows = sorted(page["workloads"], key=lambda row: row["created"])
            if len(rows) > 1:
                self.own, self.others = rows[-1]["id"], rows[0]["id"]
                page["workloads"] = [{**rows[-1], "id": self.others}]
            return _respond(request, 200, page)
        if self.others and _is(request, "GET", f"/v1/sessions/{self.others}"):
            session = _body(send(_request_like(request, "GET", f"sessions/{self.own}")))
            return _respond(request, 200, {**session, "id": self.others})
        return send(request)


def _close_all(send: Send, request: httpx.Request) -> None:
    listed = _body(send(_request_like(request, "GET", "workloads")))["workloads"]
    for row in listed:
        send(_request_like(request, "DELETE", f"sessions/{row['id']}/close")).read()


def _sweep_everything(send: Send, request: httpx.Request) -> httpx.Response:
    """Whatever is listed is closed."""
    if _is(request, "GET", "/v1/workloads"):
        _close_all(send, request)
    return send(request)


def _close_others(send: Send, request: httpx.Request) -> httpx.Response:
    """Whoever closes a session closes all."""
    if request.method == "DELETE":
        _close_all(send, request)
    return send(request)


def _send_no_end(send: Send, request: httpx.Request) -> httpx.Response:
    """Neither a close nor a drain is sent."""
    return _respond(request, 204) if request.method in ("DELETE", "PATCH") else send(request)


class _ConfirmUnseen:
    """A session is taken for closed once a close was sent."""

    def __init__(self) -> None:
        self.sent: set[str] = set()

    def __call__(self, send: Send, request: httpx.Request) -> httpx.Response:
        if _is(request, "DELETE", "/v1/sessions/*/close"):
            self.sent.add(request.url.path.split("/")[-2])
        response = send(request)
        if _is(request, "GET", "/v1/sessions/*") and request.url.path.split("/")[-1] in self.sent:
            return _respond(request, 200, {**_body(response), "state": "closed", "accepting_jobs": False})
        return response


def _log_the_token(send: Send, request: httpx.Request) -> httpx.Response:
    """The headers of a request are logged."""
    log.info("Sending %s", request.headers.get("authorization"))
    return send(request)


def _raise_key_error(send: Send, request: httpx.Request) -> httpx.Response:
    """An error response leads to an error that no code has anticipated."""
    response = send(request)
    if _is(request, "POST", "/v1/jobs") and response.is_client_error:
        raise KeyError("status")
    return response


def _mutate_requests(mutation: Callable[[Send, httpx.Request], httpx.Response]) -> None:
    """Let the mutation stand between blocking clients and their connections."""
    send = httpx.HTTPTransport.handle_request

    def handle_request(self: Any, request: httpx.Request) -> httpx.Response:
        return mutation(lambda each: send(self, each), request)

    httpx.HTTPTransport.handle_request = handle_request


def _register_no_session() -> None:
    Variable.set = staticmethod(lambda *_, **__: None)


MUTATIONS: dict[str, tuple[Callable[[], None], str, str]] = {
    "sends POST again": (
        lambda: _mutate_requests(_send_posts_again),
        "create | 503 after | once | first | sync",
        "duplicates",
    ),
    "submits again": (
        lambda: _mutate_requests(_find_no_job),
        "submit job | 503 after | once | first | sync",
        "run twice",
    ),
    "opens again": (
        lambda: _mutate_requests(_find_no_session),
        "create | drop after | once | first | sync",
        "duplicates",
    ),
    "resumes any": (
        lambda: _mutate_requests(_FindAnothersSession()),
        "create | drop after | once | first | sync",
        "wrong result",
    ),
    "sweeps all": (
        lambda: _mutate_requests(_sweep_everything),
        "workloads | 503 before | once | first | sync",
        "others'",
    ),
    "registers none": (_register_no_session, "IAM | 503 before | lasting | later | sync", "lost"),
    "does not close": (
        lambda: _mutate_requests(_send_no_end),
        "close | 429 | once | first | sync",
        "lost",
    ),
    "does not confirm": (
        lambda: _mutate_requests(_ConfirmUnseen()),
        "close | 204 before | once | first | sync",
        "wrong result",
    ),
    "closes others'": (
        lambda: _mutate_requests(_close_others),
        "close | 503 before | once | later | sync",
        "others'",
    ),
    "logs its token": (
        lambda: _mutate_requests(_log_the_token),
        "get | 503 before | once | first | sync",
        "secrets",
    ),
    "breaks": (
        lambda: _mutate_requests(_raise_key_error),
        "submit job | 400 | once | first | sync",
        "wrong result",
    ),
}
"""A mistake, the cell that is run with it, and the column that must show it."""


def is_seen(name: str) -> bool:
    """Make the mistake in this process, and run the cell."""
    mutate, text, column = MUTATIONS[name]
    prepare()
    mutate()
    [cell] = [each for each in cells(text) if str(each) == text]
    return column in {found for found, _ in run_cell(cell).findings}


def main() -> int:
    """Print for each mistake if the matrix sees it; return 1 if it does not see one."""
    try:
        with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
            seen = dict(zip(MUTATIONS, pool.map(is_seen, MUTATIONS, chunksize=1), strict=True))
    finally:
        shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)
    for name, found in seen.items():
        print(f"{name}: {'seen' if found else 'NOT SEEN'}")
    return int(not all(seen.values()))


if __name__ == "__main__":
    sys.exit(main())
