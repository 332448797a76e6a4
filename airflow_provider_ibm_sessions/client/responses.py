# SPDX-License-Identifier: Apache-2.0
"""Reads IBM's replies: the content type, the JSON, and every shape of error it is known to send."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qs, quote, quote_plus

import httpx

from airflow_provider_ibm_sessions.client.errors import (
    AuthenticationError,
    BadResponseError,
    ConflictError,
    IBMQuantumError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    PlanError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    SessionClosedError,
)

_BY_CODE: Final[Mapping[str, type[IBMQuantumError]]] = {
    "1217": SessionClosedError,
    # Not a NotFoundError: the instance is missing, which says nothing of the session that was asked for.
    "1279": PermissionDeniedError,
    "1352": PlanError,
}
_BY_STATUS: Final[Mapping[int, type[IBMQuantumError]]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ServerError,
    409: ConflictError,
    423: ConflictError,
    429: RateLimitedError,
}
_ADVICE: Final[Mapping[str, str]] = {
    "1241": "Check the connection's crn.",
    "1279": "This host does not know the crn: its region decides the host, its account must be the key's.",
    "1348": "Check the connection's crn.",
    "1352": "The Open plan has no dedicated sessions: use mode='batch' or an instance of a paid plan.",
}
_MAX_MESSAGE: Final = 500
_ERROR_KEYS: Final = frozenset(
    {"errors", "error", "message", "code", "trace", "status_code", "errorCode", "errorMessage", "context"}
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What an error reply says, whatever its shape."""

    message: str
    code: str | None = None
    trace: str | None = None


def read_json(response: httpx.Response, doing: str) -> Any:
    """
    Return the JSON of a successful reply.

    :param doing: The operation's summary, for messages.
    :raises IBMQuantumError: The one that fits, if the reply is an error or is not JSON.
    """
    body = _parsed(response, doing)
    problem = _problem_in(body) if isinstance(body, Mapping) else None
    if problem and "id" not in body:
        raise _error(response, problem, doing)
    return body


def read_results(response: httpx.Response, doing: str) -> Any:
    """
    Return the JSON of a job's results as it came, or None if there are none (204).

    :raises JobFailedError: If there is a text in their place: the traceback of a job that failed.
    """
    if response.status_code == httpx.codes.NO_CONTENT:
        return None
    if response.is_success and _content_type(response).lower() == "text/plain":
        # The last lines of a traceback say most.
        raise JobFailedError(f"{doing}: {clean(response.text, response.request, most=None)[-_MAX_MESSAGE:]}")
    body = _parsed(response, doing)
    if isinstance(body, Mapping) and set(body) <= _ERROR_KEYS and (problem := _problem_in(body)):
        raise _error(response, problem, doing)
    return body


def read_text(response: httpx.Response, doing: str) -> str:
    """Return a reply of plain text."""
    raise_for_status(response, doing)
    if _content_type(response).lower() not in ("text/plain", ""):
        raise BadResponseError(f"{doing}: the reply is no plain text", status=response.status_code)
    return response.text


def _parsed(response: httpx.Response, doing: str) -> Any:
    raise_for_status(response, doing)
    if not _is_json(response):
        raise _not_json(response, doing)
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        broken = BadResponseError(
            f"{doing}: the reply is broken JSON ({len(response.content)} bytes)", status=response.status_code
        )
        broken.retryable = True  # unlike a web page or a wrong shape, it was cut on its way
        raise broken from error


def read_empty(response: httpx.Response, doing: str) -> None:
    """Accept a successful reply that carries no answer (204). A web page is not one."""
    raise_for_status(response, doing)
    if response.content and not isinstance(read_json(response, doing), Mapping):
        raise BadResponseError(f"{doing}: the reply is JSON of another shape", status=response.status_code)


def raise_for_status(response: httpx.Response, doing: str) -> None:
    """Raise the error that an unsuccessful reply stands for."""
    if response.is_success:
        return
    if response.status_code == 404 and not _is_json(response):
        # IBM says "no such session" in JSON. A proxy's or load balancer's 404 proves nothing.
        raise _not_json(response, doing)
    if response.status_code < 400:
        raise BadResponseError(f"{doing}: unexpected redirect or status", status=response.status_code)
    raise _error(response, problem_of(response), doing)


def problem_of(response: httpx.Response) -> Problem:
    """Read an error reply in any of the shapes IBM uses; else say what came instead."""
    try:
        body = json.loads(response.content) if _is_json(response) else None
    except (ValueError, RecursionError):
        body = None
    problem = _problem_in(body) if isinstance(body, Mapping) else None
    if problem is None:
        kind = _content_type(response) or "no content type"
        problem = Problem(f"no explanation in the reply ({kind}, {len(response.content)} bytes)")
    return problem


def _problem_in(body: Mapping[str, Any]) -> Problem | None:
    """``errors`` list, single ``error``, IAM's ``errorMessage``, or a bare ``message``."""
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else body.get("error")
    if isinstance(first, Mapping):
        entry: Mapping[str, Any] = first
    elif "errorMessage" in body:
        entry = {"message": body["errorMessage"], "code": body.get("errorCode")}
    elif first is not None or ("message" in body and "id" not in body):
        entry = {"message": body.get("message") or first, "code": body.get("code")}
    else:
        return None
    texts = [str(entry[key]) for key in ("message", "solution") if entry.get(key)]
    code, trace = entry.get("code"), body.get("trace")
    return Problem(
        ". ".join(text.rstrip(".") for text in texts) or "no message",
        None if code is None else str(code),
        trace if isinstance(trace, str) else None,
    )


def _error(response: httpx.Response, problem: Problem, doing: str) -> IBMQuantumError:
    status = response.status_code
    kind = _BY_CODE.get(problem.code or "") if status < 500 else ServerError
    if kind is None:
        kind = _BY_STATUS.get(status, RequestRejectedError if status >= 400 else BadResponseError)
    advice = _ADVICE.get(problem.code or "", "")
    message = clean(problem.message, response.request)
    return kind(
        f"{doing}: {message}{'. ' + advice if advice else ''}",
        status=status,
        code=problem.code and clean(problem.code, response.request, 64),
        trace=problem.trace and clean(problem.trace, response.request, 64),
        retry_after=retry_after(response),
    )


def _not_json(response: httpx.Response, doing: str) -> BadResponseError:
    kind = _content_type(response) or "nothing"
    return BadResponseError(
        f"{doing}: answered with {clean(kind, response.request, 64)} instead of JSON. "
        f"Is {_host(response)} the right host? The base URL of IBM Quantum's API ends in /api",
        status=response.status_code,
    )


def _host(response: httpx.Response) -> str:
    url = response.request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _content_type(response: httpx.Response) -> str:
    """The type without its parameters; empty if there is none."""
    kind: str = response.headers.get("content-type", "").split(";")[0]
    return kind.strip()


def _is_json(response: httpx.Response) -> bool:
    kind = _content_type(response).lower()
    return kind == "application/json" or kind.endswith("+json")


def retry_after(response: httpx.Response) -> float | None:
    """Seconds of the ``Retry-After`` header, given as a number or as a date."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def clean(text: str, request: httpx.Request, most: int | None = _MAX_MESSAGE) -> str:
    """One line, of bounded length, without the secrets of the request that it answers."""
    for secret in _secrets_of(request):
        text = text.replace(secret, "***")
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()[:most]


def _secrets_of(request: httpx.Request) -> list[str]:
    """The token in a request's header, or the API key in IAM's form, also as the form encodes it."""
    secrets = [request.headers.get("authorization", "").partition(" ")[2]]
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        keys = parse_qs(request.content.decode("ascii", "replace")).get("apikey", [])
        secrets += [form for key in keys for form in (key, quote_plus(key), quote(key, safe=""))]
    return [secret for secret in secrets if secret]
